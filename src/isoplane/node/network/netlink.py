"""Links, addresses, routes and neighbours by hand-packed rtnetlink messages: a few microseconds each, and no process to start.

Requests are sent as one batch and acknowledged one by one.  A ``Netlink`` socket belongs to the network namespace of the
thread that opened it, for ever.  Blocking; the fabric calls it from its worker threads.  Source: rtnetlink(7), linux/if_link.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, RTM_NEWNEIGH = 20, 24, 25, 26, 28
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x300, 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFF_UP = 1
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST, RTN_UNREACHABLE = 254, 4, 1, 7
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_IFALIAS = 1, 3, 4, 18, 28, 20
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_F_NOPREFIXROUTE, IFA_F_NODAD = 1, 2, 4, 8, 0x200, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80

_HEADER = struct.Struct("=LHHLL")
_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=BBBBBBBBI")


class NetlinkError(OSError):
    """The kernel refused a request. ``str()`` says which."""


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes; every netlink family packs them so. Source: netlink(7)."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def message(kind: int, flags: int, body: bytes, sequence: int = 1) -> bytes:
    """One request, header included."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, sequence, body) of every message in what one read gave."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, sequence, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _family(value: str) -> socket.AddressFamily:
    """Of an address or a CIDR."""
    return socket.AF_INET6 if ":" in value else socket.AF_INET


def _packed(value: str) -> bytes:
    return socket.inet_pton(_family(value), value)


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def attributes(data: bytes) -> dict[int, bytes]:
    """Type → payload, without the flags of the type; what is cut short is left out."""
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


