"""Mounts: the system calls, and file systems in memory for what must not reach a disk.

Thin wrappers that raise OSError with what was attempted.  What is mounted where is decided by whoever calls; network
namespaces, which are kept by mounts too, are the concern of ``network.netns``.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_SLAVE = 1 << 12, 1 << 14, 1 << 19
MNT_DETACH = 2
DATA_ONLY = MS_NOSUID | MS_NODEV | MS_NOEXEC

_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path | str, kind: str = "none", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode() or None)
    if _LIBC.mount(*arguments) < 0:
        number = ctypes.get_errno()
        what = f"mount {kind if kind != 'none' else source} on {target}"
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unmount(target: Path | str, flags: int = MNT_DETACH) -> None:
    """umount2(2); what is not mounted is left alone."""
    if _LIBC.umount2(os.fsencode(target), flags) < 0 and (number := ctypes.get_errno()) not in (
        errno.EINVAL,
        errno.ENOENT,
    ):
        raise OSError(number, f"unmount {target}: {os.strerror(number)}")


def in_memory(directory: Path, options: str, flags: int = DATA_ONLY) -> None:
    """Make ``directory`` a file system in memory, also not swapped out where the kernel (6.4) can promise that.

    One that is mounted there already stays as it is.  ``options`` are tmpfs's: its mode and its size.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.ismount(directory):
        return
    try:
        mount("isoplane", directory, "tmpfs", flags, f"{options},noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mount("isoplane", directory, "tmpfs", flags, options)


def leave_memory(directory: Path) -> None:
    """Give back what :func:`in_memory` made, and everything in it."""
    unmount(directory)
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise


def mounts_below(directory: Path, pid: int | str = "thread-self") -> list[str]:
    """Mount points at or below a directory as a process sees them, by default the caller; the innermost first."""
    prefix = str(directory)
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        if point == prefix or point.startswith(prefix + "/"):
            found.append(point)
    return found[::-1]
