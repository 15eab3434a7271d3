"""Preemption for a node's capacity: as few and as low as make room, nobody for nothing, guarantees and budgets kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.kinds import PODS
from isoplane.placement.fit import Node
from isoplane.placement.preemption import Guarantees, Nominations, Plan, Running, leave, plan
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Workload

NOTHING = Guarantees()


def workload(cpu: int, priority: int = 100, *, tenant: str = "a", policy: str = "PreemptLowerPriority") -> Workload:
    return PodAdapter().project(
        {
            "apiVersion": "v1",
            "kind": PODS.kind,
            "metadata": {"name": "new", "namespace": tenant, "uid": "new"},
            "spec": {
                "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": f"{cpu}m"}}}],
                "priority": priority,
                "preemptionPolicy": policy,
            },
        }
    )


def node(name: str = "n", cpu: int = 1000, pods: int = 110) -> Node:
    return Node(name, {"cpu": cpu, "pods": pods})


def running(uid: str, cpu: int, priority: int = 0, tenant: str = "a", **more: object) -> Running:
    return replace(Running(uid, tenant, priority, {"cpu": cpu, "pods": 1}), **more)  # type: ignore[arg-type]


def use(running: Mapping[str, Sequence[Running]]) -> dict[str, dict[str, int]]:
    return {
        name: {"cpu": sum(r.demand["cpu"] for r in others), "pods": len(others)} for name, others in running.items()
    }


def decide(
    new: Workload,
    here: Mapping[str, Sequence[Running]],
    nodes: Sequence[Node] = (node(),),
    allowed: Mapping[str, int] | None = None,
    guarantees: Guarantees = NOTHING,
) -> Plan | None:
    return plan(new, nodes, use(here), here, allowed or {}, guarantees)


def uids(found: Plan | None) -> set[str]:
    assert found is not None
    return {victim.uid for victim in found.victims}


def test_the_lowest_leave_and_no_more_than_needed() -> None:
    here = {"n": [running("low", 500, 0), running("mid", 400, 50)]}
    assert uids(decide(workload(500), here)) == {"low"}


def test_equal_priorities_stay() -> None:
    assert decide(workload(500, 50), {"n": [running("same", 1000, 50)]}) is None


def test_nobody_leaves_for_a_workload_that_still_would_not_fit() -> None:
    assert decide(workload(900), {"n": [running("low", 500, 0), running("high", 500, 200)]}) is None
    assert decide(workload(2000), {"n": [running("low", 1000, 0)]}) is None


def test_never_means_never() -> None:
    assert decide(workload(500, policy="Never"), {"n": [running("low", 1000, 0)]}) is None


def test_what_is_leaving_counts_as_room_and_nobody_else_leaves() -> None:
    here = {"n": [running("going", 500, 0, leaving=True), running("low", 500, 0)]}
    assert decide(workload(500), here) == Plan("n")


def test_a_migrating_machine_stays() -> None:
    assert decide(workload(500), {"n": [running("moving", 1000, 0, migrating=True)]}) is None


def test_a_container_goes_before_a_machine_of_the_same_priority() -> None:
    here = {"n": [running("machine", 500, 0, cost=10), running("pod", 500, 0)]}
    assert uids(decide(workload(500), here)) == {"pod"}


def test_of_equals_the_youngest_goes() -> None:
    here = {
        "n": [
            running("old", 500, created="2026-01-01T00:00:00Z"),
            running("young", 500, created="2026-02-01T00:00:00Z"),
        ]
    }
    assert uids(decide(workload(500), here)) == {"young"}


def test_who_exhausts_a_budget_goes_last() -> None:
    here = {"n": [running("guarded", 500, 0, budgets=("a/pdb",)), running("free", 500, 50)]}
    assert uids(decide(workload(500), here, allowed={"a/pdb": 0})) == {"free"}
    assert uids(decide(workload(500), here, allowed={"a/pdb": 1})) == {"guarded"}


def test_a_budget_does_not_hold_a_higher_priority_back() -> None:
    here = {"n": [running("guarded", 1000, 0, budgets=("a/pdb",))]}
    found = decide(workload(500), here, allowed={"a/pdb": 0})
    assert uids(found) == {"guarded"}
    assert found is not None
    assert found.violations == 1


def test_the_node_with_the_cheapest_victims_is_chosen() -> None:
    nodes = (node("a"), node("b"), node("c"))
    here = {
        "a": [running("mid", 1000, 60)],
        "b": [running("b1", 600, 10), running("b2", 400, 10)],
        "c": [running("low", 1000, 10)],
    }
    found = decide(workload(1000), here, nodes)
    assert found is not None
    assert found.node == "c"


def test_a_guarantee_of_another_tenant_stays() -> None:
    here = {"n": [running("theirs", 600, 0, "b"), running("more", 400, 0, "b")]}
    assert decide(workload(600), here, guarantees=Guarantees({"b": {"cpu": 800}}, {"b": {"cpu": 1000}})) is None
    some = Guarantees({"b": {"cpu": 600}}, {"b": {"cpu": 1000}})
    assert uids(decide(workload(400), here, guarantees=some)) == {"more"}


def test_what_lies_mostly_above_a_guarantee_is_taken_when_nothing_else_helps() -> None:
    here = {"n": [running("big", 1000, 0, "b")]}
    assert uids(decide(workload(500), here, guarantees=Guarantees({"b": {"cpu": 100}}, {"b": {"cpu": 1000}}))) == {
        "big"
    }
    assert decide(workload(500), here, guarantees=Guarantees({"b": {"cpu": 600}}, {"b": {"cpu": 1000}})) is None


def test_an_own_guarantee_holds_nobody_back() -> None:
    here = {"n": [running("mine", 1000, 0, "a")]}
    found = decide(workload(500, tenant="a"), here, guarantees=Guarantees({"a": {"cpu": 1000}}, {"a": {"cpu": 1000}}))
    assert uids(found) == {"mine"}


def test_nobody_of_a_lower_priority_is_given_what_a_nominated_workload_waits_for() -> None:
    kept = Nominations()
    kept.put(workload(600, 100), "n")
    lower = replace(workload(600, 50), uid="other")
    higher = replace(workload(600, 200), uid="other")
    assert kept.seen_by(lower, {})["n"]["cpu"] == 600
    assert kept.seen_by(higher, {}) == {}
    assert kept.seen_by(workload(600, 100), {}) == {}, "nobody is kept out by their own nomination"


CPU = st.integers(1, 10).map(lambda tenth: tenth * 100)
SOMEBODY = st.builds(
    lambda number, cpu, priority, tenant, leaving: running(str(number), cpu, priority, tenant, leaving=leaving),
    st.uuids(),
    CPU,
    st.integers(0, 3),
    st.sampled_from(["a", "b"]),
    st.booleans(),
)


def fits(new: Workload, here: Sequence[Running], capacity: int) -> bool:
    return sum(r.demand["cpu"] for r in here) + new.request.get("cpu", 0) <= capacity


@given(st.lists(SOMEBODY, max_size=6), CPU, st.integers(0, 4), st.integers(0, 600))
def test_the_plan_against_every_subset(here: list[Running], cpu: int, priority: int, floor: int) -> None:
    """It fits afterwards; nobody is needless; nobody protected leaves; None only where no legal set makes room."""
    capacity = 1500
    new = workload(cpu, priority)
    taken = sum(r.demand["cpu"] for r in here if r.tenant == "b" and not r.leaving)
    guarantees = Guarantees({"b": {"cpu": floor}}, {"b": {"cpu": taken}})
    found = decide(new, {"n": here}, [node(cpu=capacity)], guarantees=guarantees)
    staying = [r for r in here if not r.leaving]
    if fits(new, staying, capacity):
        assert found == Plan("n")
        return
    possible = [r for r in staying if r.priority < priority]

    def legal(victims: Sequence[Running]) -> bool:
        return taken - sum(v.demand["cpu"] for v in victims if v.tenant == "b") >= min(floor, taken)

    sets = [list(c) for size in range(len(possible) + 1) for c in combinations(possible, size)]
    whole = [s for s in sets if legal(s) and fits(new, [r for r in staying if r not in s], capacity)]
    if found is None:
        # A search by importance may miss a set where guarantees make the order matter; without them it may not.
        own = [s for s in whole if all(v.tenant == "a" for v in s)]
        assert not own
        assert floor or not whole
        return
    victims = list(found.victims)
    assert all(v in possible for v in victims)
    assert fits(new, [r for r in staying if r not in victims], capacity)
    for victim in victims:
        assert not fits(new, [r for r in staying if r not in victims or r is victim], capacity), "needless"


@given(st.lists(SOMEBODY, max_size=6), CPU, st.integers(0, 4))
def test_a_second_attempt_evicts_nobody_else(here: list[Running], cpu: int, priority: int) -> None:
    new = workload(cpu, priority)
    found = decide(new, {"n": here}, [node(cpu=1500)])
    if found is not None:
        assert decide(new, leave({"n": here}, found), [node(cpu=1500)]) == Plan("n")


@given(st.lists(SOMEBODY, max_size=6), st.randoms(use_true_random=False), CPU, st.integers(0, 4))
def test_the_order_of_the_cache_does_not_matter(here: list[Running], random: object, cpu: int, priority: int) -> None:
    new = workload(cpu, priority)
    shuffled = list(here)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (decide(new, {"n": some}, [node(cpu=1500)]) for some in (here, shuffled))
    assert (one is None) == (other is None)
    if one is not None:
        assert uids(one) == uids(other)
