"""Tables → ipset and iptables: the same decisions as ``nftables.py`` for hosts that run on iptables.

Sets carry what would grow: which workloads a table is for, which peers it lets pass on which ports.  Rules are one for
each distinct table and a handful in it, however many workloads, addresses, ports and policies there are; only peers with
many ports of their own, as by ranges, cost a rule for each such choice of ports.

Sets and rules are not atomic together, so they are applied in the order of ``Steps``: first new sets and members, then
the rules (``iptables-restore --noflush``, one transaction for each table), then stale members and sets go.  In
between a workload may be in two tables at once and is judged by both: what either forbids is forbidden.

Every chain and set is ours by its name; ``HOOKS`` must jump to ours once.  Our chains return what they do not drop,
so that the host's own rules still apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from isoplane.policy import addresses
from isoplane.policy.addresses import BITS, cover
from isoplane.policy.interfaces import EndpointInterface, NodeNetwork, addresses_of, table_of
from isoplane.policy.rules import EGRESS, INGRESS, MAX_PORT, OTHER, PORT_PROTOCOLS
from isoplane.policy.table import DirectionTable, Tables, digest

PREFIX = "isp"
HOOKS = (("raw", "PREROUTING", "ISP-GUARD"), ("filter", "FORWARD", "ISP-FORWARD"), ("filter", "INPUT", "ISP-INPUT"))
"""(table, built-in chain, our chain): the fabric inserts these jumps once, first in their chain."""
_FAMILY = {4: "inet", 6: "inet6"}
_LETTER = {INGRESS: "i", EGRESS: "e"}
_SELF = {INGRESS: "dst", EGRESS: "src"}
_PEER = {INGRESS: "src", EGRESS: "dst"}
_DENY = {INGRESS: "ISP-DENY-INGRESS", EGRESS: "ISP-DENY-EGRESS"}
_DISCOVERY = ("router-solicitation", "neighbour-solicitation", "neighbour-advertisement")
_BITMAPPED = ("TCP", "UDP")
"""A set of ports alone holds nothing against a packet of SCTP (ip_set_get_ip_port): its ports are listed in rules. Pairs do."""
_SLOTS = 15
_COUNTED = 8
"""Counters of one protocol in a chain of ports; where more rules decide than that, they are not counted, for each is walked."""

_MEMBERS = 65536
"""What a set holds unless told otherwise."""
_PAIRED_PORTS = 16
Differences = tuple[tuple[str, int, int], ...]
"""Where a class is not as its table's default: (protocol, low, high), disjoint and in order."""
Deciding = tuple[tuple[str, ...], ...]
"""The ids of the rules that decide each of the differences."""
NOWHERE: Differences = ()
EVERYWHERE: Differences = (("*", 0, MAX_PORT),)

Site = tuple[str, str]
Chains = dict[str, dict[str, list[str]]]
"""table → chain → rules."""


@dataclass(frozen=True, slots=True)
class IpSet:
    """``kind`` as written after create. A set whose members change while its name stays is ``mutable``."""

    kind: str
    members: tuple[str, ...]
    mutable: bool = False


@dataclass(frozen=True, slots=True)
class Steps:
    """Texts in their order: ipset restore, iptables-restore and ip6tables-restore --noflush, ipset restore."""

    before: str
    v4: str
    v6: str
    after: str


