"""What a copied packet says of itself: its ends, its protocol and its port. For the logs of denied packets.

Who copies it, and what it means for policy, is the callers' business.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

SNAPPED = 128
"""Bytes of each packet that are copied: enough for the addresses and ports behind a few extension headers."""
_PROTOCOLS = {6: "TCP", 17: "UDP", 132: "SCTP"}
_EXTENSIONS = (0, 43, 60, 135)
"""IPv6 headers that carry their own length before the next one: hop-by-hop, routing, destination, mobility."""
_FRAGMENT = 44


@dataclass(frozen=True, slots=True)
class Seen:
    """One packet. ``protocol``: TCP, UDP, SCTP, or OTHER; ``port``: the destination's, 0 where there is none."""

    source: str
    destination: str
    protocol: str
    port: int


def seen(data: bytes) -> Seen | None:
    """What the first bytes of an IP packet say; None for what is none, was cut too short, or is a later fragment."""
    try:
        return _seen(data)
    except (struct.error, IndexError, ValueError):
        return None


def _seen(data: bytes) -> Seen | None:
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
    return Seen(socket.inet_ntop(family, ends[0]), socket.inet_ntop(family, ends[1]), protocol, port)


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
