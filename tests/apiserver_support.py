"""An API server for tests: in a thread of its own, so that blocking clients can talk to it; and the kubectls to try."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from isoplane.server.apiserver import ApiServer

T = TypeVar("T")


class ServerThread:
    """Runs an ApiServer between ``start`` and ``stop``; ``run`` executes coroutines on its loop."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.server: ApiServer

    def start(self, prepare: Callable[[ApiServer], None] | None = None) -> ServerThread:
        self._thread.start()

        async def begin() -> ApiServer:
            server = ApiServer(self.directory / "data", "127.0.0.1:0", self.kubeconfig, **self._options)
            await server.start()
            if prepare is not None:
                prepare(server)
            return server

        self.server = self.run(begin())
        return self

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 30) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def stop(self) -> None:
        self.run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def context(self) -> tuple[str, str, Path]:
        """(url, CA file, client certificate and key file) for clients that take files."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        ca, client = self.directory / "ca.pem", self.directory / "client.pem"
        ca.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        client.write_bytes(
            base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
        )
        return cluster["server"], ca, client  # type: ignore[return-value]


@dataclass(frozen=True)
class Kubectl:
    """One kubectl binary of the machine."""

    path: str
    minor: int

    def __str__(self) -> str:
        return f"1.{self.minor}"


def kubectls() -> list[Kubectl]:
    """Every kubectl on the PATH and beside those (installations keep several versions in one directory)."""
    directories = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    found = shutil.which("kubectl")
    if found:
        directories.append(Path(found).resolve().parent)
    versions: dict[int, str] = {}
    for directory in directories:
        for path in sorted(directory.glob("kubectl*")):
            if not re.fullmatch(r"kubectl([.-]?v?1\.\d+(\.\d+)?)?", path.name) or not os.access(path, os.X_OK):
                continue
            answer = subprocess.run([path, "version", "--client", "-o", "yaml"], capture_output=True, text=True)
            match = re.search(r'minor: "?(\d+)', answer.stdout)
            if match:
                versions.setdefault(int(match[1]), str(path))
    return [Kubectl(path, minor) for minor, path in sorted(versions.items())]