@dataclass(frozen=True)
class Ruleset:
    """All sets by name, and the chains of both families.

    ``counted``: which policies' rules a counter stands for: (set, member) or (chain, position of the rule) → their ids.
    ``uncounted``: rules of which some decisions have no counter of their own.
    """

    sets: Mapping[str, IpSet] = field(default_factory=dict)
    chains: Mapping[int, Chains] = field(default_factory=lambda: {4: {}, 6: {}})
    counted: Mapping[Site, tuple[str, ...]] = field(default_factory=dict)
    uncounted: frozenset[str] = frozenset()

    def steps(self, old: Ruleset | None = None) -> Steps:
        """How to get here from ``old``, or from whatever an earlier version of ours left (None)."""
        old = old or Ruleset()
        before: list[str] = []
        after: list[str] = []
        for name, ipset in self.sets.items():
            known = old.sets.get(name)
            if known == ipset:
                continue
            before.append(f"create {name} {ipset.kind} -exist")
            before += [f"add {name} {member} -exist" for member in ipset.members]
            if ipset.mutable:
                after.append(f"create {name}-t {ipset.kind}")
                after += [f"add {name}-t {member}" for member in ipset.members]
                after += [f"swap {name}-t {name}", f"destroy {name}-t"]
        after += [f"destroy {name}" for name in old.sets if name not in self.sets]
        return Steps(_lines(before), self._restore(4, old), self._restore(6, old), _lines(after))

    def _restore(self, family: int, old: Ruleset) -> str:
        """Each chain that is named is emptied and filled; chains that are gone are emptied and deleted.

        What stays as it is is not named, and a table without changes is left out: each costs a transaction of its own.
        """
        lines: list[str] = []
        for table, chains in self.chains[family].items():
            before = old.chains[family].get(table, {})
            changed = {name: rules for name, rules in chains.items() if before.get(name) != rules}
            gone = [name for name in before if name not in chains]
            if not changed and not gone:
                continue
            lines.append(f"*{table}")
            lines += [f":{name} - [0:0]" for name in (*changed, *gone)]
            lines += [f"-A {name} {rule}" for name, rules in changed.items() for rule in rules]
            lines += [f"-X {name}" for name in gone]
            lines.append("COMMIT")
        return _lines(lines)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def render_iptables(tables: Tables, interfaces: Iterable[EndpointInterface], node: NodeNetwork) -> Steps:
    """The complete rules of a node as texts to apply in order, whatever is loaded now."""
    return ruleset(tables, interfaces, node).steps()


def ruleset(tables: Tables, interfaces: Iterable[EndpointInterface], node: NodeNetwork) -> Ruleset:
    """The complete rules of a node as a value. Raises ValueError when two interfaces share an address."""
    builder = _Builder(node)
    attached = sorted(interfaces, key=lambda a: a.endpoint)
    for family in (4, 6):
        builder.family(family, tables, attached)
    return Ruleset(builder.sets, builder.chains, builder.counted, frozenset(builder.uncounted))