@dataclass(frozen=True, slots=True)
class Link:
    """One interface, as the kernel tells it."""

    index: int
    name: str
    up: bool
    alias: str
    kind: str
    mac: str


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the main table. ``destination`` is a CIDR ('0.0.0.0/0' or '::/0' for the default)."""

    destination: str
    interface: int


class Netlink:
    """One rtnetlink socket and the batch that waits to be sent through it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        self._batch: list[tuple[str, bytes, tuple[int, ...]]] = []
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def link(self, name: str) -> Link | None:
        """The interface of this name, in the socket's own namespace."""
        found = list(self._links(_LINK.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name), 0))
        return found[0] if found else None

    def index(self, name: str) -> int:
        """The interface's index; 0 when there is none."""
        link = self.link(name)
        return link.index if link else 0

    # --- requests: each joins the batch ---

    def veth(self, host: str, host_mac: str, peer: str, peer_mac: str, netns: int, mtu: int, alias: str) -> Netlink:
        """A pair whose other end, index 2, starts its life in the namespace behind the descriptor ``netns``."""
        inner = _LINK.pack(0, 0, 2, 0, 0) + _text(IFLA_IFNAME, peer) + _number(IFLA_MTU, mtu)
        inner += attribute(IFLA_ADDRESS, _mac(peer_mac)) + _number(IFLA_NET_NS_FD, netns)
        info = _text(IFLA_INFO_KIND, "veth") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, inner))
        body = _LINK.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, host) + _number(IFLA_MTU, mtu)
        body += attribute(IFLA_ADDRESS, _mac(host_mac)) + attribute(IFLA_LINKINFO, info)
        self._add(f"veth {host} ({alias})", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)
        return self

    def bridge(self, name: str) -> Netlink:
        """A bridge of the kernel's own. Fine when a link of this name exists."""
        body = _LINK.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name)
        body += attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "bridge"))
        self._add(f"bridge {name}", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, errno.EEXIST)
        return self

    def set_link(
        self, index: int, *, up: bool | None = None, mac: str = "", mtu: int = 0, name: str = "", alias: str = ""
    ) -> Netlink:
        flags, change = (IFF_UP if up else 0, IFF_UP) if up is not None else (0, 0)
        body = _LINK.pack(0, 0, index, flags, change)
        body += attribute(IFLA_ADDRESS, _mac(mac)) if mac else b""
        body += _number(IFLA_MTU, mtu) if mtu else b""
        body += _text(IFLA_IFNAME, name) if name else b""
        body += attribute(IFLA_IFALIAS, alias.encode()[:255]) if alias else b""
        self._add(f"change of link {index} {name}", RTM_SETLINK, 0, body)
        return self

    def delete_link(self, name: str) -> Netlink:
        body = _LINK.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name)
        self._add(f"removal of {name}", RTM_DELLINK, 0, body, errno.ENODEV)
        return self

    def address(self, index: int, address: str, prefix_length: int, *, routed: bool = True) -> Netlink:
        """An address; with ``routed`` False the kernel adds no route for its network. IPv6: usable at once, unasked."""
        packed, family = _packed(address), _family(address)
        body = struct.pack("=BBBBi", family, prefix_length, 0, SCOPE_UNIVERSE, index)
        body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
        if family == socket.AF_INET and prefix_length < 31:
            mask = (1 << (32 - prefix_length)) - 1
            broadcast = struct.pack("!I", struct.unpack("!I", packed)[0] | mask)
            body += attribute(IFA_BROADCAST, broadcast)
        flags = (0 if routed else IFA_F_NOPREFIXROUTE) | (IFA_F_NODAD if family == socket.AF_INET6 else 0)
        body += _number(IFA_FLAGS, flags) if flags else b""
        self._add(f"address {address}/{prefix_length}", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, errno.EEXIST)
        return self

    def route(self, destination: str, index: int, *, gateway: str = "", source: str = "", metric: int = 0) -> Netlink:
        """A unicast route; ``index`` 0 makes it unreachable instead, for what nobody has."""
        network, _, length = destination.partition("/")
        kind = RTN_UNICAST if index else RTN_UNREACHABLE
        scope = SCOPE_LINK if index and not gateway else SCOPE_UNIVERSE
        body = _ROUTE.pack(_family(network), int(length), 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, kind, 0)
        body += attribute(RTA_DST, _packed(network)) if int(length) else b""
        body += _number(RTA_OIF, index) if index else b""
        body += attribute(RTA_GATEWAY, _packed(gateway)) if gateway else b""
        body += attribute(RTA_PREFSRC, _packed(source)) if source else b""
        body += _number(RTA_PRIORITY, metric) if metric else b""
        self._add(f"route {destination}", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)
        return self

    def delete_unreachable(self, destination: str, metric: int) -> Netlink:
        network, _, length = destination.partition("/")
        body = _ROUTE.pack(_family(network), int(length), 0, 0, RT_TABLE_MAIN, 0, 0, RTN_UNREACHABLE, 0)
        body += attribute(RTA_DST, _packed(network)) + _number(RTA_PRIORITY, metric)
        self._add(f"removal of route {destination}", RTM_DELROUTE, 0, body, errno.ESRCH)
        return self

    def neighbour(self, index: int, address: str, mac: str) -> Netlink:
        """A permanent neighbour: nobody is asked (ARP, discovery), and no answer can be forged."""
        body = struct.pack("=BxxxiHBB", _family(address), index, NUD_PERMANENT, 0, 0)
        body += attribute(NDA_DST, _packed(address)) + attribute(NDA_LLADDR, _mac(mac))
        self._add(f"neighbour {address}", RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)
        return self

    def _add(self, what: str, kind: int, flags: int, body: bytes, *tolerated: int) -> None:
        self._sequence += 1
        request = message(kind, NLM_F_REQUEST | NLM_F_ACK | flags, body, self._sequence)
        self._batch.append((what, request, tolerated))

    def commit(self) -> None:
        """Send the batch and wait for every answer. NetlinkError names the first request that was refused."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        first = self._sequence - len(batch) + 1
        self._socket.send(b"".join(request for _, request, _ in batch))
        failure: NetlinkError | None = None
        for kind, sequence, payload in self._answers(len(batch)):
            if kind != NLMSG_ERROR or sequence < first:
                continue
            code = -struct.unpack_from("=i", payload)[0]
            what, _, tolerated = batch[sequence - first]
            if code and code not in tolerated and failure is None:
                failure = NetlinkError(code, f"{what}: {os.strerror(code)}")
        if failure is not None:
            raise failure

    def _answers(self, expected: int) -> Iterator[tuple[int, int, bytes]]:
        while expected > 0:
            for answer in messages(self._socket.recv(1 << 18)):
                if answer[0] == NLMSG_ERROR:
                    expected -= 1
                yield answer

    # --- questions ---

    def _dump(self, kind: int, body: bytes, flags: int) -> Iterator[bytes]:
        self._sequence += 1
        self._socket.send(message(kind, NLM_F_REQUEST | flags, body, self._sequence))
        while True:
            for answer, sequence, payload in messages(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    return
                yield payload
                if not flags:
                    return

    def _links(self, body: bytes, flags: int) -> Iterator[Link]:
        for payload in self._dump(RTM_GETLINK, body, flags):
            _, _, index, state, _ = _LINK.unpack_from(payload)
            found = attributes(payload[_LINK.size :])
            info = attributes(found.get(IFLA_LINKINFO, b""))
            yield Link(
                index,
                found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(),
                bool(state & IFF_UP),
                found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
                info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
                found.get(IFLA_ADDRESS, b"").hex(":"),
            )

    def links(self) -> list[Link]:
        return list(self._links(_LINK.pack(0, 0, 0, 0, 0), NLM_F_DUMP))

    def routes(self, family: socket.AddressFamily = socket.AF_INET) -> list[Route]:
        """Routes of the main table."""
        found = []
        anything = bytes(4 if family == socket.AF_INET else 16)
        for payload in self._dump(RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), NLM_F_DUMP):
            _, length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(payload)
            parts = attributes(payload[_ROUTE.size :])
            if table != RT_TABLE_MAIN:
                continue
            destination = socket.inet_ntop(family, parts.get(RTA_DST, anything))
            interface = struct.unpack("=i", parts[RTA_OIF])[0] if RTA_OIF in parts else 0
            found.append(Route(f"{destination}/{length}", interface))
        return found
