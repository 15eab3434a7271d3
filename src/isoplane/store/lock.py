"""The exclusive claim on a data directory: a locked file that names the process which holds it."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from isoplane.store.errors import StoreLocked, StoreUnwritable


class DirectoryLock:
    """Held from construction until :meth:`release` or the end of the process, however it ends."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnwritable(
                f"cannot write in data directory {directory}: {error.strerror}; choose another with --data"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = self._holder()
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

    def _holder(self) -> int | None:
        text = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else None

    def release(self) -> None:
        """Give the directory up. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
