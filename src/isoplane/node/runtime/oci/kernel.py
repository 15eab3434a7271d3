"""The few system calls that Python 3.11 does not offer: namespaces, inotify, lock queries.

Thin wrappers that raise OSError with what was attempted.  When to call them is decided elsewhere.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNS, CLONE_NEWIPC = 0x0002_0000, 0x0800_0000
IN_MOVED_TO, IN_CREATE, IN_CLOSE_WRITE = 0x80, 0x100, 0x8
_FLOCK = "hhqqi4x"

_LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread."""
    _check(_LIBC.unshare(flags), "new namespace")


def setns(fd: int, flags: int) -> None:
    """setns(2), for the calling thread."""
    _check(_LIBC.setns(fd, flags), "enter namespace")


def lock_is_held(path: Path) -> bool:
    """Whether some process holds an open-file-description lock on a file. Asks without locking."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return int(struct.unpack(_FLOCK, answer)[0]) != fcntl.F_UNLCK
    finally:
        os.close(fd)


def lock(path: Path) -> int | None:
    """Take an open-file-description lock, or None when it is held. Children that inherit the descriptor hold it too."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return fd


def inotify(directory: Path, mask: int) -> int:
    """A descriptor that becomes readable when something happens in a directory."""
    fd = _check(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
    try:
        _check(_LIBC.inotify_add_watch(fd, os.fsencode(directory), mask), f"watch {directory}")
    except OSError:
        os.close(fd)
        raise
    return fd


def inotify_names(fd: int) -> Iterator[str]:
    """The names in the events that are waiting on an inotify descriptor."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return
    offset = 0
    while offset < len(data):
        length = struct.unpack_from("iIII", data, offset)[3]
        yield data[offset + 16 : offset + 16 + length].rstrip(b"\0").decode(errors="surrogateescape")
        offset += 16 + length
