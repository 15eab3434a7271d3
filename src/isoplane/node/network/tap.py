"""Persistent tap devices: made here, opened by name by the machine that uses them."""

from __future__ import annotations

import fcntl
import os
import struct

TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def create(name: str) -> None:
    """Make the tap or keep the one that is there. OSError when /dev/net/tun cannot be used, EBUSY while a machine has it open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(descriptor, TUNSETIFF, request)
        fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)
