"""What the client tests need: every kubectl found, one run of it in a namespace of its own, and a scripted node."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

from apiserver_support import Kubectl, kubectls
from isoplane.client.streams import ExecOptions, ExecSession, LogOptions
from isoplane.objects.kinds import PODS, Resource

FOUND = kubectls()


class ScriptedNode:
    """A node whose every log has three lines, and five more one by one when followed."""

    async def logs(
        self, resource: Resource, namespace: str, name: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        kind = "container" if resource is PODS else "serial console"
        lines = [f"{kind} line {n}\n" for n in range(3)]
        if options.previous:
            lines = ["the one before\n"]
        if options.tail_lines is not None:
            lines = lines[-options.tail_lines :] if options.tail_lines else []
        for line in lines:
            yield line.encode()
        if options.follow:
            for n in range(5):
                await asyncio.sleep(0.02)
                yield f"followed {n}\n".encode()

    def check_exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> None: ...

    async def exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> ExecSession:
        return EchoSession(options)


class EchoSession:
    """Says its command on stdout, copies stdin there, and ends with the code that ``exit N`` asks for."""

    def __init__(self, options: ExecOptions) -> None:
        self._options = options
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        if not options.stdin:
            self._input.put_nowait(None)

    async def write_stdin(self, data: bytes) -> None:
        self._input.put_nowait(data)

    async def close_stdin(self) -> None:
        self._input.put_nowait(None)

    async def resize(self, width: int, height: int) -> None: ...

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        yield 1, f"ran {' '.join(self._options.command)}\n".encode()
        yield 2, b"complained\n"
        while (data := await self._input.get()) is not None:
            yield 1, data

    async def wait(self) -> int:
        command = list(self._options.command)
        return int(command[1]) if command[0] == "exit" else 0

    async def close(self) -> None: ...


class Run:
    """kubectl in one fresh namespace."""

    def __init__(self, kubectl: Kubectl, kubeconfig: Path, home: Path) -> None:
        self.kubectl = kubectl
        self.minor = kubectl.minor
        self.namespace = f"k{kubectl.minor}-{uuid.uuid4().hex[:8]}"
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(home)}

    def result(self, *arguments: str, stdin: str = "", timeout: float = 30) -> subprocess.CompletedProcess[str]:
        command = [self.kubectl.path, "--namespace", self.namespace, *arguments]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, env=self.environment
        )

    def __call__(self, *arguments: str, stdin: str = "", timeout: float = 30) -> str:
        """The output of a command that must succeed."""
        done = self.result(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def fails(self, *arguments: str, stdin: str = "") -> str:
        """The error text of a command that must fail."""
        done = self.result(*arguments, stdin=stdin)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [self.kubectl.path, "--namespace", self.namespace, *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        )
