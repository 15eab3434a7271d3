"""The victim search against two others: remove everyone and reprieve, and every subset there is."""

from __future__ import annotations

import os
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from quota_world_support import ask, ledger

from isoplane.quota.decide import decide
from isoplane.quota.ledger import Ledger
from isoplane.quota.model import Ask, Charge, Quota, Wait

CASES = 10_000 if os.environ.get("CI") else 500
RESOURCES = ("requests.cpu", "requests.memory", "pods")

workloads = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 4), st.integers(1, 2), st.integers(0, 3)), max_size=9
)


def build(rows: list[tuple[int, ...]], slack: tuple[int, int, int]) -> Ledger:
    """Workloads (priority, cpu, memory, cost, created) at a quota with that much room left."""
    used = (sum(r[1] for r in rows), sum(r[2] for r in rows), len(rows))
    state = ledger({name: u + s for name, u, s in zip(RESOURCES, used, slack, strict=True)}, threshold=0)
    for i, (priority, cpu, mem, cost, created) in enumerate(rows):
        amounts = dict(zip(RESOURCES, (cpu, mem, 1), strict=True))
        state.add(Charge(f"v{i}", f"pod/a/v{i}", "a", amounts, priority, cost=cost, created=created))
    return state


def room(state: Ledger, asked: Ask, gone: set[str]) -> bool:
    """Plain arithmetic, from nothing but the charges and the limits."""
    (quota,) = state.quotas("a")
    for resource, limit in quota.hard.items():
        need = asked.charge.amounts.get(resource, 0)
        taken = sum(c.amounts[resource] for c in state.charges("a") if c.uid not in gone)
        if need > 0 and taken + need > limit:
            return False
    return True


def reprieve(state: Ledger, asked: Ask) -> set[str] | None:
    """The other search: everybody of lower priority goes; then, the most deserving first, whoever may stay stays."""
    lower = [c for c in state.charges("a") if c.priority < asked.charge.priority]
    lower.sort(key=lambda c: (c.priority, c.cost, -c.created, c.uid))
    gone = {c.uid for c in lower}
    if not room(state, asked, gone):
        return None
    for charge in reversed(lower):
        if room(state, asked, gone - {charge.uid}):
            gone.discard(charge.uid)
    return gone


@settings(max_examples=CASES)
@given(workloads, st.tuples(*[st.integers(0, 2)] * 3), st.integers(1, 6), st.integers(0, 8), st.integers(0, 8))
def test_both_searches_choose_the_same(rows: list, slack: tuple, priority: int, cpu: int, mem: int) -> None:
    state = build(rows, slack)
    asked = ask("w", priority=priority, cpu=cpu, mem=mem, pods=1)
    decision = decide(state, asked, 0)
    expected = reprieve(state, asked)
    if room(state, asked, set()):
        assert decision.rule == "fits"
    elif expected is None:
        assert decision.rule == "exceeded"
    else:
        assert isinstance(decision, Wait)
        assert {v.charge.uid for v in decision.victims} == expected


@settings(max_examples=CASES // 4)
@given(workloads, st.tuples(*[st.integers(0, 2)] * 3), st.integers(1, 6), st.integers(0, 8), st.integers(0, 8))
def test_against_every_subset(rows: list, slack: tuple, priority: int, cpu: int, mem: int) -> None:
    """A plan exists exactly when some subset would do; nobody in it is superfluous; one resource alone stays within the optimum's
    highest priority: nobody more important leaves than had to."""
    state = build(rows, slack)
    asked = ask("w", priority=priority, cpu=cpu, mem=mem, pods=1)
    lower = {c.uid: c for c in state.charges("a") if c.priority < priority}
    sets = [set(s) for n in range(len(lower) + 1) for s in combinations(lower, n) if room(state, asked, set(s))]
    decision = decide(state, asked, 0)
    if not sets:
        assert decision.rule == "exceeded"
        return
    chosen = {v.charge.uid for v in decision.victims} if isinstance(decision, Wait) else set()
    assert chosen in sets
    assert not any(chosen - {uid} in sets for uid in chosen)
    if chosen:
        top = min(max((lower[uid].priority for uid in s), default=-1) for s in sets)
        assert max(lower[uid].priority for uid in chosen) == top, "nobody more important leaves than had to"


@given(workloads, st.integers(1, 6), st.integers(0, 6))
def test_several_quotas_are_cured_at_once(rows: list, priority: int, cpu: int) -> None:
    state = build(rows, (0, 0, 0))
    (quota,) = state.quotas("a")
    state.set_quotas(
        "a", [Quota("cpu", {"requests.cpu": quota.hard["requests.cpu"]}), Quota("pods", {"pods": len(rows)})]
    )
    decision = decide(state, ask("w", priority=priority, cpu=cpu, pods=1), 0)
    if isinstance(decision, Wait):
        assert len({v.charge.uid for v in decision.victims}) >= 1
        assert sum(v.charge.amounts["requests.cpu"] for v in decision.victims) >= cpu
