"""Ports of an interface as a bound on what comes in: a masquerade interface that lists ports lets in these alone.

In KubeVirt the launcher forwards only the listed ports to the guest.  Here the compiler takes all else out of the
ingress table, so that every engine enforces it; the reference says the same by ``Endpoint.exposes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from isoplane.policy.model import Exposed
from isoplane.policy.rules import PORT_PROTOCOLS
from isoplane.policy.table import DirectionTable, Entry, PeerClass, direction_table, peer_class


def bounded(table: DirectionTable, exposed: Exposed | None) -> DirectionTable:
    """What is left of an ingress table when only these ports are let in; all of it for None."""
    if exposed is None:
        return table
    numbers = {protocol: sorted(port for p, port in exposed if p == protocol) for protocol in PORT_PROTOCOLS}
    classes: dict[str, PeerClass] = {}
    place: list[int] = []
    for each in table.classes:
        made = peer_class(tuple(_inside(each.entries, numbers, not table.isolated)))
        classes.setdefault(made.key, made)
        place.append(list(classes).index(made.key))
    v4, v6 = (tuple((net, length, place[c]) for net, length, c in table.routes(family)) for family in (4, 6))
    return direction_table(table.direction, True, table.policies, tuple(classes.values()), v4, v6, exposed)


def _inside(entries: Iterable[Entry], numbers: Mapping[str, list[int]], default: bool) -> Iterable[Entry]:
    """The fate of each exposed port, equal neighbours joined; a port that the default denies needs no entry."""
    by_protocol: dict[str, list[Entry]] = {}
    for entry in entries:
        by_protocol.setdefault(entry.protocol, []).append(entry)
    for protocol, ports in numbers.items():
        deciding = by_protocol.get(protocol, [])
        at, last = 0, None
        for port in ports:
            while at < len(deciding) and deciding[at].high < port:
                at += 1
            found = deciding[at] if at < len(deciding) and deciding[at].low <= port else None
            allow, rules = (found.allow, found.rules) if found else (default, ())
            if last and last.high + 1 == port and (last.allow, last.rules) == (allow, rules):
                last = Entry(protocol, last.low, port, allow, rules)
                continue
            if last and (last.allow or last.rules):
                yield last
            last = Entry(protocol, port, port, allow, rules)
        if last and (last.allow or last.rules):
            yield last
