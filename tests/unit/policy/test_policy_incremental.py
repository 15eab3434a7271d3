"""Tables that follow changes are the tables of a fresh compile, after any sequence of changes."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoplane.policy.clusterpolicy import cluster_network_policy
from isoplane.policy.compile import compile_tables
from isoplane.policy.incremental import MANY, LiveTables
from isoplane.policy.model import Cluster, Endpoint, Node, cluster
from isoplane.policy.parse import network_policy
from policy_strategies_support import (
    NODE_IPS,
    SPACES,
    cluster_policies,
    clusters,
    endpoints,
    labels,
    nasty,
    policies,
    scaled,
)


def _same(live: LiveTables, snapshot: Cluster) -> None:
    fresh, tables = compile_tables(snapshot), live.tables()
    assert dict(tables.endpoints) == dict(fresh.endpoints)
    assert list(tables.endpoints) == list(fresh.endpoints)
    assert tables.revision == fresh.revision


@given(st.lists(nasty(), min_size=2, max_size=4))
@settings(max_examples=scaled(20))
def test_update_to_any_other_cluster(snapshots: list[Cluster]) -> None:
    live = LiveTables(snapshots[0])
    _same(live, snapshots[0])
    for snapshot in snapshots[1:]:
        live.update(snapshot)
        _same(live, snapshot)


@given(clusters(), st.data())
@settings(max_examples=scaled(25))
def test_single_changes(start: Cluster, data: st.DataObject) -> None:
    live = LiveTables(start)
    pods = {e.id: e for e in start.endpoints}
    spaces = dict(start.namespaces)
    narrow = {p.id: p for p in start.policies}
    wide = {p.id: p for p in start.cluster_policies}
    nodes = start.nodes
    kinds = st.sampled_from(("pod", "label", "unpod", "policy", "unpolicy", "wide", "unwide", "space", "nodes"))
    for kind in data.draw(st.lists(kinds, min_size=1, max_size=8)):
        if kind == "pod":
            made = data.draw(endpoints(data.draw(st.integers(0, 5))))
            for other in [e for e in pods.values() if e.name == made.name and e.id != made.id]:
                live.remove_endpoint(other.id)
                del pods[other.id]
            pods[made.id] = made
            live.set_endpoint(made)
        elif kind == "label" and pods:
            old = pods[data.draw(st.sampled_from(sorted(pods)))]
            pods[old.id] = replace(old, labels=data.draw(labels()))
            live.set_endpoint(pods[old.id])
        elif kind == "unpod" and pods:
            id_ = data.draw(st.sampled_from(sorted(pods)))
            del pods[id_]
            live.remove_endpoint(id_)
        elif kind == "policy":
            policy = network_policy(data.draw(policies(f"p{data.draw(st.integers(0, 4))}")))
            narrow[policy.id] = policy
            live.set_policy(policy)
        elif kind == "unpolicy" and narrow:
            id_ = data.draw(st.sampled_from(sorted(narrow)))
            del narrow[id_]
            live.remove_policy(id_)
        elif kind == "wide":
            broad = cluster_network_policy(data.draw(cluster_policies(f"c{data.draw(st.integers(0, 2))}")))
            wide[broad.id] = broad
            live.set_cluster_policy(broad)
        elif kind == "unwide" and wide:
            id_ = data.draw(st.sampled_from(sorted(wide)))
            del wide[id_]
            live.remove_cluster_policy(id_)
        elif kind == "space":
            name = data.draw(st.sampled_from(SPACES))
            spaces[name] = data.draw(labels())
            live.set_namespace(name, spaces[name])
        elif kind == "nodes":
            nodes = data.draw(st.sampled_from(((), (Node("n1", NODE_IPS),), (Node("n1", NODE_IPS[:1]),))))
            live.set_nodes(nodes)
        if data.draw(st.booleans()):
            _same(live, cluster(pods.values(), spaces, narrow.values(), wide.values(), nodes))
    _same(live, cluster(pods.values(), spaces, narrow.values(), wide.values(), nodes))


def test_what_a_change_does_not_concern_is_shared() -> None:
    spec = {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "x"}}}]}]}
    found = [network_policy({"metadata": {"name": "p", "namespace": space}, "spec": spec}) for space in SPACES]
    pods = [Endpoint("pod", space, "w", {"app": "x"}, (f"10.0.0.{n}",)) for n, space in enumerate(SPACES, 1)]
    live = LiveTables(cluster(pods, {}, found))
    before = live.tables()
    live.set_endpoint(replace(pods[0], labels={}))
    after = live.tables()
    assert after.endpoints["pod/a/w"] != before.endpoints["pod/a/w"]
    assert after.endpoints["pod/b/w"] is before.endpoints["pod/b/w"]
    assert before.endpoints["pod/a/w"].ingress.v4


def test_one_address_for_two_is_told_until_it_is_mended() -> None:
    one, two = (Endpoint("pod", "a", name, {}, ("10.0.0.1",)) for name in ("one", "two"))
    live = LiveTables(cluster([one]))
    live.set_endpoint(two)
    with pytest.raises(ValueError, match=r"pod/a/one and pod/a/two both have the address 10\.0\.0\.1"):
        live.tables()
    live.remove_endpoint(one.id)
    assert list(live.tables().endpoints) == [two.id]


def test_a_loaded_cluster_is_not_walked_by_the_collector_again() -> None:
    pods = [
        Endpoint("pod", "a", f"p{n}", {"n": str(n)}, (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",)) for n in range(MANY)
    ]
    live = LiveTables(cluster(pods))
    before = gc.get_freeze_count()
    try:
        assert len(live.tables().endpoints) == MANY
        frozen = gc.get_freeze_count()
        assert frozen - before >= MANY
        live.set_endpoint(replace(pods[0], labels={"n": "other"}))
        live.tables()
        assert gc.get_freeze_count() <= frozen, "a change is not a load"
    finally:
        gc.unfreeze()
