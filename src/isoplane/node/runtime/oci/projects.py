"""Limits that the file system keeps: project quotas, where the data directory's file system has them switched on.

A container that may write so much to its own file system, and an emptyDir with a sizeLimit, are projects of their own: beyond
the limit and a margin writes fail, at once.  What is measured and evicted beyond the limit (``workload.eviction``) holds
everywhere, and here too: the margin leaves room for being evicted as by a kubelet, and a process may move its own files into
another project.  XFS has project quotas with the mount option ``prjquota``, ext4 with the feature ``project`` besides.
Source: quotactl(2), ioctl_xfs_fsgetxattr(2), linux/quota.h, linux/dqblk_xfs.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

FIRST, COUNT = 1 << 30, 1 << 29
"""Our numbers: far from those that people write into /etc/projid and other engines hand out."""
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_ATTRIBUTES = struct.Struct("5I8x")
_INHERIT = 0x200
_QUOTACTL_FD = 443
_PROJECT = 2
_GET, _SET, _STATE = 0x800007, 0x800008, 0x5805
_LIMITS = struct.Struct("8QI4x")
_BLOCK_LIMITS = 1
_STATE_SIZE = 128
_ENFORCED = 1 << 5
_LIBC = ctypes.CDLL(None, use_errno=True)


def margin(size: int) -> int:
    """What may be written beyond a limit until whoever did so is evicted."""
    return size // 8 + (1 << 20)


class Projects:
    """Project quotas of the file system that ``directory`` lies on; without them, :meth:`limit` changes nothing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self.missing = _missing(directory)
        """Why there are none; '' where there are."""
        if self.missing:
            log.info("what containers write is measured, and not bounded by the file system: %s", self.missing)

    def limit(self, directories: Iterable[Path], size: int) -> None:
        """Let no more be written below empty directories, together, than ``size`` bytes and a margin. 0: no limit.

        Those that have a limit of ours keep it.  Raises OSError.
        """
        paths = list(directories)
        if self.missing or not size or all(self.number_of(path) for path in paths):
            return
        with self._lock, _opened(paths[0]) as first:
            number = _free(first, str(paths[0]))
            blocks = (size + margin(size)) >> 10
            _quota(first, _SET, number, _LIMITS.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS))
            for path in paths:
                with _opened(path) as fd:
                    _assign(fd, number)

    def release(self, directories: Iterable[Path]) -> None:
        """Forget the limits of directories that are about to be removed."""
        if self.missing:
            return
        for path in directories:
            if number := self.number_of(path):
                with contextlib.suppress(OSError), _opened(path) as fd:
                    _quota(fd, _SET, number, _LIMITS.pack(0, 0, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS))

    def number_of(self, path: Path) -> int:
        """The project of ours that a directory belongs to; 0 for none."""
        try:
            with _opened(path) as fd:
                number = int(_attributes(fd)[3])
        except OSError:
            return 0
        return number if FIRST <= number < FIRST + COUNT else 0

    def limit_of(self, number: int) -> int:
        """Bytes that a project may have; 0 for no limit."""
        with _opened(self._directory) as fd:
            return int(_record(fd, number)[0]) << 10


def _missing(directory: Path) -> str:
    try:
        with _opened(directory) as fd:
            _attributes(fd)
            state = _quota(fd, _STATE, 0, bytes(_STATE_SIZE))
    except OSError as error:
        return f"{directory} is on a file system without project quotas ({error.strerror})"
    (flags,) = struct.unpack_from("H", state, 2)
    if not flags & _ENFORCED:
        return f"the file system of {directory} is mounted without prjquota"
    return ""


def _free(fd: int, name: str) -> int:
    """A number of ours that no file has."""
    first = zlib.crc32(name.encode())
    for step in range(COUNT):
        number = FIRST + (first + step) % COUNT
        found = _record(fd, number)
        if not found[2] and not found[5]:
            return number
    raise OSError(errno.EUSERS, os.strerror(errno.EUSERS))


def _record(fd: int, number: int) -> tuple[int, ...]:
    """A project's limit in KiB first, its bytes third, its files sixth. XFS has none of what has no files."""
    try:
        return _LIMITS.unpack(_quota(fd, _GET, number, bytes(_LIMITS.size)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return _LIMITS.unpack(bytes(_LIMITS.size))
        raise


def _attributes(fd: int) -> tuple[int, ...]:
    found = bytearray(_ATTRIBUTES.size)
    fcntl.ioctl(fd, _GET_ATTRIBUTES, found)
    return _ATTRIBUTES.unpack(found)


def _assign(fd: int, number: int) -> None:
    flags, extent, extents, _, copied = _attributes(fd)
    fcntl.ioctl(fd, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, number, copied))


def _quota(fd: int, command: int, number: int, content: bytes) -> bytes:
    """quotactl_fd(2) on the projects of the file system of ``fd``."""
    buffer = ctypes.create_string_buffer(content, len(content))
    kind = ctypes.c_uint((command << 8 | _PROJECT) & 0xFFFFFFFF)
    if _LIBC.syscall(_QUOTACTL_FD, fd, kind, ctypes.c_uint(number), buffer) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"project quota: {os.strerror(code)}")
    return buffer.raw


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
