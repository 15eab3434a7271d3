"""The exclusive claim on a data directory: it is ours alone to read, and a locked file names the process which holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from isoplane import filelock
from isoplane.store.errors import StoreLocked, StoreUnwritable

_OURS = ("lock", "isoplane.db")
"""A directory with one of these was a data directory before."""

_KNOWN = frozenset((
    *_OURS, "reserve", "isoplane.db-wal", "isoplane.db-shm", "isoplane.db-journal", "isoplane.db.copying",
    "isoplane.db.restored",
    "keys", "keys.new", "pki", "kubeconfig", "control.sock", "images", "cache", "oci", "qemu", "network", "simulated",
    "lost+found",
))  # fmt: skip
_KEPT = "replaced-"
_MOST_TOLD = 5


def refuse_foreign(directory: Path) -> None:
    """Raises StoreUnwritable when a directory is to become a data directory and holds files of somebody else.

    One that already is a data directory, and closed to others, may hold what its owner likes: nothing changes for that.
    """
    try:
        mode = stat.S_IMODE(directory.stat().st_mode)
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StoreUnwritable(f"cannot read data directory {directory}: {error.strerror}") from error
    foreign = sorted(name for name in names if name not in _KNOWN and not name.startswith(_KEPT))
    if not foreign or (not mode & 0o077 and any(name in names for name in _OURS)):
        return
    more = f" and {len(foreign) - _MOST_TOLD} more" if len(foreign) > _MOST_TOLD else ""
    raise StoreUnwritable(
        f"{directory} holds files that are not isoplane's ({', '.join(foreign[:_MOST_TOLD])}{more}), and a data directory is "
        "closed to everybody else (mode 0700); nothing was changed. Choose another with --data, or move them away"
    )


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a data directory; ``pid`` is 0 where a full disk kept it from saying so."""

    pid: int


def holder(directory: Path) -> Holder | None:
    """Who has a data directory; None when nobody does. Asks without locking. Raises OSError."""
    path = directory / "lock"
    if not filelock.is_held(path):
        return None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Holder(_written(fd) or 0)
    finally:
        os.close(fd)


def _written(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


class DirectoryLock:
    """Held from construction until :meth:`release` or the end of the process, however it ends."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        refuse_foreign(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if directory.stat().st_mode & 0o077:
                directory.chmod(0o700)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnwritable(
                f"cannot write in data directory {directory}: {error.strerror}; choose another with --data"
            ) from error
        try:
            # Earlier versions know only this one; whoever asks who is in, asks for the other.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            filelock.take(self._fd)
        except OSError as error:
            pid = _written(self._fd)
            os.close(self._fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StoreUnwritable(f"cannot lock {self._path}: {error.strerror}") from error
            who = f"process {pid}" if pid else "another process"
            raise StoreLocked(
                f"data directory {directory} is in use by {who}; stop it first, or choose another with --data", pid
            ) from error
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            # The lock is what counts; a full disk only costs the next instance the pid in its message.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                os.close(self._fd)
                raise StoreUnwritable(f"cannot write {self._path}: {error.strerror}") from error

    def release(self) -> None:
        """Give the directory up. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
