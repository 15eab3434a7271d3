"""Commands inside a running container: for probes, and for people with a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isoplane.node import procfs
from isoplane.node.runtime.oci import processes
from isoplane.node.runtime.oci.launcher import Launcher
from isoplane.node.runtime.oci.layout import Layout
from isoplane.node.runtime.oci.observe import Look
from isoplane.node.runtime.protocol import ExecResult, RuntimeFailure, RuntimeReason

_OUTPUT_LIMIT = 1 << 20
_TIMED_OUT = 124
_PATIENCE = 1.0


class Execution:
    """One command. ``stdin``, ``stdout`` and ``stderr`` are descriptors of ours: pipes, or one terminal for all three.

    Read and write them as suits (they are non-blocking), await :meth:`wait`, and :meth:`close` in the end.
    """

    def __init__(self, process: subprocess.Popen[bytes], pid_file: Path, descriptors: tuple[int, int, int]) -> None:
        self._process = process
        self._pid_file = pid_file
        self.stdin, self.stdout, self.stderr = descriptors
        self.tty = self.stdin >= 0 and self.stdin == self.stdout

    async def wait(self) -> int:
        """The command's exit code; 128 + signal when it was killed."""
        if (code := self._process.poll()) is None:
            fd = processes.open_pidfd(self._process.pid)
            if fd is not None:
                loop, ended = asyncio.get_running_loop(), asyncio.Event()
                loop.add_reader(fd, ended.set)
                try:
                    await ended.wait()
                finally:
                    loop.remove_reader(fd)
                    os.close(fd)
            code = self._process.wait()
        return code if code >= 0 else 128 - code

    def kill(self) -> None:
        """End the command in the container. What we started to reach it then reaps it, and ends too."""
        if self._process.poll() is not None:
            return
        if pid := procfs.read_pid(self._pid_file):
            procfs.send(pid, signal.SIGKILL)
        else:
            self._process.kill()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal its size; without one there is nothing to tell."""
        if self.tty:
            fcntl.ioctl(self.stdout, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close_stdin(self) -> None:
        """The end of the input; a terminal has none to close."""
        if not self.tty and self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def close(self) -> None:
        """Let go of everything; the command is killed if it still runs."""
        if self._process.poll() is None:
            self.kill()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for fd in {self.stdin, self.stdout, self.stderr} - {-1}:
            os.close(fd)
        self.stdin = self.stdout = self.stderr = -1
        self._pid_file.unlink(missing_ok=True)
        self._pid_file.with_suffix(".json").unlink(missing_ok=True)

    async def collect(self, timeout: float) -> ExecResult:
        """All output and the exit code; after ``timeout`` seconds the command is killed and the code is 124."""
        output = bytearray()
        loop = asyncio.get_running_loop()
        open_ends = {self.stdout, self.stderr} - {-1}
        drained = asyncio.Event()

        def readable(fd: int) -> None:
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                output.extend(data[: max(0, _OUTPUT_LIMIT - len(output))])
                return
            loop.remove_reader(fd)
            open_ends.discard(fd)
            if not open_ends:
                drained.set()

        for fd in tuple(open_ends):
            loop.add_reader(fd, readable, fd)
        try:
            async with asyncio.timeout(timeout):
                code = await self.wait()
                # A process left in the background may keep the pipes open: it is not waited for.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await drained.wait()
        except TimeoutError:
            self.kill()
            code = _TIMED_OUT
            output += f"the command gave no result within {timeout:g} s".encode()
        finally:
            for fd in tuple(open_ends):
                loop.remove_reader(fd)
            self.close()
        return ExecResult(code, bytes(output))


class Executor:
    """Starts commands in containers, as the container's own process runs: same user, environment and directory."""

    def __init__(self, launcher: Launcher, layout: Layout) -> None:
        self._launcher = launcher
        self._layout = layout

    async def start(self, found: Look, command: Sequence[str], *, tty: bool, stdin: bool) -> Execution:
        """Raises RuntimeFailure when nothing could be started. A command that is not found exits with 127 or so."""
        if not command:
            raise RuntimeFailure(RuntimeReason.RUN, "no command was given")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._launcher.pool, self._start, found, tuple(command), tty, stdin)
        except OSError as error:
            name = found.attempt.unit
            raise RuntimeFailure(RuntimeReason.RUN, f"no command could be run in container {name!r}: {error}") from None

    def _start(self, found: Look, command: tuple[str, ...], tty: bool, stdin: bool) -> Execution:
        container_id = str(found.record.get("id"))
        process: dict[str, Any] = json.loads(self._layout.config(container_id).read_bytes())["process"]
        process["args"], process["terminal"] = list(command), tty
        process.pop("oomScoreAdj", None)
        fd, name = tempfile.mkstemp(prefix="exec-", suffix=".json", dir=self._layout.bundle(container_id))
        with os.fdopen(fd, "w") as file:
            json.dump(process, file)
        pid_file = Path(name).with_suffix(".pid")
        arguments = self._launcher.arguments("exec", "--process", name, "--pid-file", str(pid_file), container_id)
        return self._launcher.isolated(lambda: _spawn(arguments, pid_file, tty, stdin))


def _spawn(arguments: list[str], pid_file: Path, tty: bool, stdin: bool) -> Execution:
    if tty:
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, close_fds=True
            )
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        return Execution(process, pid_file, (ours, ours, -1))
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    descriptors = []
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is None:
            descriptors.append(-1)
            continue
        descriptors.append(os.dup(stream.fileno()))
        stream.close()
        os.set_blocking(descriptors[-1], False)
    return Execution(process, pid_file, (descriptors[0], descriptors[1], descriptors[2]))
