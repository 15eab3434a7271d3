"""Which user a machine's QEMU becomes: one of its own, so that a guest that breaks out of QEMU meets nobody's files.

QEMU starts as root to open its disks and /dev/kvm, and then becomes a user that exists nowhere else: a number far above
those that hosts and container engines hand out.  Two machines of one host never have the same, whoever's planes they are:
each number taken is a file below /run that names the machine's directory, and is free again once that is gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

_FIRST = 0x70000000
_COUNT = 0x01000000
TAKEN = Path("/run/isoplane-users")


@functools.cache
def can_change() -> bool:
    """Whether this is the host's root: in a user namespace such a number means nobody, and changing to it fails."""
    if os.geteuid() != 0:
        return False
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def claim(machine: Path, taken: Path = TAKEN) -> int:
    """The user and group number of the QEMU of the machine in this directory: the one it has, or a free one. Raises OSError."""
    taken.mkdir(mode=0o755, parents=True, exist_ok=True)
    owner = str(machine.absolute())
    first = zlib.crc32(owner.encode())
    with _locked(taken):
        for step in range(_COUNT):
            number = _FIRST + (first + step) % _COUNT
            entry = taken / str(number)
            holder = entry.read_text() if entry.exists() else ""
            if holder != owner and holder and Path(holder).exists():
                continue
            entry.write_text(owner)
            return number
    raise OSError(errno.EUSERS, os.strerror(errno.EUSERS), str(taken))


def release(machine: Path, taken: Path = TAKEN) -> None:
    """Give back what the machine in this directory had, if anything."""
    owner = str(machine.absolute())
    if not taken.exists():
        return
    with _locked(taken):
        for entry in taken.iterdir():
            if entry.read_text() == owner:
                entry.unlink()


def sweep(taken: Path = TAKEN) -> None:
    """Forget the numbers of machines whose directories are gone: their planes went without giving them back."""
    if not taken.exists():
        return
    with _locked(taken):
        for entry in taken.iterdir():
            if not Path(entry.read_text()).exists():
                entry.unlink()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
