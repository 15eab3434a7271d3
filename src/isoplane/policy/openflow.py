"""Tables → OpenFlow for one Open vSwitch bridge: the complete flows, forwarding, ARP, ND and DHCP included.

    0    who may send what: port, MAC and address must belong together; into connection tracking
    1-3  ARP, neighbour discovery, DHCP
    10   tracked: established connections that carry our mark go straight to 50
    20   egress:  source → table        21  peer → class        22  port → 30 | 39
    30   ingress: destination → table   31  peer → class        32  port → 40 | 39
    39   denied: a copy to the controller, within the bridge's meter, and no further
    40   commit, only now that both directions are judged: the mark, and which rules decided in the label
    50   deliver by destination address, whatever MAC the sender wrote
    120… the tables 20..32 once more with the sides swapped, for replies of SCTP, only if ports of SCTP are judged

Classes go by content, so equal tables share flows; a port range costs masked matches.  Userspace connection tracking
keys SCTP without its ports: every SCTP packet is judged, a reply by the connection it claims to answer.  No flow can
tell an INIT from a reply, so between two ends on the bridge one passes whose opposite, from that very port, is allowed.
Every echo request of ICMPv6 is judged as well: that tracking cannot be made to forget a single one (see the engine).

Addresses on the bridge are those of interfaces with an ``ofport``; all others are beyond its local port, where the
host routes, and judged by address all the same.  Apply with ``ovs-ofctl -O OpenFlow14 --bundle replace-flows``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from isoplane.policy import addresses
from isoplane.policy.addresses import BITS, cover
from isoplane.policy.bridge import PORTS, TRACKED, base_flows, deliver_flows
from isoplane.policy.interfaces import EndpointInterface, NodeNetwork, addresses_of, table_of
from isoplane.policy.rules import EGRESS, INGRESS, MAX_PORT, OTHER, PORT_PROTOCOLS
from isoplane.policy.table import DirectionTable, Entry, PeerClass, Tables, digest

K = TypeVar("K")
MARK = 1
DELIVER, COMMIT, DENIED = PORTS.deliver, 40, 39
SNAPPED = 128
"""Bytes of a denied packet that are copied."""
_IP = {4: "ip", 6: "ipv6"}
_FIELD = {4: ("nw_src", "nw_dst"), 6: ("ipv6_src", "ipv6_dst")}
_PROTOCOL = {4: {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}, 6: {"TCP": "tcp6", "UDP": "udp6", "SCTP": "sctp6"}}


def render_openflow(tables: Tables, interfaces: Iterable[EndpointInterface], node: NodeNetwork) -> str:
    """The complete flows of a node's bridge as text for ``ovs-ofctl --bundle replace-flows``.

    Raises ValueError when an interface on the bridge has no MAC, or two share an address.
    """
    return "".join(f"{flow}\n" for flow in flows(tables, interfaces, node))


def flows(tables: Tables, interfaces: Iterable[EndpointInterface], node: NodeNetwork) -> list[str]:
    """The same, flow by flow in a stable order; two renderings are compared as sets for an incremental change."""
    attached = sorted(interfaces, key=lambda a: a.endpoint)
    for interface in attached:
        if interface.ofport and not interface.mac:
            raise ValueError(f"{interface.endpoint} is attached to the bridge without its MAC address")
    used = sorted(
        {t.key: t for a in attached for d in (EGRESS, INGRESS) if not (t := table_of(tables, a, d)).open}.values(),
        key=lambda t: t.key,
    )
    numbers = _numbered(used)
    swapped = any(_judges_sctp_ports(c) for t in used for c in t.classes)
    written = dict.fromkeys(base_flows(attached, node))
    written.update(dict.fromkeys(_tracked(swapped, node)))
    sides = [_Side(False, 20, COMMIT, f"resubmit(,{DENIED})")]
    if swapped:
        sides.append(_Side(True, 120, DELIVER, "resubmit(,20)"))
    for side in sides:
        written.update(dict.fromkeys(_judging(side, tables, attached, used, numbers, node)))
    written[f"table={DENIED},priority=0,actions=controller(max_len={SNAPPED})"] = None
    written.update(dict.fromkeys(_commit(node)))
    written.update(dict.fromkeys(deliver_flows(attached, node)))
    return list(written)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Register values: each a part of a content's hash, made different where parts collide."""

    tables: dict[str, int]
    classes: dict[tuple[str, bool], int]


