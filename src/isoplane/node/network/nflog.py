"""The kernel's netlink log: the packets that rules log before they drop them.

A group has one reader in a network namespace.  What a packet means for policy is the caller's question.
Source: linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from isoplane.node.network.netlink import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    attribute,
    attributes,
    message,
    messages,
)
from isoplane.node.network.packet import SNAPPED, Seen, seen

NETLINK_NETFILTER = 12
_PACKET, _CONFIG = 4 << 8, (4 << 8) | 1
_COMMAND, _MODE, _BIND, _COPY_PACKET = 1, 2, 1, 2
_PAYLOAD = 9


class LogGroup:
    """Reads one group without blocking; close it. Raises OSError when the group is taken or the right to read it lacks."""

    def __init__(self, group: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._ask(group, attribute(_COMMAND, bytes([_BIND])), f"netlink log group {group}")
            copy = struct.pack("!IBB", SNAPPED, _COPY_PACKET, 0)
            self._ask(group, attribute(_MODE, copy), f"the copy mode of netlink log group {group}")
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[Seen]:
        """What was logged since; nothing when there is nothing. What came too fast for the buffer is lost."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return []
            raise
        packets = (packet_of(payload) for kind, _, payload in messages(data) if kind == _PACKET)
        return [packet for packet in packets if packet is not None]

    def _ask(self, group: int, body: bytes, what: str) -> None:
        payload = struct.pack("!BBH", socket.AF_UNSPEC, 0, group) + body
        self._socket.send(message(_CONFIG, NLM_F_REQUEST | NLM_F_ACK, payload))
        while True:
            for kind, _, answer in messages(self._socket.recv(1 << 16)):
                if kind != NLMSG_ERROR:
                    continue  # A packet that was logged between the two questions.
                code = -struct.unpack_from("=i", answer)[0]
                if code:
                    raise OSError(code, f"{what}: {os.strerror(code)}")
                return


def packet_of(logged: bytes) -> Seen | None:
    """The packet of one log message; None for what has no IP addresses or was cut too short."""
    found = attributes(logged[4:])
    return seen(found.get(_PAYLOAD, b""))
