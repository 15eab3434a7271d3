"""SCTP without the kernel's: an INIT and its INIT ACK over raw sockets, checksums and all, as connection tracking wants them.

Hosts need no SCTP, neither to ask nor to answer, and nothing beyond the first two packets: policies judge those.
Source: RFC 9260, sections 3 and 5.1.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from isoplane.node.network.ipv6 import missing
from isoplane.node.network.verify.probes import family_of, inside

PROTOCOL = 132
_HEADER = struct.Struct("!HHII")
_INIT, _INIT_ACK = 1, 2
_COOKIE = 7


def _table() -> list[int]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


_CRC32C = _table()


def checksum(packet: bytes) -> bytes:
    """CRC32c of a packet whose checksum field is zero, as it is written into that field."""
    value = 0xFFFFFFFF
    for byte in packet:
        value = (value >> 8) ^ _CRC32C[(value ^ byte) & 0xFF]
    return struct.pack("<I", value ^ 0xFFFFFFFF)


def _packet(source: int, destination: int, tag: int, kind: int, own_tag: int, parameters: bytes = b"") -> bytes:
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20 + len(parameters), own_tag, 65536, 1, 1, own_tag) + parameters
    bare = _HEADER.pack(source, destination, tag, 0) + chunk
    return bare[:8] + checksum(bare) + bare[12:]


def init(source: int, destination: int, tag: int) -> bytes:
    """The packet that begins an association from port ``source``; ``tag`` (not 0) is what the answer must carry."""
    return _packet(source, destination, 0, _INIT, tag)


def answer(packet: bytes, ports: Iterable[int]) -> bytes | None:
    """The INIT ACK to an INIT for one of the ``ports``; None for every other packet (without its IP header)."""
    if len(packet) < _HEADER.size + 20 or packet[_HEADER.size] != _INIT:
        return None
    source, destination, _, _ = _HEADER.unpack_from(packet)
    if destination not in ports:
        return None
    (tag,) = struct.unpack_from("!I", packet, _HEADER.size + 4)
    cookie = struct.pack("!HHI", _COOKIE, 8, tag)
    return _packet(destination, source, tag, _INIT_ACK, tag ^ 0x5A5A5A5A or 1, cookie)


def answers(packet: bytes, source: int, destination: int, tag: int) -> bool:
    """Whether it is the INIT ACK to ``init(source, destination, tag)``."""
    if len(packet) < _HEADER.size + 20 or packet[_HEADER.size] != _INIT_ACK:
        return False
    return _HEADER.unpack_from(packet)[:3] == (destination, source, tag)


def sctp_socket(path: str, towards: str = "") -> socket.socket:
    """A raw socket for SCTP inside the namespace at ``path`` ('' is the host's), of the family of the address ``towards``.

    It reads packets of IPv4 with their IP header.
    """
    return inside(path, lambda: socket.socket(family_of(towards), socket.SOCK_RAW, PROTOCOL))


def _received(one: socket.socket) -> tuple[bytes, str]:
    """A packet without its IP header, and who sent it."""
    data, sender = one.recvfrom(2048)
    return data[(data[0] & 15) * 4 :] if one.family == socket.AF_INET else data, sender[0]


class SctpServer:
    """Answers INITs for some ports inside a namespace, in both families where the kernel has them."""

    def __init__(self, path: str, ports: Iterable[int]) -> None:
        self._ports = frozenset(ports)
        self._sockets = [sctp_socket(path), *([] if missing() else [sctp_socket(path, "::")])]
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            listening: list[socket.socket | int] = [*self._sockets, self._stop]
            ready, _, _ = select.select(listening, [], [])
            if self._stop in ready:
                return
            for one in self._sockets:
                if one in ready:
                    self._answer(one)

    def _answer(self, one: socket.socket) -> None:
        data, sender = _received(one)
        reply = answer(data, self._ports)
        if reply is not None:
            with suppress(OSError):  # No way back: the asker will tell.
                one.sendto(reply, (sender, 0))

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for one in self._sockets:
            one.close()
        os.close(self._stop)


def sctp_reaches(source: str, address: str, port: int, timeout: float = 0.5, own_port: int = 0) -> bool:
    """Whether an INIT from the namespace ``source`` is answered by an INIT ACK. ``own_port`` 0: one by chance."""
    own = own_port or 32768 + int.from_bytes(os.urandom(2), "big") % 28000
    tag = int.from_bytes(os.urandom(4), "big") | 1
    with sctp_socket(source, address) as client:
        deadline = time.monotonic() + timeout
        try:
            client.sendto(init(own, port, tag), (address, 0))
            while (left := deadline - time.monotonic()) > 0:
                client.settimeout(left)
                data, sender = _received(client)
                if sender == address and answers(data, own, port, tag):
                    return True
        except OSError:
            return False
    return False
