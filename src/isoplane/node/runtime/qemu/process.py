"""A process that is not our child: is it ours, when did it start, tell us when it ends, end it.

QEMU outlives the plane, so a machine is known by its process number, its start time and its own command line, which names
the machine's pid file: numbers are reused, that path is not.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


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