class _Builder:
    def __init__(self, node: NodeNetwork) -> None:
        self._node = node
        self.sets: dict[str, IpSet] = {}
        self.chains: dict[int, Chains] = {}
        self.counted: dict[Site, tuple[str, ...]] = {}
        self.uncounted: set[str] = set()

    def family(self, family: int, tables: Tables, attached: list[EndpointInterface]) -> None:
        addressed = addresses_of(attached, family)
        kind = f"hash:net,iface family {_FAMILY[family]}"
        bits = BITS[family]
        sources = tuple(sorted(f"{addresses.text(family, n)}/{bits},{a.device}" for n, a in addressed))
        workloads = tuple(addresses.text(family, n) for n, _ in addressed)
        self.sets[f"{PREFIX}-sources{family}"] = IpSet(kind, sources, mutable=True)
        self.sets[f"{PREFIX}-workloads{family}"] = IpSet(f"hash:ip family {_FAMILY[family]}", workloads, mutable=True)
        filter_: dict[str, list[str]] = {_DENY[d]: _denial(d, self._node) for d in (EGRESS, INGRESS)}
        judged = {d: self._dispatch(tables, family, d, addressed, filter_) for d in (EGRESS, INGRESS)}
        invalid = f"-m set --match-set {PREFIX}-workloads{family}"
        filter_["ISP-INVALID"] = [f"{invalid} src -j DROP", f"{invalid} dst -j DROP"]
        # Confirmed is a connection whose first packet was let through before, answered or not: rules judge first packets.
        state = [
            "-m conntrack --ctstatus CONFIRMED -j RETURN",
            "-m conntrack --ctstate RELATED -j RETURN",
            "-m conntrack --ctstate INVALID -j ISP-INVALID",
        ]
        unattached = f"-m set ! --match-set {PREFIX}-workloads{family} dst -j DROP"
        closed = [f"-o {prefix}+ {unattached}" for prefix in self._node.guarded]
        filter_["ISP-FORWARD"] = [*state, *closed, *judged[EGRESS], *judged[INGRESS]]
        filter_["ISP-INPUT"] = [*state, *_local(family), *judged[EGRESS]]
        self.chains[family] = {"raw": {"ISP-GUARD": self._guard(family, attached)}, "filter": filter_}

    def _guard(self, family: int, attached: list[EndpointInterface]) -> list[str]:
        """A workload's address only from its interface, and from a workload's interface nothing else."""
        own = f"-m set --match-set {PREFIX}-sources{family} src,src"
        # Nobody but the host answers DHCP.
        server, client = (67, 68) if family == 4 else (547, 546)
        rules = [f"-p udp -m udp --sport {server} --dport {client} {own} -j DROP", f"{own} -j RETURN"]
        if family == 6:
            for source in ("::/128", "fe80::/10"):
                rules += [f"-s {source} -p icmpv6 --icmpv6-type {kind} -j RETURN" for kind in _DISCOVERY]
            rules.append("-s fe80::/10 -p udp -m udp --sport 546 --dport 547 -j RETURN")
        else:
            rules.append("-s 0.0.0.0/32 -p udp -m udp --sport 68 --dport 67 -j RETURN")
        rules.append(f"-m set --match-set {PREFIX}-workloads{family} src -j DROP")
        rules += [f"-i {prefix}+ -j DROP" for prefix in self._node.guarded]
        interfaces = sorted({a.device for a in attached if not a.ofport})
        return rules + [f"-i {i} -j DROP" for i in interfaces if not i.startswith(self._node.guarded or ("\0",))]

    def _dispatch(
        self,
        tables: Tables,
        family: int,
        direction: str,
        addressed: list[tuple[int, EndpointInterface]],
        chains: dict[str, list[str]],
    ) -> list[str]:
        """One rule for each distinct table: its workloads are a set."""
        subjects: dict[str, tuple[DirectionTable, list[str]]] = {}
        for number, interface in addressed:
            table = table_of(tables, interface, direction)
            if not table.open:
                subjects.setdefault(table.key, (table, []))[1].append(addresses.text(family, number))
        rules = []
        for key in sorted(subjects):
            table, members = subjects[key]
            name = f"{PREFIX}-{_LETTER[direction]}{family}-{key}"
            self.sets[name] = IpSet(f"hash:ip family {_FAMILY[family]}", tuple(members), mutable=True)
            chains[name] = self._peers(name, table, family, chains)
            rules.append(f"-m set --match-set {name} {_SELF[direction]} -j {name}")
        return rules

    def _peers(self, name: str, table: DirectionTable, family: int, chains: dict[str, list[str]]) -> list[str]:
        """A rule for the pairs of peer and port that differ from the default, one for the peers that differ on every port,
        one for each way of differing on too many ports for pairs; then everybody else.

        So there is no walk over classes: most differ on a few ports.
        """
        default, end = not table.isolated, _PEER[table.direction]
        deny = f"-g {_DENY[table.direction]}"
        differing, rest = (deny, "-j RETURN") if default else ("-j RETURN", deny)
        groups = _Groups(family, table, default)
        differences, deciding = groups.differences(0)
        everybody = self._class(table, differences, {deciding}, chains)
        rules = []
        self.uncounted |= groups.uncounted
        for suffix, counted in (("p", groups.pairs_counted), ("w", groups.whole_counted)):
            self.counted.update(((f"{name}-{suffix}", member), rules_) for member, rules_ in counted.items())
        if groups.pairs:
            self._set(f"{name}-p", f"hash:net,port family {_FAMILY[family]} counters", groups.pairs)
            rules.append(f"-m set --match-set {name}-p {end},dst {differing}")
        if groups.whole:
            self._set(f"{name}-w", f"hash:net family {_FAMILY[family]} counters", groups.whole)
            rules.append(f"-m set --match-set {name}-w {end} {differing}")
        for number, (other, (members, decidings)) in enumerate(groups.others.items()):
            peers = f"{name}-{number:x}"
            self._set(peers, f"hash:net family {_FAMILY[family]}", members)
            rules.append(f"-m set --match-set {peers} {end} {self._class(table, other, decidings, chains)}")
        if everybody != rest and (known := [*groups.alike, *groups.paired]):
            self._set(f"{name}-k", f"hash:net family {_FAMILY[family]}", known)
            rules.append(f"-m set --match-set {name}-k {end} {rest}")
        if differences == EVERYWHERE:
            self._count(name, len(rules), deciding)
        return [*rules, everybody]

    def _count(self, chain: str, position: int, deciding: Iterable[tuple[str, ...]]) -> None:
        """One counter; it tells when one set of rules decides alone."""
        found = set(deciding)
        if len(found) == 1:
            self.counted[chain, str(position)] = found.pop()
        else:
            self.uncounted.update(rule for rules in found for rule in rules)

    def _set(self, name: str, kind: str, members: list[str]) -> None:
        size = f" maxelem {1 << len(members).bit_length()}" if len(members) > _MEMBERS else ""
        self.sets[name] = IpSet(kind + size, tuple(members))

    def _class(
        self, table: DirectionTable, differences: Differences, decidings: set[Deciding], chains: dict[str, list[str]]
    ) -> str:
        """The target for peers with these differences from the default: return, the denial, or the chain that judges ports.

        ``decidings``: of all such peers; where there are several, one chain serves all and cannot tell them apart.
        """
        default, deny = not table.isolated, f"-g {_DENY[table.direction]}"
        if differences in (NOWHERE, EVERYWHERE):
            return "-j RETURN" if (differences == NOWHERE) is default else deny
        told = decidings if len(decidings) == 1 else {_together(decidings)}
        (deciding,) = told
        name = f"{PREFIX}-{_LETTER[table.direction]}{'o' if default else 'c'}-{digest(differences, deciding)}"
        if name not in chains:
            chains[name] = self._ports(name, differences, deciding, default, deny)
        if len(decidings) > 1:
            self.uncounted.update(rule for rules in deciding for rule in rules)
        return f"-g {name}"

    def _ports(self, name: str, differences: Differences, deciding: Deciding, default: bool, deny: str) -> list[str]:
        """A set of ports for each protocol, lists of them for SCTP; apart where different rules decide, if they are few."""
        differing, rest = (deny, "-j RETURN") if default else ("-j RETURN", deny)
        rules: list[str] = []
        for protocol in PORT_PROTOCOLS:
            match = f"-p {protocol.lower()}"
            for number, (spans, by) in enumerate(_apart(protocol, differences, deciding)):
                matches = [match]
                if spans[0] != (0, MAX_PORT) and protocol in _BITMAPPED:
                    ports = f"{name}-{protocol[0].lower()}{number or ''}"
                    self.sets[ports] = IpSet("bitmap:port range 0-65535", tuple(_span(*span) for span in spans))
                    matches = [f"{match} -m set --match-set {ports} dst"]
                elif spans[0] != (0, MAX_PORT):
                    matches = [f"{match} -m multiport --dports {listing}" for listing in _multiports(spans)]
                for one in matches:
                    self._count(name, len(rules), by)
                    rules.append(f"{one} {differing}")
        others = [by for (protocol, _, _), by in zip(differences, deciding, strict=True) if protocol == OTHER]
        if not others:
            return [*rules, rest]
        rules += [f"-p {protocol.lower()} {rest}" for protocol in PORT_PROTOCOLS]
        self._count(name, len(rules), others)
        return [*rules, differing]


