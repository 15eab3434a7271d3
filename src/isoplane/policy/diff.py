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
from isoplane.policy.rules import MAX_PORT, OTHER
from isoplane.policy.universe import blocks_of, positions_of

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


def diff(old: Cluster, new: Cluster) -> Diff:
    """Compare two snapshots pair by pair and port by port."""
    blocks = [*blocks_of(old), *blocks_of(new)]
    before, after = Reach(old, outside=True, blocks=blocks), Reach(new, outside=True, blocks=blocks)
    names = [[_key(reach, i) for i in range(len(reach.parties))] for reach in (before, after)]
    found: dict[tuple[str, str, str, str], list[tuple[int, int]]] = {}
    for protocol, low, high in pieces_of((old, new)):
        matrices = before.matrix(protocol, low), after.matrix(protocol, low)
        for change, source, destination in _changes(before, names, matrices):
            spans = found.setdefault((change, source, destination, protocol), [])
            if spans and spans[-1][1] + 1 == low:
                spans[-1] = (spans[-1][0], high)
            else:
                spans.append((low, high))
    differences = [Difference(*key, low, high) for key, spans in found.items() for low, high in spans]
    order = sorted(differences, key=lambda d: (d.change != OPENED, d.source, d.destination, d.protocol, d.low))
    old_names, new_names = ({n for n in side if not n.startswith("ip:")} for side in names)
    return Diff(tuple(order), tuple(sorted(new_names - old_names)), tuple(sorted(old_names - new_names)))


def _key(reach: Reach, position: int) -> str:
    """What the same party is called on both sides, whatever is ambiguous on one of them."""
    someone = reach.parties[position]
    return someone.endpoint.id if someone.endpoint else someone.name


def _changes(
    before: Reach, names: list[list[str]], matrices: tuple[list[int], list[int]]
) -> Iterator[tuple[str, str, str]]:
    old_names, new_names = names
    there = {name: i for i, name in enumerate(new_names)}
    same = old_names == new_names
    for i, source in enumerate(old_names):
        j = there.get(source)
        if j is None:
            continue
        was, now = matrices[0][i], matrices[1][j]
        if not same:
            now = _moved(now, new_names, old_names)
            was &= sum(1 << k for k, name in enumerate(old_names) if name in there)
        inside = before.parties[i].endpoint is not None
        for bits, change in ((now & ~was, OPENED), (was & ~now, CLOSED)):
            for k in positions_of(bits):
                if inside or before.parties[k].endpoint is not None:
                    yield change, source, old_names[k]


def _moved(bits: int, here: list[str], there: Iterable[str]) -> int:
    """A set of positions by one side's order, in the other side's."""
    members = {here[position] for position in positions_of(bits)}
    return sum(1 << k for k, name in enumerate(there) if name in members)
