"""How often each rule decided, summed up from the engines' counters over every time that those begin anew.

Pure: it is given what was read.  A counter that is smaller than before was made anew with its rules, and counts from there.
What was counted after the last reading and before that is lost: some seconds at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from isoplane.policy.model import Cluster
from isoplane.policy.rules import DIRECTIONS, ClusterPolicy, Policy
from isoplane.policy.table import Tables

Site = tuple[str, str]
Rules = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """What the counters of one engine stand for. ``without``: rules that it cannot tell apart, and so does not count."""

    sites: Mapping[Site, Rules] = field(default_factory=dict)
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RuleHits:
    """One rule. ``hits``: engine → how often it decided there; engines that do not count it are left out."""

    policy: str
    rule: str
    direction: str
    hits: Mapping[str, int]

    @property
    def never(self) -> bool:
        """Whether every engine counts it and none has seen it."""
        return not any(self.hits.values()) and bool(self.hits)


def unloaded(tables: Tables) -> frozenset[str]:
    """Rules that decide for workloads to which nothing is ever denied: no engine loads them there, so none counts them."""
    directions = {d.key: d for e in tables.endpoints.values() for d in (e.ingress, e.egress) if d.open}
    return frozenset(rule for d in directions.values() for c in d.classes for e in c.entries for rule in e.rules)


class Hits:
    """The sums of one node since it began to count."""

    def __init__(self) -> None:
        self._last: dict[str, dict[Site, int]] = {}
        self._sums: dict[str, dict[str, int]] = {}
        self._without: dict[str, frozenset[str]] = {}

    def add(self, engine: str, counts: Mapping[Site, int], counted: Counted) -> None:
        """One reading of one engine's counters. A packet that two rules let pass is a hit of both."""
        last, sums = self._last.get(engine, {}), self._sums.setdefault(engine, {})
        now: dict[Site, int] = {}
        for site, count in counts.items():
            rules = counted.sites.get(site)
            if rules is None:
                continue
            now[site], before = count, last.get(site, 0)
            grown = count - before if count >= before else count
            for rule in rules if grown else ():
                sums[rule] = sums.get(rule, 0) + grown
        self._last[engine], self._without[engine] = now, counted.without

    def told(self, cluster: Cluster, most: int) -> tuple[list[RuleHits], int]:
        """Every rule of every policy, hit or not, in order of policy, up to so many; and how many more there are."""
        every = _rules(cluster)
        return list(self._told(islice(every, most))), sum(1 for _ in every)

    def _told(self, rules: Iterable[tuple[str, str, str]]) -> Iterator[RuleHits]:
        for policy, direction, rule in rules:
            hits = {
                engine: sums.get(rule, 0)
                for engine, sums in sorted(self._sums.items())
                if rule not in self._without[engine]
            }
            yield RuleHits(policy, rule, direction, hits)

    def forget(self, cluster: Cluster) -> None:
        """Drop the sums of rules that are in no policy any more; one of the same name later begins at nothing."""
        living = {rule for _, _, rule in _rules(cluster)}
        for engine, sums in self._sums.items():
            self._sums[engine] = {rule: hits for rule, hits in sums.items() if rule in living}


def _rules(cluster: Cluster) -> Iterator[tuple[str, str, str]]:
    """(policy, direction, rule) of all, by their ids."""
    policies: tuple[ClusterPolicy | Policy, ...] = (*cluster.cluster_policies, *cluster.policies)
    for policy in policies:
        for direction in DIRECTIONS:
            for rule in policy.rules(direction) or ():
                yield policy.id, direction, rule.id
