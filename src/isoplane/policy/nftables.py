"""Tables → nftables: verdict maps from address to table, from peer to class, from port to verdict; no linear walk.

For workloads on routed interfaces (veth, tap), enforced at the host's end.  A packet that is routed between
workloads, or to the host, walks at most

    established?  →  source → its egress table  →  peer → class  →  port → return | drop
                  →  destination → its ingress table → …

and is accepted when both returned; what leads to a workload's interface without being for a workload is dropped.
Connection tracking confirms only accepted packets, so nothing is committed before both directions are judged.  What
local processes send leaves through ``output``, which is not hooked: the node always reaches its workloads.  Interval
maps are kept apart from exact ones, which hash.

A ``Ruleset`` is a value: ``text`` is the whole, loaded in one transaction; ``update`` the difference from another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from isoplane.policy import addresses
from isoplane.policy.addresses import BITS
from isoplane.policy.interfaces import EndpointInterface, NodeNetwork, addresses_of, table_of
from isoplane.policy.rules import EGRESS, INGRESS, MAX_PORT, OTHER, PORT_PROTOCOLS
from isoplane.policy.table import DirectionTable, Entry, PeerClass, Tables

TABLE = "inet isoplane"
_SHORT = {INGRESS: "ingress", EGRESS: "egress"}
_SELF = {INGRESS: "daddr", EGRESS: "saddr"}
_PEER = {INGRESS: "saddr", EGRESS: "daddr"}
_IP = {4: "ip", 6: "ip6"}
_FEW = 4
Site = tuple[str, str]
_NEIGHBOURS = "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }"


@dataclass(frozen=True)
class Ruleset:
    """``sets``: name → (declaration, elements); ``maps``: name → (declaration, key → verdict); ``chains``: name → rules.

    ``counted``: which policies' rules a counter stands for: (map, key) or (chain, position of the rule) → their ids.
    """

    sets: Mapping[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    maps: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counted: Mapping[Site, tuple[str, ...]] = field(default_factory=dict)

    def text(self) -> str:
        """For ``nft -f``: replaces the whole table in one transaction."""
        return f"add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{''.join(self._blocks())}}}\n"

    def _blocks(self) -> Iterator[str]:
        for name, (declaration, elements) in self.sets.items():
            yield _block("set", name, declaration, sorted(elements))
        for name, (declaration, verdicts) in self.maps.items():
            yield _block("map", name, declaration, [f"{key} : {verdict}" for key, verdict in verdicts.items()])
        for name, rules in self.chains.items():
            yield "\n\t\t".join([f"\tchain {name} {{", *rules]) + "\n\t}\n"

    def update(self, old: Ruleset) -> str:
        """For ``nft -f``: turns ``old`` into this one in one transaction; empty when nothing differs.

        Counters and connections of what stays are left alone.
        """
        if not old.chains:
            return self.text()
        added, filled, removed, dropped = self._set_changes(old)
        fresh = [name for name in self.chains if name not in old.chains]
        gone = [name for name in old.chains if name not in self.chains]
        changed = [name for name in self.chains if name in old.chains and self.chains[name] != old.chains[name]]
        lines = [f"add chain {TABLE} {name}" for name in fresh if not self.chains[name][0].startswith("type ")]
        lines += added
        lines += [f"flush chain {TABLE} {name}" for name in [*changed, *gone]]
        lines += removed
        for name in [*fresh, *changed]:
            lines += [f"add rule {TABLE} {name} {rule}" for rule in self.chains[name] if not rule.startswith("type ")]
        lines += filled
        lines += dropped
        lines += [f"delete chain {TABLE} {name}" for name in gone]
        return "".join(f"{line}\n" for line in lines)

    def _set_changes(self, old: Ruleset) -> tuple[list[str], list[str], list[str], list[str]]:
        """(declarations, additions of elements, removals of elements, removals of whole sets)."""
        added: list[str] = []
        filled: list[str] = []
        removed: list[str] = []
        dropped: list[str] = []
        now: dict[str, tuple[str, str, Mapping[str, str]]] = {}
        before: dict[str, tuple[str, str, Mapping[str, str]]] = {}
        for target, ruleset in ((now, self), (before, old)):
            target.update((n, ("set", d, dict.fromkeys(e, ""))) for n, (d, e) in ruleset.sets.items())
            target.update((n, ("map", d, e)) for n, (d, e) in ruleset.maps.items())
        for name, (kind, declaration, elements) in now.items():
            known = before.get(name, (kind, "", {}))[2]
            if name not in before:
                inline = declaration.replace("\n", "; ")
                added.append(f"add {kind} {TABLE} {name} {{ {inline}; }}")
            stale = [k for k, v in known.items() if elements.get(k) != v]
            new = [f"{k} : {v}" if v else k for k, v in elements.items() if known.get(k) != v]
            if stale:
                removed.append(f"delete element {TABLE} {name} {{ {', '.join(stale)} }}")
            if new:
                filled.append(f"add element {TABLE} {name} {{ {', '.join(new)} }}")
        for name, (kind, _, elements) in before.items():
            if name not in now:
                if elements:
                    removed.append(f"flush {kind} {TABLE} {name}")
                dropped.append(f"delete {kind} {TABLE} {name}")
        return added, filled, removed, dropped


def _block(kind: str, name: str, declaration: str, elements: list[str]) -> str:
    lines = [f"\t{kind} {name} {{", *(f"\t\t{line}" for line in declaration.split("\n"))]
    if elements:
        lines.append("\t\telements = { " + ",\n\t\t\t".join(elements) + " }")
    return "".join(f"{line}\n" for line in [*lines, "\t}"])


def render_nftables(tables: Tables, interfaces: Iterable[EndpointInterface], node: NodeNetwork) -> str:
    """The complete ruleset of a node as text for ``nft -f``, loaded in one transaction."""
    return ruleset(tables, interfaces, node).text()


def ruleset(tables: Tables, interfaces: Iterable[EndpointInterface], node: NodeNetwork) -> Ruleset:
    """The complete ruleset of a node as a value."""
    builder = _Builder(node)
    attached = sorted(interfaces, key=lambda a: a.endpoint)
    builder.interfaces(attached)
    for family in (4, 6):
        addressed = addresses_of(attached, family)
        builder.sources(family, addressed)
        for direction in (EGRESS, INGRESS):
            builder.dispatch(tables, family, direction, addressed)
    return builder.finish()


class _Builder:
    """Collects sets, maps and chains; everything below the dispatch is named by its content and so made once."""

    def __init__(self, node: NodeNetwork) -> None:
        self._node = node
        self._sets: dict[str, tuple[str, frozenset[str]]] = {}
        self._maps: dict[str, tuple[str, Mapping[str, str]]] = {}
        self._chains: dict[str, tuple[str, ...]] = {}
        self._counted: dict[Site, tuple[str, ...]] = {}

    def interfaces(self, attached: Iterable[EndpointInterface]) -> None:
        """The interfaces that belong to one workload each."""
        own = frozenset(f'"{a.device}"' for a in attached if not a.ofport)
        self._sets["interfaces"] = ("type ifname", own)

    def sources(self, family: int, addressed: list[tuple[int, EndpointInterface]]) -> None:
        """Which address may come from which interface, and which addresses are workloads' at all."""
        kind = f"ipv{family}_addr"
        pairs = {f'"{a.device}" . {addresses.text(family, n)}' for n, a in addressed}
        self._sets[f"sources{family}"] = (f"type ifname . {kind}", frozenset(pairs))
        self._sets[f"workloads{family}"] = (f"type {kind}", frozenset(addresses.text(family, n) for n, _ in addressed))

    def dispatch(
        self, tables: Tables, family: int, direction: str, addressed: list[tuple[int, EndpointInterface]]
    ) -> None:
        """The table of each workload. Ingress comes last and lists them all: what it does not know is nobody's."""
        verdicts = {}
        for number, interface in addressed:
            table = table_of(tables, interface, direction)
            if not table.open:
                verb = "goto" if direction == INGRESS else "jump"
                verdicts[addresses.text(family, number)] = f"{verb} {self._table(table, family)}"
            elif direction == INGRESS:
                verdicts[addresses.text(family, number)] = "accept"
        self._maps[f"{_SHORT[direction]}{family}"] = (f"type ipv{family}_addr : verdict", verdicts)

    def _table(self, table: DirectionTable, family: int) -> str:
        """The chain that judges a peer's address by one table."""
        short = _SHORT[table.direction]
        name = f"{short}{family}_{table.key}"
        if name in self._chains:
            return name
        self._chains[name] = ()
        exact: dict[str, str] = {}
        ranges: dict[str, str] = {}
        lone = [r for r in table.routes(family) if r[1] == BITS[family]]
        for number, _, index in lone:
            exact[addresses.text(family, number)] = self._class(table, index)
        wide = [r for r in table.routes(family) if r[1] < BITS[family]]
        for low, high, index in addresses.intervals(wide, family):
            span = addresses.text(family, low)
            ranges[span if low == high else f"{span}-{addresses.text(family, high)}"] = self._class(table, index)
        peer = f"{_IP[family]} {_PEER[table.direction]}"
        rules = self._lookup(name, peer, f"ipv{family}_addr", exact, ranges, "")
        self._chains[name] = (*rules, self._class(table, 0))
        return name

    def _lookup(
        self, name: str, key: str, kind: str, exact: Mapping[str, str], ranges: Mapping[str, str], counter: str
    ) -> list[str]:
        """Find a key's verdict in maps, exact ones apart. The few make rules: the kernel finds sets by a linear search."""
        if len(exact) + len(ranges) <= _FEW:
            return [_rule(key, value, verdict, counter) for value, verdict in (*exact.items(), *ranges.items())]
        rules = []
        for suffix, flags, verdicts in (("exact", "", exact), ("ranges", "\nflags interval", ranges)):
            if verdicts:
                declaration = f"type {kind} : verdict{flags}" + ("\ncounter" if counter else "")
                self._maps[f"{name}_{suffix}"] = (declaration, verdicts)
                rules.append(f"{key} vmap @{name}_{suffix}")
        return rules

    def _class(self, table: DirectionTable, index: int) -> str:
        """The verdict for one class of peers: return, the denial, or the chain that judges ports."""
        peer_class, default = table.classes[index], not table.isolated
        deny = f"goto deny_{_SHORT[table.direction]}"
        if not peer_class.entries:
            return "return" if default else deny
        name = f"{_SHORT[table.direction]}_{'open' if default else 'isolated'}_{peer_class.key}"
        if name not in self._chains:
            self._chains[name] = self._ports(name, peer_class, default, deny)
        return f"goto {name}"

    def _ports(self, name: str, peer_class: PeerClass, default: bool, deny: str) -> tuple[str, ...]:
        """Every entry with its counter, also one that agrees with the default; they are disjoint, so order does not matter."""
        entries = peer_class.entries
        alike = {(e.allow, e.rules) for e in entries}
        if len(alike) == 1 and peer_class.uniform(default) is not None:
            self._counted[name, "0"] = entries[0].rules
            return (f"counter {_verdict(entries[0], deny)}",)
        exact = {_key(e): e for e in entries if _is_ported(e) and e.low == e.high}
        ranges = {_key(e): e for e in entries if _is_ported(e) and e.low < e.high}
        one, many = ({key: _verdict(e, deny) for key, e in part.items()} for part in (exact, ranges))
        rules = self._lookup(name, "meta l4proto . th dport", "inet_proto . inet_service", one, many, "counter")
        few = len(exact) + len(ranges) <= _FEW
        for position, (key, entry) in enumerate([*exact.items(), *ranges.items()]):
            suffix = "exact" if key in exact else "ranges"
            self._counted[(name, str(position)) if few else (f"{name}_{suffix}", key)] = entry.rules
        whole: dict[tuple[tuple[str, ...], str], list[str]] = {}
        for e in entries:
            if e.protocol in PORT_PROTOCOLS and _is_whole(e):
                whole.setdefault((e.rules, _verdict(e, deny)), []).append(e.protocol.lower())
        for (deciding, verdict), protocols in whole.items():
            self._counted[name, str(len(rules))] = deciding
            rules.append(f"meta l4proto {{ {', '.join(protocols)} }} counter {verdict}")
        for e in entries:
            if e.protocol == OTHER:
                self._counted[name, str(len(rules))] = e.rules
                rules.append(f"meta l4proto != {{ tcp, udp, sctp }} counter {_verdict(e, deny)}")
        return (*rules, "return" if default else deny)

    def finish(self) -> Ruleset:
        base = _base(self._node)
        return Ruleset(self._sets, self._maps, {**base, **self._chains}, self._counted)


