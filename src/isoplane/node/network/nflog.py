"""The kernel's netlink log: the packets that rules log before they drop them.

A group has one reader in a network namespace.  What a packet means for policy is the caller's question.
Source: linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NETLINK_NETFILTER = 12
_PACKET, _CONFIG = 4 << 8, (4 << 8) | 1
_REQUEST, _ACK, _ERROR = 1, 4, 2
_COMMAND, _MODE, _BIND, _COPY_PACKET = 1, 2, 1, 2
_PAYLOAD, _PREFIX = 9, 10
_HEADER = struct.Struct("=LHHLL")
_SNAPPED = 128
"""Bytes of each packet that are copied: enough for the addresses and ports behind a few extension headers."""
_TCP, _UDP, _SCTP = 6, 17, 132
_PROTOCOLS = {_TCP: "TCP", _UDP: "UDP", _SCTP: "SCTP"}
_EXTENSIONS = (0, 43, 60, 135)
"""IPv6 headers that carry their own length before the next one: hop-by-hop, routing, destination, mobility."""
_FRAGMENT = 44


@dataclass(frozen=True, slots=True)
class Logged:
    """One packet. ``protocol``: TCP, UDP, SCTP, or OTHER; ``port``: the destination's, 0 where there is none."""

    prefix: str
    """What the rule says of itself."""
    source: str
    destination: str
    protocol: str
    port: int


class LogGroup:
    """Reads one group without blocking; close it. Raises OSError when the group is taken or the right to read it lacks."""

    def __init__(self, group: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._ask(group, _attribute(_COMMAND, bytes([_BIND])), f"netlink log group {group}")
            copy = struct.pack("!IBB", _SNAPPED, _COPY_PACKET, 0)
            self._ask(group, _attribute(_MODE, copy), f"the copy mode of netlink log group {group}")
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[Logged]:
        """What was logged since; nothing when there is nothing. What came too fast for the buffer is lost."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return []
            raise
        packets = (packet_of(payload) for kind, payload in _messages(data) if kind == _PACKET)
        return [packet for packet in packets if packet is not None]

    def _ask(self, group: int, body: bytes, what: str) -> None:
        payload = struct.pack("!BBH", socket.AF_UNSPEC, 0, group) + body
        self._socket.send(_HEADER.pack(_HEADER.size + len(payload), _CONFIG, _REQUEST | _ACK, 1, 0) + payload)
        while True:
            for kind, answer in _messages(self._socket.recv(1 << 16)):
                if kind != _ERROR:
                    continue  # A packet that was logged between the two questions.
                code = -struct.unpack_from("=i", answer)[0]
                if code:
                    raise OSError(code, f"{what}: {os.strerror(code)}")
                return


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def packet_of(message: bytes) -> Logged | None:
    """The packet of one log message; None for what has no IP addresses or was cut too short."""
    found, at = {}, 4
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = message[at + 4 : at + length]
        at += (length + 3) & ~3
    prefix = found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
    try:
        return _ip(prefix, found.get(_PAYLOAD, b""))
    except (struct.error, IndexError, ValueError):
        return None


def _ip(prefix: str, data: bytes) -> Logged | None:
    if not data:
        return None
    if data[0] >> 4 == 4:
        family, ends, number = socket.AF_INET, (data[12:16], data[16:20]), data[9]
        at, later = (data[0] & 15) * 4, struct.unpack_from("!H", data, 6)[0] & 0x1FFF
    elif data[0] >> 4 == 6:
        family, ends = socket.AF_INET6, (data[8:24], data[24:40])
        number, at, later = _transport(data)
    else:
        return None
    # A later fragment has no ports: nothing can be said of it.
    if later:
        return None
    protocol = _PROTOCOLS.get(number, "OTHER")
    port = 0 if protocol == "OTHER" else struct.unpack_from("!H", data, at + 2)[0]
    return Logged(prefix, socket.inet_ntop(family, ends[0]), socket.inet_ntop(family, ends[1]), protocol, port)


def _transport(data: bytes) -> tuple[int, int, int]:
    """(protocol, where its header begins, fragment offset) of an IPv6 packet."""
    number, at, later = data[6], 40, 0
    while number in _EXTENSIONS or number == _FRAGMENT:
        if number == _FRAGMENT:
            later = struct.unpack_from("!H", data, at + 2)[0] >> 3
            number, at = data[at], at + 8
        else:
            number, at = data[at], at + (data[at + 1] + 1) * 8
    return number, at, later