def _together(decidings: set[Deciding]) -> Deciding:
    """For each difference, every rule that decides it for some of the peers."""
    return tuple(
        tuple(sorted({rule for rules in each for rule in rules})) for each in zip(*sorted(decidings), strict=True)
    )


def _apart(
    protocol: str, differences: Differences, deciding: Deciding
) -> list[tuple[list[tuple[int, int]], set[tuple[str, ...]]]]:
    """The ports of one protocol by what decides them; all together where that would be too many to walk."""
    listed = [(span[1:], by) for span, by in zip(differences, deciding, strict=True) if span[0] == protocol]
    groups: dict[object, list[tuple[int, int]]] = {}
    few = len({by for _, by in listed}) <= _COUNTED
    for span, by in listed:
        groups.setdefault(by if few else "", []).append(span)
    return [(spans, {by for span, by in listed if span in spans}) for spans in groups.values()]


def _multiports(spans: Iterable[tuple[int, int]]) -> Iterator[str]:
    """The ports of a rule each: a rule has fifteen slots, a range takes two."""
    row: list[str] = []
    taken = 0
    for low, high in spans:
        needed = 1 if low == high else 2
        if taken + needed > _SLOTS:
            yield ",".join(row)
            row, taken = [], 0
        row.append(_span(low, high).replace("-", ":"))
        taken += needed
    if row:
        yield ",".join(row)