@dataclass(frozen=True, slots=True)
class _Side:
    """One copy of the judging tables: forwards, or with source and destination swapped for replies of SCTP."""

    swapped: bool
    first: int
    done: int
    otherwise: str

    def field(self, family: int, subject: bool, direction: str) -> str:
        """The match field that holds the subject's (or its peer's) address."""
        is_source = (direction == EGRESS) is subject
        return _FIELD[family][int(is_source is self.swapped)]

    @property
    def port(self) -> str:
        return "tp_src" if self.swapped else "tp_dst"


def _numbered(used: Iterable[DirectionTable]) -> _Numbers:
    classes = sorted({(c.key, t.isolated) for t in used for c in t.classes})
    return _Numbers(_distinct((t.key for t in used), lambda k: k), _distinct(classes, lambda c: digest(*c)))


def _distinct(keys: Iterable[K], content: Callable[[K], str]) -> dict[K, int]:
    found: dict[K, int] = {}
    taken: set[int] = {0}
    for key in keys:
        number = int(content(key)[:8], 16)
        while number in taken:
            number = (number + 1) & 0xFFFFFFFF
        taken.add(number)
        found[key] = number
    return found


def _judges_sctp_ports(peer_class: PeerClass) -> bool:
    return any(e.protocol == "SCTP" and (e.low, e.high) != (0, MAX_PORT) for e in peer_class.entries)


def _tracked(swapped: bool, node: NodeNetwork) -> Iterator[str]:
    known = f"ct_mark=0x{MARK:x}"
    yield f"table={TRACKED},priority=100,ct_state=+trk+inv,actions=drop"
    for family in (4, 6):
        sctp, reply = _PROTOCOL[family]["SCTP"], 120 if swapped else DELIVER
        yield f"table={TRACKED},priority=90,{sctp},ct_state=+trk+est+rpl,{known},actions=resubmit(,{reply})"
        yield f"table={TRACKED},priority=85,{sctp},actions=resubmit(,20)"
    yield f"table={TRACKED},priority=90,icmp6,icmp_type=128,actions=resubmit(,20)"
    yield f"table={TRACKED},priority=80,ct_state=+trk+est,{known},actions=resubmit(,{DELIVER})"
    yield f"table={TRACKED},priority=80,ct_state=+trk+rel,{known},actions=resubmit(,{DELIVER})"
    yield f"table={TRACKED},priority=0,actions=resubmit(,20)"


def _commit(node: NodeNetwork) -> Iterator[str]:
    label = "move:NXM_NX_REG4[]->NXM_NX_CT_LABEL[0..31],move:NXM_NX_REG5[]->NXM_NX_CT_LABEL[32..63]"
    exec_ = f"exec(load:0x{MARK:x}->NXM_NX_CT_MARK[],{label})"
    for protocol in _IP.values():
        yield f"table={COMMIT},priority=10,{protocol},actions=ct(commit,zone={node.zone},{exec_}),resubmit(,{DELIVER})"


def _judging(
    side: _Side,
    tables: Tables,
    attached: list[EndpointInterface],
    used: list[DirectionTable],
    numbers: _Numbers,
    node: NodeNetwork,
) -> Iterator[str]:
    ingress_start = side.first + 10
    for direction, first, passed in ((EGRESS, side.first, ingress_start), (INGRESS, ingress_start, side.done)):
        yield from _exempt(side, direction, first, passed, node)
        for family in (4, 6):
            subject = side.field(family, True, direction)
            for number, interface in addresses_of(attached, family):
                table = table_of(tables, interface, direction)
                if not table.open:
                    match = f"{_IP[family]},{subject}={addresses.text(family, number)}"
                    action = f"load:0x{numbers.tables[table.key]:x}->NXM_NX_REG0[],resubmit(,{first + 1})"
                    yield f"table={first},priority=100,{match},actions={action}"
        yield f"table={first},priority=0,actions=resubmit(,{passed})"
        classes: dict[tuple[str, bool, int], PeerClass] = {}
        for table in used:
            if table.direction == direction:
                yield from _peers(side, table, first, passed, numbers)
                for family in (4, 6):
                    for index in {0, *(index for _, _, index in table.routes(family))}:
                        peer_class = table.classes[index]
                        classes[peer_class.key, table.isolated, family] = peer_class
        for key in sorted(classes):
            peer_class = classes[key]
            if peer_class.entries and not _alike(peer_class, not key[1]):
                number = numbers.classes[key[:2]]
                yield from _ports(side, key[2], direction, peer_class, not key[1], number, first + 2, passed)
        for table_number in (first + 1, first + 2):
            yield f"table={table_number},priority=0,actions={side.otherwise}"


