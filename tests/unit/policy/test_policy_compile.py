"""The table says what the reference says, for every packet class of small and nasty clusters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from isoplane.policy.compile import compile_tables
from isoplane.policy.model import Cluster
from isoplane.policy.rules import DIRECTIONS
from isoplane.policy.verdict import judge
from policy_strategies_support import by_tables, clusters, nasty, packets, scaled


@given(nasty())
@settings(max_examples=scaled(35))
def test_table_equals_reference(cluster: Cluster) -> None:
    tables = compile_tables(cluster)
    for family in (4, 6):
        for connection in packets(cluster, family):
            verdict = judge(cluster, connection)
            for direction in DIRECTIONS:
                side = verdict.side(direction)
                answer = by_tables(tables, connection, direction)
                if answer is None:
                    assert side.allowed, (connection, direction, side)
                    continue
                allowed, rules = answer
                assert allowed == side.allowed, (connection, direction, side)
                assert set(rules) == set(side.rules), (connection, direction, side)


@given(clusters())
@settings(max_examples=scaled(12))
def test_table_is_canonical(cluster: Cluster) -> None:
    """Deterministic, disjoint, sorted, and nothing repeated."""
    tables = compile_tables(cluster)
    assert compile_tables(cluster).revision == tables.revision
    for endpoint in tables.endpoints.values():
        for table in (endpoint.ingress, endpoint.egress):
            for routes in (table.v4, table.v6):
                assert list(routes) == sorted(routes)
                assert len({r[:2] for r in routes}) == len(routes)
            assert len({c.key for c in table.classes}) == len(table.classes)
            for peer_class in table.classes:
                for one, other in zip(peer_class.entries, peer_class.entries[1:], strict=False):
                    assert one.protocol != other.protocol or one.high < other.low


def test_endpoints_under_the_same_policies_share_one_table() -> None:
    from isoplane.policy.model import Endpoint, cluster
    from isoplane.policy.parse import network_policy

    policy = network_policy(
        {
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]},
        }
    )
    endpoints = [Endpoint("pod", "a", f"p{n}", {"n": str(n)}, (f"10.0.0.{n}",)) for n in range(1, 9)]
    tables = compile_tables(cluster(endpoints, policies=[policy]))
    assert len({id(e.ingress) for e in tables.endpoints.values()}) == 1


@pytest.mark.parametrize("labels", [{}, {"app": "x"}])
def test_revision_follows_what_is_enforced(labels: dict[str, str]) -> None:
    from isoplane.policy.model import Endpoint, cluster
    from isoplane.policy.parse import network_policy

    policy = network_policy(
        {
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "x"}}}]}]},
        }
    )
    one = Endpoint("pod", "a", "one", {"other": "label"}, ("10.0.0.1",))
    before = compile_tables(cluster([one, Endpoint("pod", "a", "two", {}, ("10.0.0.2",))], policies=[policy]))
    after = compile_tables(cluster([one, Endpoint("pod", "a", "two", labels, ("10.0.0.2",))], policies=[policy]))
    assert (before.revision == after.revision) is (labels == {})