def _rule(key: str, value: str, verdict: str, counter: str) -> str:
    """One element of a lookup as a rule of its own."""
    if " . " in value:  # protocol and port
        protocol, _, port = value.partition(" . ")
        key, value = f"{protocol} dport", port
    return " ".join(filter(None, (key, value, counter, verdict)))


def _key(entry: Entry) -> str:
    ports = str(entry.low) if entry.low == entry.high else f"{entry.low}-{entry.high}"
    return f"{entry.protocol.lower()} . {ports}"


def _verdict(entry: Entry, deny: str) -> str:
    return "return" if entry.allow else deny


def _is_whole(entry: Entry) -> bool:
    return entry.low == 0 and entry.high == MAX_PORT


def _is_ported(entry: Entry) -> bool:
    return entry.protocol in PORT_PROTOCOLS and not _is_whole(entry)


def _base(node: NodeNetwork) -> dict[str, tuple[str, ...]]:
    """The fixed chains: hooks, the guard against false sources, the denials. What most packets are comes first in each."""
    # Confirmed is a connection whose first packet was let through before, whether it was ever answered or not: rules are asked
    # about first packets, and what they forbid later is cut.
    state = ("ct status confirmed accept", "ct state related accept", "ct state invalid jump invalid")
    guards = [f'iifname "{prefix}*" goto guarded' for prefix in node.guarded]
    closed = [f'oifname "{prefix}*" counter drop' for prefix in node.guarded]
    return {
        # Only what is a workload's: whether the host's own odd packets pass is not ours to say.
        "invalid": tuple(f"{_IP[f]} {end} @workloads{f} counter drop" for f in (4, 6) for end in ("saddr", "daddr")),
        "guarded": (
            f"ip6 saddr {{ ::, fe80::/10 }} {_NEIGHBOURS} return",
            "ip saddr 0.0.0.0 udp sport 68 udp dport 67 return",
            "ip6 saddr fe80::/10 udp sport 546 udp dport 547 return",
            "counter drop",
        ),
        "source_guard": (
            "type filter hook prerouting priority raw; policy accept;",
            # Nobody but the host answers DHCP: whoever gives others their addresses and routers reads what they send.
            "udp sport 67 udp dport 68 iifname . ip saddr @sources4 counter drop",
            "udp sport 547 udp dport 546 iifname . ip6 saddr @sources6 counter drop",
            "iifname . ip saddr @sources4 accept",
            "iifname . ip6 saddr @sources6 accept",
            *guards,
            "iifname @interfaces goto guarded",
            "ip saddr @workloads4 counter drop",
            "ip6 saddr @workloads6 counter drop",
        ),
        # Every workload's address leads out of the second map, so whatever comes after it is nobody's.
        **{
            f"forward{family}": (
                f"{_IP[family]} saddr vmap @egress{family}",
                f"{_IP[family]} daddr vmap @ingress{family}",
                *closed,
            )
            for family in (4, 6)
        },
        "forward": (
            "type filter hook forward priority filter; policy accept;",
            *state,
            "meta nfproto vmap { ipv4 : goto forward4, ipv6 : goto forward6 }",
        ),
        "input": (
            "type filter hook input priority filter; policy accept;",
            *state,
            f"{_NEIGHBOURS} accept",
            "udp sport 68 udp dport 67 accept",
            "udp sport 546 udp dport 547 accept",
            "ip saddr vmap @egress4",
            "ip6 saddr vmap @egress6",
        ),
        **{f"deny_{_SHORT[direction]}": _denial(direction, node) for direction in (EGRESS, INGRESS)},
    }


def _denial(direction: str, node: NodeNetwork) -> tuple[str, ...]:
    prefix = f"isoplane deny {_SHORT[direction]} "
    return (
        f'limit rate 10/second burst 20 packets log prefix "{prefix}" group {node.log_group}',
        "counter drop",
    )
