"""Persistent tap devices: made here, opened for the machine that uses them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from isoplane.node.network.netlink import Netlink

TUNSETIFF, TUNSETPERSIST = 0x400454CA, 0x400454CB
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def create(name: str) -> None:
    """Make the tap or keep the one that is there. OSError when /dev/net/tun cannot be used, EBUSY while it is open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, _request(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(descriptor, TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def attach(name: str) -> int:
    """A descriptor through which the tap's frames pass, for a process to inherit. OSError, EBUSY while it is open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, _request(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def busy(name: str) -> bool:
    """Whether a process has the tap open. A name that is free, or no tap at all, is not busy."""
    with Netlink() as host:
        if not host.index(name):
            return False
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, _request(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except OSError as error:
        return error.errno == errno.EBUSY
    finally:
        os.close(descriptor)
    return False


def _request(name: str, flags: int) -> bytes:
    return struct.pack("16sH22x", name.encode(), flags)
