"""A machine's stand-in on a real tap, so that packets take a machine's way without booting one."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import threading
from pathlib import Path

from isoplane.node.network import netns
from isoplane.node.network.netlink import Netlink


class TapGuest:
    """A machine's stand-in: it opens the tap as QEMU does and carries its frames to an interface in a namespace of its own."""

    def __init__(self, tap: str, mac: str, tag: str) -> None:
        self.path = f"/run/netns/{tag}-{tap}"
        self._outer = _open_tap(tap)

        def inside(_: int) -> int:
            descriptor = _open_tap("eth0")
            with Netlink() as guest:
                guest.set_link(1, up=True).set_link(guest.index("eth0"), mac=mac, up=True).commit()
            return descriptor

        netns.prepare(Path("/run/netns"))
        self._inner = netns.create(Path(self.path), inside)
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        other = {self._outer: self._inner, self._inner: self._outer}
        while True:
            ready, _, _ = select.select([self._outer, self._inner, self._stop], [], [])
            if self._stop in ready:
                return
            for one in ready:
                try:
                    os.write(other[one], os.read(one, 65536))
                except OSError as error:
                    if error.errno != errno.EIO:  # an interface that is down: this frame is lost, as on a wire
                        return

    @property
    def plugged(self) -> bool:
        """Whether frames are carried: until it is closed, or somebody removes the tap."""
        return self._thread.is_alive()

    def use(self, address: str, prefix: int, gateway: str, address6: str = "", gateway6: str = "") -> None:
        """Configure by hand. An IPv6 address is alone on its link."""

        def inside() -> None:
            with Netlink() as guest:
                index = guest.index("eth0")
                guest.address(index, address, prefix).route("0.0.0.0/0", index, gateway=gateway)
                if address6:
                    guest.address(index, address6, 128).route("::/0", index, gateway=gateway6)
                guest.commit()

        netns.enter(Path(self.path), inside)

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for descriptor in (self._outer, self._inner, self._stop):
            os.close(descriptor)
        netns.delete(Path(self.path))


def _open_tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000))
    return descriptor
