"""The few system calls that Python 3.11 does not offer: namespaces, inotify, lock queries.

Thin wrappers that raise OSError with what was attempted.  When to call them is decided elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from isoplane import filelock

CLONE_NEWNS, CLONE_NEWIPC = 0x0002_0000, 0x0800_0000
IN_MOVED_TO, IN_CREATE, IN_CLOSE_WRITE = 0x80, 0x100, 0x8

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


def lock(path: Path) -> int | None:
    """Open and lock a file, or None when it is held."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        taken = filelock.take(fd)
    except OSError:
        os.close(fd)
        raise
    if not taken:
        os.close(fd)
        return None
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
