"""Which user a machine's QEMU becomes: one of its own, so that a guest that breaks out of QEMU meets nobody's files.

QEMU starts as root to open its tap, its disks and /dev/kvm, and then becomes a user that exists nowhere else: a number
derived from the workload's uid, far above those that hosts and container engines hand out.
"""

from __future__ import annotations

import functools
import os
import zlib
from pathlib import Path

_FIRST = 0x70000000
_COUNT = 0x01000000


@functools.cache
def can_change() -> bool:
    """Whether this is the host's root: in a user namespace such a number means nobody, and changing to it fails."""
    if os.geteuid() != 0:
        return False
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def unprivileged(uid: str) -> int:
    """The user and group number of a workload's QEMU; 0 where it must keep the plane's own."""
    return _FIRST + zlib.crc32(uid.encode()) % _COUNT if can_change() else 0