class _Groups:
    """A table's peers by how they differ from its default, whichever rules say so. ``routes`` of class 0 are everybody's."""

    def __init__(self, family: int, table: DirectionTable, default: bool) -> None:
        self._table, self._default = table, default
        self.pairs: list[str] = []
        self.paired: list[str] = []
        self.whole: list[str] = []
        self.alike: list[str] = []
        self.others: dict[Differences, tuple[list[str], set[Deciding]]] = {}
        self.pairs_counted: dict[str, tuple[str, ...]] = {}
        self.whole_counted: dict[str, tuple[str, ...]] = {}
        self.uncounted: set[str] = set()
        for low, high, index in addresses.intervals(table.routes(family), family):
            if index:
                self._add(*self.differences(index), list(_prefixes(family, low, high)))

    def differences(self, index: int) -> tuple[Differences, Deciding]:
        """How a class differs, and what decides each difference. What agrees with the default is not counted."""
        peer_class = self._table.classes[index]
        differing = [e for e in peer_class.entries if e.allow is not self._default]
        self.uncounted.update(r for e in peer_class.entries if e.allow is self._default for r in e.rules)
        if (fate := peer_class.uniform(self._default)) is not None:
            if fate is self._default:
                return NOWHERE, ()
            return EVERYWHERE, tuple({e.rules: None for e in differing})
        return tuple((e.protocol, e.low, e.high) for e in differing), tuple(e.rules for e in differing)

    def _add(self, differences: Differences, deciding: Deciding, prefixes: list[str]) -> None:
        if differences == NOWHERE:
            self.alike += prefixes
        elif differences == EVERYWHERE:
            self.whole += prefixes
            if len(deciding) == 1:
                self.whole_counted.update((_member(prefix), deciding[0]) for prefix in prefixes)
            else:
                self.uncounted.update(rule for rules in deciding for rule in rules)
        elif _few(differences):
            self.paired += prefixes
            ports = [f"{protocol.lower()}:{_span(low, high)}" for protocol, low, high in differences]
            self.pairs += [f"{prefix},{port}" for prefix in prefixes for port in ports]
            for (protocol, low, high), rules in zip(differences, deciding, strict=True):
                for port in range(low, high + 1):
                    named = f",{protocol.lower()}:{port}"
                    self.pairs_counted.update((_member(prefix) + named, rules) for prefix in prefixes)
        else:
            members, decidings = self.others.setdefault(differences, ([], set()))
            members += prefixes
            decidings.add(deciding)


def _member(prefix: str) -> str:
    """As the kernel lists it: a single address has no length."""
    return prefix.removesuffix("/128") if ":" in prefix else prefix.removesuffix("/32")


def _few(differences: Differences) -> bool:
    """Whether pairs of peer and port can say it: a set holds each port of a range by itself."""
    ported = all(protocol in PORT_PROTOCOLS for protocol, _, _ in differences)
    return ported and sum(high - low + 1 for _, low, high in differences) <= _PAIRED_PORTS


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _prefixes(family: int, low: int, high: int) -> Iterator[str]:
    """Prefixes for a set; hash:net takes no /0, which is written as its two halves."""
    for network, length in cover(low, high, BITS[family]):
        if length == 0:
            yield f"{addresses.text(family, 0)}/1"
            yield f"{addresses.text(family, 1 << (BITS[family] - 1))}/1"
        else:
            yield f"{addresses.text(family, network)}/{length}"


def _local(family: int) -> list[str]:
    """What the host itself answers for every workload: its address by DHCP, its neighbours."""
    if family == 4:
        return ["-p udp -m udp --sport 68 --dport 67 -j RETURN"]
    discovery = [f"-p icmpv6 --icmpv6-type {kind} -j RETURN" for kind in _DISCOVERY]
    return [*discovery, "-p udp -m udp --sport 546 --dport 547 -j RETURN"]


def _denial(direction: str, node: NodeNetwork) -> list[str]:
    prefix = f"isoplane deny {direction.lower()} "
    return [
        "-m limit --limit 10/second --limit-burst 20 "
        f'-j NFLOG --nflog-group {node.log_group} --nflog-prefix "{prefix}"',
        "-j DROP",
    ]
