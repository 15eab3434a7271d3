"""What two sets of tables both allow: loaded on every engine between the old rules and the new.

A change that reaches two engines cannot be atomic.  With this step in between, whatever the change forbids is forbidden
everywhere before anything that it allows is allowed anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from isoplane.policy.addresses import BITS
from isoplane.policy.rules import MAX_PORT, PROTOCOLS
from isoplane.policy.table import (
    DirectionTable,
    EndpointTables,
    Entry,
    PeerClass,
    Route,
    Tables,
    direction_table,
    peer_class,
)

Prefix = tuple[int, int]
"""(network, length)."""


def meet_tables(old: Tables, new: Tables) -> Tables:
    """The endpoints that both know, each with what both allow; whoever is new stays closed for the moment."""
    known: dict[tuple[str, str], DirectionTable] = {}

    def meet(one: DirectionTable, two: DirectionTable) -> DirectionTable:
        key = (one.key, two.key)
        if key not in known:
            known[key] = one if one.key == two.key else meet_direction(one, two)
        return known[key]

    met = {}
    for name, entry in new.endpoints.items():
        before = old.endpoints.get(name)
        if before is not None:
            met[name] = EndpointTables(
                entry.id, entry.ips, entry.node, meet(before.ingress, entry.ingress), meet(before.egress, entry.egress)
            )
    return Tables(met)


def meet_direction(old: DirectionTable, new: DirectionTable) -> DirectionTable:
    """One direction of one endpoint: allowed is what both allow. Where one is part of the other, it is the answer as it is."""
    isolated = old.isolated or new.isolated
    classes: list[PeerClass] = []
    index: dict[tuple[str, str], int] = {}
    alone = [False, False]
    """Whether anything is allowed by the old table alone, and by the new one alone."""

    def number(one: PeerClass, two: PeerClass) -> int:
        key = (one.key, two.key)
        if key not in index:
            met, one_alone, two_alone = _meet_class(one, not old.isolated, two, not new.isolated)
            index[key] = len(classes)
            classes.append(met)
            alone[0] |= one_alone
            alone[1] |= two_alone
        return index[key]

    number(old.classes[0], new.classes[0])
    routes: dict[int, tuple[Route, ...]] = {}
    for family, bits in BITS.items():
        before = {(network, length): place for network, length, place in old.routes(family)}
        after = {(network, length): place for network, length, place in new.routes(family)}
        routes[family] = tuple(
            (*prefix, number(old.classes[_longest(before, bits, prefix)], new.classes[_longest(after, bits, prefix)]))
            for prefix in sorted(before.keys() | after.keys())
        )
    forbids, allows = alone
    if not forbids:
        return old
    if not allows:
        return new
    policies = tuple(sorted({*old.policies, *new.policies}))
    return direction_table(old.direction, isolated, policies, tuple(classes), routes[4], routes[6])


def _longest(prefixes: Mapping[Prefix, int], bits: int, place: Prefix) -> int:
    """The class of the longest prefix that holds the whole of ``place``; class 0 where none does."""
    network, length = place
    for shorter in range(length, -1, -1):
        masked = (network >> (bits - shorter)) << (bits - shorter)
        if (masked, shorter) in prefixes:
            return prefixes[masked, shorter]
    return 0


def _meet_class(one: PeerClass, one_default: bool, two: PeerClass, two_default: bool) -> tuple[PeerClass, bool, bool]:
    """What both classes allow, and whether the first, and the second, allows anything that the other does not."""
    entries: list[Entry] = []
    one_alone = two_alone = False
    for protocol in PROTOCOLS:
        last = MAX_PORT if protocol != "OTHER" else 0
        for low, high in _pieces((*one.entries, *two.entries), protocol, last):
            first, second = one.find(protocol, low), two.find(protocol, low)
            first_allows = first.allow if first else one_default
            second_allows = second.allow if second else two_default
            one_alone |= first_allows and not second_allows
            two_alone |= second_allows and not first_allows
            if first is None and second is None and one_default == two_default:
                continue  # the common default
            deciding = {*(first.rules if first else ()), *(second.rules if second else ())}
            entries.append(Entry(protocol, low, high, first_allows and second_allows, tuple(sorted(deciding))))
    return peer_class(tuple(entries)), one_alone, two_alone


def _pieces(entries: Iterable[Entry], protocol: str, last: int) -> Iterator[tuple[int, int]]:
    """The whole port range cut at every bound of every entry, so that no entry covers half a piece."""
    cuts = {0, last + 1}
    for entry in entries:
        if entry.protocol == protocol:
            cuts |= {entry.low, entry.high + 1}
    ordered = sorted(cuts)
    for low, after in pairwise(ordered):
        yield low, after - 1
