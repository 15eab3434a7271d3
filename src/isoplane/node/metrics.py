"""What a node tells of its NetworkPolicy enforcement at a scrape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from isoplane.objects.exposition import Family, Sample, counter, gauge

RULE_HITS = "isoplane_network_policy_rule_hits_total"

if TYPE_CHECKING:
    # Not at run time: a plane without real networks need not load the enforcer.
    from isoplane.node.network.enforcer import EnforcementStatus
    from isoplane.policy.hits import RuleHits


def hit_families(rules: Sequence[RuleHits], left_out: int) -> Iterator[Family]:
    """One sample for each rule and engine, those that were never hit too."""
    yield Family(
        RULE_HITS,
        "counter",
        "Connections of which a policy's rule decided; each engine that one crosses counts it.",
        [
            Sample({"policy": one.policy, "rule": one.rule, "direction": one.direction, "engine": engine}, count)
            for one in rules
            for engine, count in one.hits.items()
        ],
    )
    yield gauge("isoplane_network_policy_rules_left_out", "Rules beyond those whose hits are told.", left_out)


def enforcement_families(status: EnforcementStatus | None, now: float) -> Iterator[Family]:
    """``now`` on the event loop's clock, as in the status. Without a status (nothing enforces) there is nothing to tell."""
    if status is None:
        return
    loaded = status.loaded_at is not None
    yield Family(
        "isoplane_network_policy_revision_info",
        "gauge",
        "The revision of the rules that guard this node, as a label.",
        [Sample({"revision": status.revision}, 1)] if loaded else [],
    )
    yield Family(
        "isoplane_network_policy_revision_age_seconds",
        "gauge",
        "How long ago that revision was loaded on every engine.",
        [Sample({}, max(0.0, now - status.loaded_at))] if status.loaded_at is not None else [],
    )
    yield counter(
        "isoplane_network_policy_drifts_total", "Times that rules were changed by others and put back.", status.drifts
    )
    yield counter(
        "isoplane_network_policy_cut_connections_total", "Connections cut because a change forbade them.", status.cut
    )
    yield Family(
        "isoplane_network_policy_failing",
        "gauge",
        "1 for each engine that does not have the wanted rules (compile: there are none to have).",
        [Sample({"engine": engine}, 1) for engine in sorted(status.failures)],
    )
    yield gauge(
        "isoplane_network_policy_failures", "How many engines do not have the wanted rules.", len(status.failures)
    )
