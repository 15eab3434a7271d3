"""A process that is not our child: is it ours, when did it start, tell us when it ends, end it.

QEMU outlives the plane, so a machine is known by its process number, its start time and its own command line, which names
the machine's pid file: numbers are reused, that path is not.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_TICKS = os.sysconf("SC_CLK_TCK")


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty for one that is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
    except OSError:
        return []


def started_at(pid: int) -> float:
    """POSIX seconds at which a process started; 0 when it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except (OSError, StopIteration):
        return 0
    return int(boot.split()[1]) + int(after_name[19]) / _TICKS


def find(argument: str) -> Iterator[int]:
    """Processes whose command line has ``argument`` as one of its words."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and argument in command_line(int(entry)):
            yield int(entry)


def read_pid_file(path: Path) -> int:
    """The number in a pid file, 0 when there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def spawn(argv: Sequence[str], errors: Path, holds: Sequence[int]) -> int:
    """Start a program in a session of its own, so that nothing that happens to this process reaches it.

    Its standard error is appended to ``errors``; of ours it has the descriptors ``holds`` and no other, and nothing of our
    environment, which may hold what is not for a guest that breaks out.  Returns its number; it is a child to
    be reaped while this process lives, and init's afterwards.  Raises OSError.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(errors), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        *((os.POSIX_SPAWN_DUP2, hold, hold) for hold in holds),
        *((os.POSIX_SPAWN_CLOSE, inherited) for inherited in _inherited() - set(holds)),
    ]
    return os.posix_spawn(
        argv[0], list(argv), _ENVIRONMENT, file_actions=actions, setsid=True, setsigmask=(), setsigdef=(signal.SIGPIPE,)
    )


def _inherited() -> set[int]:
    """Descriptors that whoever started us left open for every program we start, standard ones apart."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.add(int(name))
        except OSError:
            continue  # closed since: the listing's own descriptor, or another thread's
    return found


def signal_process(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def reap(pid: int) -> int | None:
    """Collect an ended process if it was handed to us as a child; its wait status, or None when that was another's task."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if found else None


class ExitWatch:
    """Calls back on the event loop once a process has ended. Holds a pidfd, so a reused number cannot fool it."""

    def __init__(self, pid: int, on_exit: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.pidfd_open(pid)
        self._loop.add_reader(self._descriptor, self._ended)

    def _ended(self) -> None:
        self.close()
        self._on_exit()

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
