"""The step between two sets of rules allows exactly what both allow."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

import policy_strategies_support as nasty
from isoplane.node.network.closing import meet_tables
from isoplane.node.network.engines.protocol import Connection
from isoplane.node.network.rules import permitting
from isoplane.policy.compile import compile_tables
from isoplane.policy.model import Cluster
from isoplane.policy.table import Tables


@settings(max_examples=40)
@given(nasty.clusters(), nasty.clusters())
def test_between_two_revisions_only_what_both_allow_passes(one: Cluster, two: Cluster) -> None:
    two = replace(two, endpoints=one.endpoints)
    before, after = compile_tables(one), compile_tables(two)
    between = meet_tables(before, after)
    old, met, new = (permitting(tables, nasty.NODE_IPS) for tables in (before, between, after))
    for question in _questions(one):
        assert met(question) is (old(question) and new(question)), question


@settings(max_examples=20)
@given(nasty.clusters())
def test_nothing_changes_between_a_revision_and_itself(cluster: Cluster) -> None:
    tables = compile_tables(cluster)
    assert meet_tables(tables, tables) == tables


def test_who_is_new_waits() -> None:
    assert meet_tables(Tables(), Tables()) == Tables()


def _questions(cluster: Cluster) -> list[Connection]:
    own = [ip for endpoint in cluster.endpoints if endpoint.governed for ip in endpoint.ips]
    everyone = [*own, *nasty.OUTSIDE, *nasty.NODE_IPS]
    kinds = [("TCP", port) for port in (52, 53, 80, 82)] + [("UDP", 53), ("SCTP", 80), ("1", 0)]
    return [
        Connection(protocol, source, 40000, target, port)
        for source in everyone
        for target in everyone
        if (":" in source) is (":" in target) and (source in own or target in own)
        for protocol, port in kinds
    ]
