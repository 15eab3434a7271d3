"""A plane in a process of its own, for tests that kill it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from isoplane.client.http import HttpApi

START_SECONDS = 60.0


class PlaneProcess:
    """``isoplane up`` on a data directory. Only this process is ever signalled; workloads live on as they would."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.kubeconfig = data / "kubeconfig"
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self._log = data.with_name(data.name + ".log")

    def start(self) -> PlaneProcess:
        """Start it and wait for its ready line."""
        command = [sys.executable, "-m", "isoplane.cli.main", "up", "--data", str(self.data), "--listen", "127.0.0.1:0"]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments], stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ}
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("ready"), f"the plane did not start: {line!r}\n{self.log()}"
        return self

    def log(self) -> str:
        """What it logged, all runs together."""
        return self._log.read_text()[-8000:]

    def api(self) -> HttpApi:
        """A client with the administrator's certificate."""
        return HttpApi.from_kubeconfig(self.kubeconfig)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9, and wait for the end of the process."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        return code

    def close(self) -> None:
        """Kill it if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def down(self, grace: float = 10) -> str:
        """``isoplane down``; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "isoplane.cli.main", "down", "--data", str(self.data), "--grace", str(grace)],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


def wait_until(condition: object, timeout: float, what: str) -> None:
    """Poll a callable until it is true."""
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)
