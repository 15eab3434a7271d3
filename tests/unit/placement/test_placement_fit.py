"""Which node fits: rules as tables, the books and the waiting room as properties."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.kinds import PODS
from isoplane.placement.fit import Node, Taint, choose, demand, misfits, node_of, score, selected, tolerates
from isoplane.placement.usage import Usage
from isoplane.placement.waiting import Waiting, rank
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import Workload


def workload(name: str = "web", cpu: str = "500m", memory: str = "1Gi", *, priority: int = 0, **spec: Any) -> Workload:
    adapter = adapter_for(PODS)
    assert adapter is not None
    return adapter.project(
        {
            "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "priority": priority,
                "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": memory}}}],
                **spec,
            },
        }
    )


def node(name: str = "node", cpu: int = 2000, memory: int = 4 << 30, pods: int = 10, **more: Any) -> Node:
    return Node(name, {"cpu": cpu, "memory": memory, "pods": pods}, **more)


@pytest.mark.parametrize(
    ("one", "other", "used", "why"),
    [
        (workload(), node(), {}, ()),
        (workload(cpu="3"), node(), {}, ("Insufficient cpu",)),
        (workload(cpu="3", memory="5Gi"), node(), {}, ("Insufficient cpu", "Insufficient memory")),
        (workload(), node(), {"cpu": 1600}, ("Insufficient cpu",)),
        (workload(), node(), {"cpu": 1500}, ()),
        (workload(), node(), {"pods": 10}, ("Too many pods",)),
        (workload(), node(ready=False), {}, ("node(s) were not ready",)),
        (
            workload(),
            node(taints=(Taint("gpu", "yes", "NoSchedule"),)),
            {},
            ("node(s) had untolerated taint {gpu: yes}",),
        ),
        (workload(), node(taints=(Taint("gpu", "yes", "PreferNoSchedule"),)), {}, ()),
        (
            workload(nodeSelector={"disk": "ssd"}),
            node(),
            {},
            ("node(s) didn't match Pod's node affinity/selector",),
        ),
        (workload(nodeSelector={"disk": "ssd"}), node(labels={"disk": "ssd"}), {}, ()),
        (workload(cpu="0", memory="0"), node(cpu=0, memory=0), {}, ()),
    ],
)
def test_why_not(one: Workload, other: Node, used: dict[str, int], why: tuple[str, ...]) -> None:
    assert misfits(one, other, used) == why


@pytest.mark.parametrize(
    ("toleration", "bears"),
    [
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, False),
        ({"operator": "Exists"}, True),
        ({"key": "cpu", "operator": "Exists"}, False),
        ({}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], bears: bool) -> None:
    assert tolerates((toleration,), Taint("gpu", "yes", "NoSchedule")) is bears


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "rack", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "zone", "operator": "Exists"}, True),
        ({"key": "zone", "operator": "DoesNotExist"}, False),
        ({"key": "size", "operator": "Gt", "values": ["3"]}, True),
        ({"key": "size", "operator": "Lt", "values": ["3"]}, False),
        ({"key": "zone", "operator": "Gt", "values": ["3"]}, False),
        ({"key": "rack", "operator": "Gt", "values": ["3"]}, False),
        ({"key": "zone", "operator": "Near", "values": ["a"]}, False),
    ],
)
def test_node_affinity(expression: dict[str, Any], holds: bool) -> None:
    term = {"matchExpressions": [expression]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    one = workload(affinity={"nodeAffinity": required})
    assert selected(one, node(labels={"zone": "a", "size": "4"})) is holds


def test_terms_are_alternatives_and_an_empty_one_matches_nothing() -> None:
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}, by_name]}}
    assert selected(workload(affinity={"nodeAffinity": required}), node())
    assert not selected(workload(affinity={"nodeAffinity": required}), node("other"))


def test_a_node_as_its_object_tells_it() -> None:
    read = node_of(
        {
            "metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoExecute"}]},
            "status": {
                "allocatable": {"cpu": "1500m", "memory": "1Gi", "pods": "5"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )
    assert read.allocatable == {"cpu": 1500, "memory": 1 << 30, "pods": 5}
    assert [t.key for t in read.taints] == ["k", "node.kubernetes.io/unschedulable"]
    assert read.ready
    assert not node_of({"metadata": {"name": "n"}}).ready
    tolerant = workload(tolerations=[{"operator": "Exists"}])
    assert misfits(tolerant, read, {}) == ()
    cordoned = replace(read, taints=read.taints[1:])
    assert misfits(workload(), cordoned, {}) == ("node(s) were unschedulable",)


def test_the_emptier_node_is_chosen_and_ties_go_by_name() -> None:
    nodes = [node("b"), node("a"), node("c")]
    assert choose(workload(), nodes, {}).node == "a"
    assert choose(workload(), nodes, {"a": {"cpu": 100}}).node == "b"
    assert score(workload(), nodes[0], {"cpu": 1500}) == pytest.approx((0 + 0.75) / 2)


def test_all_reasons_are_counted() -> None:
    nodes = [node("a", cpu=100), node("b", cpu=100), node("c", ready=False)]
    message = choose(workload(), nodes, {}).message
    assert message == "0/3 nodes are available: 2 Insufficient cpu, 1 node(s) were not ready."
    assert choose(workload(), [], {}).message == "no nodes available to schedule pods"


amounts = st.dictionaries(st.sampled_from(["cpu", "memory", "pods"]), st.integers(0, 10), max_size=3)
entries = st.tuples(st.sampled_from("abcde"), st.sampled_from(["", "n1", "n2"]), amounts)


@given(st.lists(entries, max_size=40))
def test_the_sums_are_those_of_who_is_there(steps: list[tuple[str, str, dict[str, int]]]) -> None:
    usage = Usage()
    there: dict[str, tuple[str, dict[str, int]]] = {}
    for uid, where, what in steps:
        if where:
            freed = usage.put(uid, where, what)
            assert freed == (uid in there and there[uid] != (where, what))
            there[uid] = (where, what)
        else:
            assert usage.take(uid) == (there.pop(uid, None) is not None)
    for name in ("n1", "n2"):
        expected: dict[str, int] = {}
        for where, what in there.values():
            if where == name:
                for resource, amount in what.items():
                    expected[resource] = expected.get(resource, 0) + amount
        assert {k: v for k, v in usage.by_node.get(name, {}).items() if v} == {k: v for k, v in expected.items() if v}
    assert len(usage) == len(there)


members = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans()), min_size=1, max_size=30
)  # priority, cpu, is discarded again


@given(members, st.integers(0, 40))
def test_room_goes_to_the_most_important_that_fit(rows: list[tuple[int, int, bool]], room: int) -> None:
    """As trying everybody in order would, though only one of a kind is tried."""
    waiting = Waiting()
    expected: list[Workload] = []
    for number, (priority, cpu, discarded) in enumerate(rows):
        one = workload(f"w{number:02}", cpu=str(cpu), memory="0", priority=priority)
        waiting.add(one)
        if discarded:
            waiting.discard(one.uid)
        else:
            expected.append(one)
    left = room * 1000
    served: list[str] = []
    asked = 0

    def fits(one: Workload) -> bool:
        nonlocal asked
        asked += 1
        return demand(one)["cpu"] <= left

    for one in waiting.drain(fits):
        left -= demand(one)["cpu"]
        served.append(one.uid)
    brute, free = [], room * 1000
    for one in sorted(expected, key=rank):
        if demand(one)["cpu"] <= free:
            free -= demand(one)["cpu"]
            brute.append(one.uid)
    assert served == brute
    assert len(waiting) == len(expected) - len(brute)
    assert asked <= len(served) + 4


def test_a_changed_workload_waits_under_its_new_needs() -> None:
    waiting = Waiting()
    waiting.add(workload("a", cpu="4"))
    assert waiting.same(workload("a", cpu="4"))
    assert not waiting.same(workload("a", cpu="1"))
    waiting.add(workload("a", cpu="1"))
    assert [one.uid for one in waiting.drain(lambda one: demand(one)["cpu"] <= 1000)] == ["a"]
    assert len(waiting) == 0
    waiting.add(workload("a", cpu="1"))
    assert [one.uid for one in waiting.drain(lambda one: True)] == ["a"]
