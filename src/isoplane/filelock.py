"""Open-file-description locks: held as long as a descriptor is open, and anybody may ask who is in without going in.

Asking takes no lock, not even for a moment, so that whoever looks keeps nobody out.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

_FLOCK = "hhqqi4x"


def take(fd: int) -> bool:
    """Lock a file that is open for writing; False when another holds it. Children that inherit the descriptor hold it too."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file())
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock on a file. Raises OSError when it cannot be read; a missing one is held by nobody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return int(struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _whole_file()))[0]) != fcntl.F_UNLCK
    finally:
        os.close(fd)


def _whole_file() -> bytes:
    return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
