"""What a change of manifests opens and closes: for code review, so exact over every port and every kind of address.

The port space is cut where either side makes a difference, and the outside world is represented by one address for
each prefix that either side mentions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from isoplane.policy.model import Cluster
from isoplane.policy.reach import Reach, pieces_of
from isoplane.policy.rules import MAX_PORT, OTHER, PortMatch
from isoplane.policy.universe import bits_of, blocks_of, positions_of

OPENED, CLOSED = "opened", "closed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A pair and the ports ``low``..``high`` of a protocol that are opened or closed."""

    change: str
    source: str
    destination: str
    protocol: str
    low: int
    high: int

    @property
    def ports(self) -> str:
        if self.protocol == OTHER or (self.low, self.high) == (0, MAX_PORT):
            return "all"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "change": self.change,
            "from": self.source,
            "to": self.destination,
            "protocol": self.protocol,
            "ports": self.ports,
        }


@dataclass(frozen=True, slots=True)
class Diff:
    """``differences`` between parties that exist on both sides; workloads of one side only are named apart."""

    differences: tuple[Difference, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            OPENED: [d.to_dict() for d in self.differences if d.change == OPENED],
            CLOSED: [d.to_dict() for d in self.differences if d.change == CLOSED],
            "added": list(self.added),
            "removed": list(self.removed),
        }


def diff(old: Cluster, new: Cluster, within: Iterable[PortMatch] | None = None) -> Diff:
    """Compare two snapshots pair by pair and port by port; ``within`` are the only ports on which they can differ."""
    blocks = [*blocks_of(old), *blocks_of(new)]
    before, after = Reach(old, outside=True, blocks=blocks), Reach(new, outside=True, blocks=blocks)
    names = [[_key(reach, i) for i in range(len(reach.parties))] for reach in (before, after)]
    pairing = _Pairing(before, after, *names)
    found: dict[tuple[str, str, str, str], list[tuple[int, int]]] = {}
    for protocol, low, high in _pieces(old, new, within):
        for change, source, destination in pairing.changes(before.lines(protocol, low), after.lines(protocol, low)):
            spans = found.setdefault((change, source, destination, protocol), [])
            if spans and spans[-1][1] + 1 == low:
                spans[-1] = (spans[-1][0], high)
            else:
                spans.append((low, high))
    differences = [Difference(*key, low, high) for key, spans in found.items() for low, high in spans]
    order = sorted(differences, key=lambda d: (d.change != OPENED, d.source, d.destination, d.protocol, d.low))
    old_names, new_names = ({n for n in side if not n.startswith("ip:")} for side in names)
    return Diff(tuple(order), tuple(sorted(new_names - old_names)), tuple(sorted(old_names - new_names)))


def _pieces(old: Cluster, new: Cluster, within: Iterable[PortMatch] | None) -> Iterator[tuple[str, int, int]]:
    listed = None if within is None else list(within)
    for protocol, low, high in pieces_of((old, new)):
        if listed is None or any(
            m.protocol in ("", protocol) and (m.name or (m.low <= high and low <= m.high)) for m in listed
        ):
            yield protocol, low, high


def _key(reach: Reach, position: int) -> str:
    """What the same party is called on both sides, whatever is ambiguous on one of them."""
    someone = reach.parties[position]
    return someone.endpoint.id if someone.endpoint else someone.name


Lines = tuple[list[int], list[int]]
"""Reach.lines: whom each workload reaches, and who may come in."""


class _Pairing:
    """The parties that both sides know, though they may stand in another order on each."""

    def __init__(self, before: Reach, after: Reach, old_names: list[str], new_names: list[str]) -> None:
        self._names = old_names
        self._inside = before.inside
        self._same = old_names == new_names and before.inside == after.inside
        there = {name: i for i, name in enumerate(new_names)}
        here = {name: i for i, name in enumerate(old_names)}
        self._new_position = [there.get(name) for name in old_names]
        self._old_position = [here.get(name) for name in new_names]
        self._shared = bits_of(i for i, position in enumerate(self._new_position) if position is not None)
        self._outside = self._shared >> before.inside << before.inside

    def changes(self, old: Lines, new: Lines) -> Iterator[tuple[str, str, str]]:
        """(change, source, destination) of one piece of the port space."""
        for i in range(self._inside):
            j = self._new_position[i]
            if j is None:
                continue
            for change, bits in self._compare(old[0][i], new[0][j], self._shared):
                for k in positions_of(bits):
                    yield change, self._names[i], self._names[k]
            for change, bits in self._compare(old[1][i], new[1][j], self._outside):
                for k in positions_of(bits):
                    yield change, self._names[k], self._names[i]

    def _compare(self, was: int, now: int, among: int) -> tuple[tuple[str, int], tuple[str, int]]:
        if not self._same:
            moved = (self._old_position[position] for position in positions_of(now))
            now = bits_of([position for position in moved if position is not None])
        return (OPENED, now & ~was & among), (CLOSED, was & ~now & among)
