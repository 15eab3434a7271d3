"""The kernel's netfilter over netlink: connections, and the counter that every change of any nftables rule turns.

Blocking; called from worker threads.  Source: linux/netfilter/nfnetlink_conntrack.h, nf_tables.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from isoplane.node.network.engines.protocol import Connection
from isoplane.node.network.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    attributes,
    message,
    messages,
)

NETLINK_NETFILTER = 12
CT_GET, CT_DELETE, NFT_GETGEN = (1 << 8) | 1, (1 << 8) | 2, (10 << 8) | 16
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE, _NESTED = 1, 2, 18, 0x8000
_TUPLE_IP, _TUPLE_PROTO, _GEN_ID = 1, 2, 1
_PORTED = {6: "TCP", 17: "UDP", 132: "SCTP"}


@dataclass(frozen=True, slots=True)
class _Key:
    """What the kernel finds a connection by."""

    family: int
    original: bytes
    zone: bytes


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    made.bind((0, 0))
    return made


def _message(kind: int, flags: int, family: int, body: bytes) -> bytes:
    return message(kind, flags, struct.pack("!BBH", family, 0, 0) + body)


def _answers(from_: socket.socket) -> Iterator[tuple[int, bytes]]:
    return ((kind, body) for kind, _, body in messages(from_.recv(1 << 18)))


def generation() -> int:
    """Turned by every committed change of any nftables rule in this network namespace."""
    with _socket() as kernel:
        kernel.send(_message(NFT_GETGEN, NLM_F_REQUEST, socket.AF_UNSPEC, b""))
        for kind, payload in _answers(kernel):
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                raise OSError(code, f"nf_tables: {os.strerror(code)}")
            return int(struct.unpack("!I", attributes(payload[4:])[_GEN_ID])[0])
    raise OSError(errno.EIO, "nf_tables did not answer")


def connections(addresses: Set[str]) -> list[Connection]:
    """The kernel's tracked connections that have an end among ``addresses``."""
    packed = {socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in addresses}
    found: list[Connection] = []
    with _socket() as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            if not any(len(one) == (4 if family == socket.AF_INET else 16) for one in packed):
                continue
            kernel.send(_message(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, family, b""))
            running = True
            while running:
                for kind, payload in _answers(kernel):
                    if kind in (NLMSG_ERROR, NLMSG_DONE):
                        running = False
                        break
                    connection = _connection(payload, family, packed)
                    if connection is not None:
                        found.append(connection)
    return found


def _connection(payload: bytes, family: int, wanted: Set[bytes]) -> Connection | None:
    parts = attributes(payload[4:])
    if _TUPLE_ORIG not in parts or _TUPLE_REPLY not in parts:
        return None
    size = 4 if family == socket.AF_INET else 16
    # Both tuples begin with their addresses: two headers, the source, a header, the destination (ctnetlink_dump_tuples_ip).
    if parts[_TUPLE_ORIG][8 : 8 + size] not in wanted and parts[_TUPLE_REPLY][8 : 8 + size] not in wanted:
        return None
    source, _, protocol, source_port, _ = _tuple(parts[_TUPLE_ORIG])
    # After a translation of the destination, the reply's source is where packets really go.
    destination, _, _, destination_port, _ = _tuple(parts[_TUPLE_REPLY])
    ported = protocol in _PORTED
    return Connection(
        _PORTED.get(protocol, str(protocol)),
        socket.inet_ntop(family, source),
        source_port if ported else 0,
        socket.inet_ntop(family, destination),
        destination_port if ported else 0,
        struct.unpack("!H", parts[_ZONE])[0] if _ZONE in parts else 0,
        _Key(family, parts[_TUPLE_ORIG], parts.get(_ZONE, b"")),
    )


def _tuple(data: bytes) -> tuple[bytes, bytes, int, int, int]:
    """(source, destination, protocol, source port, destination port) of one direction."""
    parts = attributes(data)
    ends, proto = attributes(parts[_TUPLE_IP]), attributes(parts[_TUPLE_PROTO])
    source, destination = (ends[1], ends[2]) if 1 in ends else (ends[3], ends[4])
    low, high = (struct.unpack("!H", proto[key])[0] if key in proto else 0 for key in (2, 3))
    return source, destination, proto[1][0], low, high


def cut(connections: Iterable[Connection]) -> None:
    """Forget connections that ``connections`` told. Those that are gone by now are fine."""
    with _socket() as kernel:
        for connection in connections:
            key = connection.handle
            assert isinstance(key, _Key)
            body = attribute(_TUPLE_ORIG | _NESTED, key.original) + (attribute(_ZONE, key.zone) if key.zone else b"")
            kernel.send(_message(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, key.family, body))
            for _, payload in _answers(kernel):
                code = -struct.unpack_from("=i", payload)[0]
                if code not in (0, errno.ENOENT):
                    raise OSError(code, f"cutting {connection}: {os.strerror(code)}")
