"""The one intermediate table: finite data that every engine loads, so that two engines agree when their tables do.

For an endpoint and a direction: isolated or not; peer address → peer class by longest prefix, for each family; and
for a class disjoint (protocol, port interval) → allow or deny with the ids of the rules that decide.  Exceptions,
named ports, overlaps, tiers and priorities are gone by now: ``compile.py`` resolved them.  Endpoints under the same
policies share one table, and tables share classes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from isoplane.policy import addresses
from isoplane.policy.model import Exposed
from isoplane.policy.rules import EGRESS, INGRESS, MAX_PORT, PROTOCOLS

Route = tuple[int, int, int]
"""(network, prefix length, index into the table's classes)."""


def digest(*parts: object) -> str:
    """A stable name for content: 16 hexadecimal digits."""
    from hashlib import blake2b  # with OpenSSL, which whoever only asks for a verdict need not load

    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One interval of one protocol; the intervals of a class are disjoint and in order. OTHER uses 0..0."""

    protocol: str
    low: int
    high: int
    allow: bool
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PeerClass:
    """Peers that the table treats alike. What no entry covers follows the table's default."""

    key: str
    entries: tuple[Entry, ...]

    def find(self, protocol: str, port: int) -> Entry | None:
        for entry in self.entries:
            if entry.protocol == protocol and entry.low <= port <= entry.high:
                return entry
        return None

    def uniform(self, default: bool) -> bool | None:
        """True or False when every packet of these peers has that one fate, None when it depends."""
        whole = {(p, 0, MAX_PORT if p != "OTHER" else 0) for p in PROTOCOLS}
        fates = {e.allow for e in self.entries}
        if {(e.protocol, e.low, e.high) for e in self.entries} != whole and _covered(self.entries) != len(PROTOCOLS):
            fates.add(default)
        return fates.pop() if len(fates) == 1 else None


def _covered(entries: tuple[Entry, ...]) -> int:
    """How many protocols the entries cover completely."""
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes[entry.protocol] = sizes.get(entry.protocol, 0) + entry.high - entry.low + 1
    return sum(size == (1 if protocol == "OTHER" else MAX_PORT + 1) for protocol, size in sizes.items())


@dataclass(frozen=True)
class DirectionTable:
    """What one direction of an endpoint lets pass.

    ``isolated``: what no entry covers is denied, because of ``policies``; otherwise it is allowed.  ``classes[0]`` is
    for peers that no route covers.  ``v4`` and ``v6`` are sorted and nest; the longest prefix wins.  ``exposed`` are the
    only ports that are let in at all, where the endpoint's interface lists its ports: the classes say so already.
    """

    key: str
    direction: str
    isolated: bool
    policies: tuple[str, ...]
    classes: tuple[PeerClass, ...]
    v4: tuple[Route, ...] = ()
    v6: tuple[Route, ...] = ()
    exposed: Exposed | None = None

    @property
    def open(self) -> bool:
        """Whether nothing is ever denied, so that an engine needs no rule at all."""
        return not self.isolated and not any(not e.allow for c in self.classes for e in c.entries)

    def routes(self, family: int) -> tuple[Route, ...]:
        return self.v4 if family == 4 else self.v6

    @cached_property
    def _intervals(self) -> dict[int, tuple[list[int], list[tuple[int, int, int]]]]:
        found = {}
        for family in (4, 6):
            flat = list(addresses.intervals(self.routes(family), family))
            found[family] = ([low for low, _, _ in flat], flat)
        return found

    def class_of(self, family: int, address: int) -> PeerClass:
        """The class of a peer address."""
        lows, flat = self._intervals[family]
        at = bisect_right(lows, address) - 1
        if at >= 0 and flat[at][0] <= address <= flat[at][1]:
            return self.classes[flat[at][2]]
        return self.classes[0]

    def judge(self, family: int, address: int, protocol: str, port: int) -> tuple[bool, tuple[str, ...]]:
        """(allowed, the rules that decided); no rules where the default decided."""
        entry = self.class_of(family, address).find(protocol, port)
        return (entry.allow, entry.rules) if entry else (not self.isolated, ())


def direction_table(
    direction: str,
    isolated: bool,
    policies: tuple[str, ...],
    classes: tuple[PeerClass, ...],
    v4: tuple[Route, ...] = (),
    v6: tuple[Route, ...] = (),
    exposed: Exposed | None = None,
) -> DirectionTable:
    """A table under the name of its content: equal content, equal key."""
    bound = () if exposed is None else (exposed,)
    key = digest(direction, isolated, policies, tuple(c.key for c in classes), v4, v6, *bound)
    return DirectionTable(key, direction, isolated, policies, classes, v4, v6, exposed)


def peer_class(entries: tuple[Entry, ...]) -> PeerClass:
    """A class under the name of its content."""
    return PeerClass(digest(*((e.protocol, e.low, e.high, e.allow, e.rules) for e in entries)), entries)


NO_CLASS = peer_class(())
OPEN = {d: direction_table(d, False, (), (NO_CLASS,)) for d in (INGRESS, EGRESS)}
CLOSED = {d: direction_table(d, True, (), (NO_CLASS,)) for d in (INGRESS, EGRESS)}


@dataclass(frozen=True, slots=True)
class EndpointTables:
    """Both directions of one endpoint, with the addresses that engines find it by."""

    id: str
    ips: tuple[str, ...]
    node: str
    ingress: DirectionTable
    egress: DirectionTable


@dataclass(frozen=True)
class Tables:
    """All endpoints that policies can govern. ``revision`` changes exactly when what is enforced may change."""

    endpoints: Mapping[str, EndpointTables] = field(default_factory=dict)

    @cached_property
    def revision(self) -> str:
        return digest(
            *((e.id, e.ips, e.ingress.key, e.egress.key) for e in sorted(self.endpoints.values(), key=lambda e: e.id))
        )
