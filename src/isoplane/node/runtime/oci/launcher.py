"""Processes of the low-level runtime and conmon, started so that they find a mount table that suits them.

Each is started by a thread that takes a mount namespace of its own first.  Two things follow.  The container's overlay
mount exists only there: it goes with its last process, so that no crash can leave it behind.  And crun, which refuses a
host with both cgroup versions, sees version 1 alone, because version 2 is unmounted in that namespace only.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from isoplane.node import mounting
from isoplane.node.runtime.oci import kernel

T = TypeVar("T")


class CommandFailure(Exception):
    """A command of the low-level runtime failed; the message is the last thing it said."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What was found on the host: the low-level runtime (``crun`` or ``runc``), conmon, and what crun needs hidden."""

    runtime: str
    runtime_path: str
    conmon_path: str
    hide: Path | None = None
    """A cgroup v2 hierarchy to unmount for crun; None where it need not be."""


class Launcher:
    """Runs blocking work on threads of its own, each time in a fresh mount namespace."""

    def __init__(self, tools: Tools, state: Path, threads: int = 8) -> None:
        self.tools = tools
        self._state = state
        self._host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="oci-launch")
        self._local = threading.local()

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        os.close(self._host)

    @property
    def pool(self) -> ThreadPoolExecutor:
        return self._pool

    def isolated(self, work: Callable[[], T]) -> T:
        """Run ``work`` on this thread in a mount namespace of its own, a slave of the host's."""
        kernel.unshare(kernel.CLONE_NEWNS)
        try:
            mounting.mount("none", "/", flags=mounting.MS_REC | mounting.MS_SLAVE)
            if self.tools.hide is not None:
                # crun then takes the directory for one more hierarchy of version 1 and writes into it: let that go, too.
                mounting.unmount(self.tools.hide)
                mounting.mount("isoplane", self.tools.hide, "tmpfs", 0, "size=1m,mode=755")
            return work()
        finally:
            kernel.setns(self._host, kernel.CLONE_NEWNS)

    def arguments(self, *command: str) -> list[str]:
        """A command line of the low-level runtime."""
        return [self.tools.runtime_path, "--root", str(self._state), *command]

    def run(self, *command: str, timeout: float = 30.0) -> str:
        """Run one command to its end and return what it printed. Raises CommandFailure."""
        name = self.tools.runtime
        try:
            done = subprocess.run(
                self.arguments(*command), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise CommandFailure(f"{name} {command[0]} gave no result within {timeout:.0f} s") from None
        except OSError as error:
            raise CommandFailure(f"{name} cannot be started: {error.strerror}") from None
        if done.returncode != 0:
            raise CommandFailure(last_line(done.stderr) or f"{name} {command[0]} failed with {done.returncode}")
        return done.stdout

    def conmon(self, arguments: Sequence[str], directory: Path, keep: Sequence[int], timeout: float = 60.0) -> bytes:
        """Start conmon, which creates the container and outlives us. Returns its one-line report, b'' if it said nothing.

        ``directory``: where it works, and leaves a file ``oom`` when it sees its container's memory run out.
        ``keep``: descriptors that conmon holds open for as long as it lives.
        """
        reader, writer = os.pipe()
        try:
            process = subprocess.Popen(
                [self.tools.conmon_path, *arguments],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writer, *keep),
                env={"PATH": os.environ.get("PATH", os.defpath), "_OCI_SYNCPIPE": str(writer)},
                start_new_session=True,
            )
        except OSError as error:
            os.close(reader)
            raise CommandFailure(f"conmon cannot be started: {error.strerror}") from None
        finally:
            os.close(writer)
        try:
            report = _read_line(reader, timeout)
        finally:
            os.close(reader)
        # The process that we started leaves at once; the one that stays is its child.
        process.wait(timeout)
        assert process.stderr is not None
        if not report:
            os.set_blocking(process.stderr.fileno(), False)
            report = (process.stderr.read() or b"") if process.returncode else b""
        process.stderr.close()
        return report


def _read_line(fd: int, timeout: float) -> bytes:
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not data.endswith(b"\n"):
        if not poll.poll(timeout * 1000):
            break
        part = os.read(fd, 65536)
        if not part:
            break
        data += part
    return data


def last_line(text: str) -> str:
    """The message in the last thing a tool printed, without its time stamp and level."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    last = lines[-1].strip()
    if (at := last.find('msg="')) >= 0:
        last = last[at + 5 :].rsplit('"', 1)[0].replace('\\"', '"')
    head, _, tail = last.partition(": ")
    if tail and head[:4].isdigit():
        last = tail
    return last