def _exempt(side: _Side, direction: str, first: int, passed: int, node: NodeNetwork) -> Iterator[str]:
    """The node reaches its own workloads: its own address, and only through the local port (swapped: replies to it)."""
    for ip in node.ips:
        family, number = addresses.address(ip)
        source = side.field(family, True, EGRESS)
        local = "" if side.swapped else "in_port=LOCAL,"
        yield (
            f"table={first},priority=110,{_IP[family]},{local}{source}={addresses.text(family, number)},"
            f"actions=resubmit(,{passed})"
        )


def _peers(side: _Side, table: DirectionTable, first: int, passed: int, numbers: _Numbers) -> Iterator[str]:
    """Peer → class, the longest prefix first by priority; peers with one fate need no class."""
    subject = f"reg0=0x{numbers.tables[table.key]:x}"
    for family in (4, 6):
        peer = side.field(family, False, table.direction)
        default_route = ((0, 0, 0),) if not any(r[1] == 0 for r in table.routes(family)) else ()
        for network, length, index in (*default_route, *table.routes(family)):
            action = _to_class(side, table, index, numbers, first, passed)
            where = "" if length == 0 else f",{peer}={addresses.text(family, network)}{_suffix(family, length)}"
            yield f"table={first + 1},priority={100 + length},{_IP[family]},{subject}{where},actions={action}"


def _suffix(family: int, length: int) -> str:
    return "" if length == BITS[family] else f"/{length}"


def _to_class(side: _Side, table: DirectionTable, index: int, numbers: _Numbers, first: int, passed: int) -> str:
    peer_class = table.classes[index]
    if not peer_class.entries:
        return _pass(table.direction, (), passed) if not table.isolated else side.otherwise
    if _alike(peer_class, not table.isolated):
        return _decided(side, table.direction, peer_class.entries[0], passed)
    return f"load:0x{numbers.classes[peer_class.key, table.isolated]:x}->NXM_NX_REG1[],resubmit(,{first + 2})"


def _alike(peer_class: PeerClass, default: bool) -> bool:
    """Whether everything has one fate, decided by the same rules."""
    return len({(e.allow, e.rules) for e in peer_class.entries}) == 1 and peer_class.uniform(default) is not None


def _decided(side: _Side, direction: str, entry: Entry, passed: int) -> str:
    """Remember who decided, then go on or be denied; on the way back of SCTP what is not allowed is judged forwards."""
    if entry.allow:
        return _pass(direction, entry.rules, passed)
    return side.otherwise if side.swapped else _pass(direction, entry.rules, DENIED)


def _pass(direction: str, rules: object, passed: int) -> str:
    """Remember which rules decided, for the connection's label, and go on."""
    register = 4 if direction == EGRESS else 5
    return f"load:0x{rules_number(rules):x}->NXM_NX_REG{register}[],resubmit(,{passed})"


def counted(tables: Tables, interfaces: Iterable[EndpointInterface]) -> dict[tuple[str, str], tuple[str, ...]]:
    """What the flows' packet counts stand for: (direction, the number that they load for a label) → the rules' ids."""
    used = {t.key: t for a in interfaces for t in (table_of(tables, a, EGRESS), table_of(tables, a, INGRESS))}
    classes = {(t.direction, c.key): c for t in used.values() if not t.open for c in t.classes}
    return {
        (direction, f"{rules_number(entry.rules):x}"): entry.rules
        for (direction, _), peer_class in classes.items()
        for entry in peer_class.entries
    }


def rules_number(rules: object) -> int:
    """What stands for a set of deciding rules in a connection's label."""
    return int(digest(rules)[:8], 16)


def _ports(
    side: _Side, family: int, direction: str, peer_class: PeerClass, default: bool, number: int, table: int, passed: int
) -> Iterator[str]:
    """The class's entries; then the default of protocols with ports, below which what has none is judged."""
    subject = f"reg1=0x{number:x}"
    for entry in peer_class.entries:
        action = _decided(side, direction, entry, passed)
        if entry.protocol == OTHER:
            yield f"table={table},priority=5,{_IP[family]},{subject},actions={action}"
            continue
        protocol = _PROTOCOL[family][entry.protocol]
        for value, length in cover(entry.low, entry.high, 16):
            mask = (0xFFFF << (16 - length)) & 0xFFFF
            ports = (
                "" if not length else f",{side.port}={value}" if length == 16 else f",{side.port}={value:#x}/{mask:#x}"
            )
            yield f"table={table},priority=10,{protocol},{subject}{ports},actions={action}"
    rest = _pass(direction, (), passed) if default else side.otherwise
    portless = any(e.protocol == OTHER for e in peer_class.entries)
    for protocol in PORT_PROTOCOLS if portless else ():
        yield f"table={table},priority=6,{_PROTOCOL[family][protocol]},{subject},actions={rest}"
    if default:
        yield f"table={table},priority=4,{_IP[family]},{subject},actions={rest}"
