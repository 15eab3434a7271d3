"""The decision, case by case, in the order of its steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from quota_world_support import ask, charge, ledger

from isoplane.quota.accounts import MAX_PASSED
from isoplane.quota.decide import decide
from isoplane.quota.explain import data, refusal, shortage, text, waits_for, would_evict
from isoplane.quota.ledger import Ledger
from isoplane.quota.model import Admit, Ask, Budget, Cohort, Deny, Policy, Quota, ScopeTerm, Wait
from isoplane.quota.release import release

HARD = {"requests.cpu": 1000, "pods": 10}


def names(decision: object) -> list[str]:
    assert isinstance(decision, Wait), decision
    return [victim.charge.uid for victim in decision.victims]


def test_it_fits() -> None:
    assert isinstance(decide(ledger(HARD), ask("w", cpu=1000, pods=1), 0), Admit)


def test_a_namespace_without_quota_admits() -> None:
    assert isinstance(decide(Ledger(), ask("w", cpu=10**9), 0), Admit)


def test_refusal_reads_like_kubernetes() -> None:
    state = ledger({**HARD, "requests.memory": 2**30})
    state.add(charge("x", cpu=600, mem=2**30, pods=1))
    decision = decide(state, ask("w", cpu=500, mem=2**20, pods=1), 0)
    assert isinstance(decision, Deny)
    assert refusal(decision) == (
        "exceeded quota: q, requested: requests.cpu=500m,requests.memory=1Mi, "
        "used: requests.cpu=600m,requests.memory=1Gi, limited: requests.cpu=1,requests.memory=1Gi"
    )


def test_every_short_quota_is_named() -> None:
    state = Ledger()
    state.set_quotas("a", [Quota("x", {"pods": 0}), Quota("y", {"requests.cpu": 1})])
    decision = decide(state, ask("w", cpu=2, pods=1), 0)
    assert isinstance(decision, Deny)
    assert shortage(decision.lines).startswith(
        "exceeded quota: x, requested: pods=1, used: pods=0, limited: pods=0; exceeded quota: y"
    )
    assert "it can never fit" in refusal(decision)


def test_deciding_twice_charges_once() -> None:
    state = ledger(HARD)
    asked = ask("w", cpu=1000)
    state.add(asked.charge)
    assert decide(state, asked, 0).rule == "already-charged"
    state.add(asked.charge)
    assert state.totals("a", "q").used["requests.cpu"] == 1000


def test_a_quota_insists_on_compute_that_is_left_open() -> None:
    state = Ledger()
    state.set_quotas("a", [Quota("q", {"cpu": 1000, "limits.memory": 1, "pods": 5})])
    open_ = {"requests.cpu": ("web", "x"), "limits.memory": ("web",), "limits.cpu": ("web",)}
    decision = decide(state, Ask(charge("w", pods=1), unspecified=open_), 0)
    assert isinstance(decision, Deny)
    assert refusal(decision) == (
        "failed quota: q: must specify cpu for: web,x; limits.memory for: web; "
        "state them, or have a LimitRange of the namespace set defaults for containers"
    )


@pytest.mark.parametrize("threshold", [None, 100])
def test_nobody_leaves_for_a_priority_that_is_not_above_the_threshold(threshold: int | None) -> None:
    state = ledger(HARD, threshold)
    state.add(charge("low", priority=1, cpu=1000))
    assert isinstance(decide(state, ask("w", priority=100, cpu=500), 0), Deny)


def test_the_lowest_leaves_and_only_as_many_as_needed() -> None:
    state = ledger(HARD, 100)
    for i in range(5):
        state.add(charge(f"p{i}", priority=i, cpu=200))
    decision = decide(state, ask("w", priority=101, cpu=300), 0)
    assert names(decision) == ["p0", "p1"]
    assert isinstance(decision, Wait)
    assert "waits until pod/a/p0, pod/a/p1 leave; room is held for it" in waits_for(decision, charge("p2"))
    assert would_evict(decision, "a") == "would evict pod/a/p0 (priority 0), pod/a/p1 (priority 1)"


def test_one_that_suffices_spares_the_small_ones_before_it() -> None:
    state = ledger(HARD, 0)
    state.add(charge("small", priority=1, cpu=100))
    state.add(charge("large", priority=2, cpu=900))
    assert names(decide(state, ask("w", priority=10, cpu=900), 0)) == ["large"]


def test_equal_priority_stays() -> None:
    state = ledger(HARD, 0)
    state.add(charge("same", priority=10, cpu=1000))
    decision = decide(state, ask("w", priority=10, cpu=1), 0)
    assert isinstance(decision, Deny)
    assert "its priority 10 is not below 10" in refusal(decision)


def test_nobody_leaves_when_that_would_not_make_room() -> None:
    state = ledger({**HARD, "requests.memory": 10}, 0)
    state.add(charge("low", priority=1, cpu=1000))
    state.add(charge("high", priority=99, mem=10))
    # Taking "low" would free the cpu, and memory would still be short.
    assert isinstance(decide(state, ask("w", priority=50, cpu=500, mem=1), 0), Deny)


def test_cheap_before_dear_then_newest_then_uid() -> None:
    state = ledger(HARD, 0)
    for c in (
        replace(charge("vm", cpu=250), cost=10, created=9),
        replace(charge("old", cpu=250), created=1),
        replace(charge("new-b", cpu=250), created=5),
        replace(charge("new-a", cpu=250), created=5),
    ):
        state.add(c)
    assert names(decide(state, ask("w", priority=1, cpu=600), 0)) == ["new-a", "new-b", "old"]


@pytest.mark.parametrize(
    ("policy", "change", "fields"),
    [
        ({"min_run": 60}, {"since": 50.0}, {}),
        ({}, {"migrating": True}, {}),
        ({}, {}, {"preempts": False}),
        ({}, {}, {"may_evict": False}),
    ],
)
def test_who_is_nobodys_victim(policy: dict, change: dict, fields: dict) -> None:
    state = ledger(HARD, 0, **policy)
    state.add(replace(charge("low", cpu=1000), **change))
    decision = decide(state, ask("w", priority=9, cpu=1, fields=fields), 100)
    assert isinstance(decision, Deny)


def test_minimum_run_time_ends() -> None:
    state = ledger(HARD, 0, min_run=60)
    state.add(replace(charge("low", cpu=1000), since=50))
    assert names(decide(state, ask("w", priority=9, cpu=1), 110)) == ["low"]


def test_what_is_leaving_already_is_credited_and_nobody_else_leaves() -> None:
    state = ledger(HARD, 0)
    state.add(replace(charge("leaving", priority=99, cpu=500), evicting=True))
    state.add(charge("low", cpu=500))
    decision = decide(state, ask("w", priority=9, cpu=500), 0)
    assert isinstance(decision, Wait)
    assert decision.held
    assert not decision.victims


def test_a_hold_is_not_stolen_and_ends_converted() -> None:
    state = ledger(HARD, 0)
    state.add(charge("low", cpu=1000))
    first = ask("first", priority=9, cpu=600)
    state.commit(first, decide(state, first, 0), 0)  # type: ignore[arg-type]
    # The victim is created again, and others come, before and after it is gone: all of them find the room taken.
    assert isinstance(decide(state, ask("again", cpu=1000, fields={"owned": True}), 0), Wait)
    state.remove("a", "low")
    assert isinstance(decide(state, ask("thief", priority=8, cpu=500, pods=1), 0), Deny)
    assert isinstance(decide(state, ask("small", cpu=400, pods=1), 0), Admit)
    assert [w.charge.uid for w in release(state, "a", 0)] == ["first"]
    totals = state.totals("a", "q")
    assert (totals.used["requests.cpu"], totals.held["requests.cpu"]) == (600, 0)


def test_a_higher_priority_takes_a_hold_over() -> None:
    state = ledger(HARD, 0)
    state.add(charge("low", cpu=1000))
    first = ask("first", priority=5, cpu=1000)
    state.commit(first, decide(state, first, 0), 0)  # type: ignore[arg-type]
    second = ask("second", priority=9, cpu=1000)
    decision = decide(state, second, 0)
    assert isinstance(decision, Wait)
    assert decision.bumped == ("first",)
    assert not decision.victims
    state.commit(second, decision, 0)
    state.remove("a", "low")
    assert [w.charge.uid for w in release(state, "a", 0)] == ["second"]
    assert state.waiter("a", "first") is not None


def test_the_first_in_line_is_passed_a_bounded_number_of_times() -> None:
    state = ledger({"requests.cpu": 1000})
    state.add(charge("old", cpu=500))
    big = ask("big", cpu=800, fields={"owned": True})
    state.commit(big, decide(state, big, 0), 0)  # type: ignore[arg-type]
    passed = 0
    for i in range(40):
        small = ask(f"s{i}", cpu=1)
        if isinstance(decide(state, small, 0), Admit):
            state.add(replace(small.charge, created=i + 1.0))
            passed += 1
    assert passed == MAX_PASSED
    # A higher priority still passes.
    assert isinstance(decide(state, ask("urgent", priority=1, cpu=1), 0), Admit)
    for c in list(state.charges("a")):
        state.remove("a", c.uid)
    assert [w.charge.uid for w in release(state, "a", 0)] == ["big"]


def test_who_can_never_fit_keeps_nobody_out() -> None:
    state = ledger({"requests.cpu": 1000})
    huge = ask("huge", cpu=5000, fields={"owned": True})
    state.commit(huge, decide(state, huge, 0), 0)  # type: ignore[arg-type]
    for i in range(100):
        small = ask(f"s{i}", cpu=1)
        assert isinstance(decide(state, small, 0), Admit)
        state.add(replace(small.charge, created=i + 1.0))


def test_lowering_a_limit_evicts_nobody_and_admits_nobody() -> None:
    state = ledger(HARD, 0)
    state.add(charge("x", priority=5, cpu=1000))
    state.set_quotas("a", [Quota("q", {"requests.cpu": 500, "pods": 10})])
    assert isinstance(decide(state, ask("w", cpu=1), 0), Deny)
    assert isinstance(decide(state, ask("free", pods=1), 0), Admit)
    assert state.totals("a", "q").used["requests.cpu"] == 1000


def test_a_scoped_quota_counts_and_frees_only_its_own() -> None:
    state = Ledger()
    term = ScopeTerm("PriorityClass", "In", frozenset({"gold"}))
    state.set_quotas("a", [Quota("gold", {"requests.cpu": 100}, (term,)), Quota("all", {"requests.cpu": 1000})])
    state.set_policy("a", Policy(threshold=0))
    state.add(replace(charge("plain", cpu=100), priority_class="base"))
    state.add(replace(charge("gold-low", priority=1, cpu=100), priority_class="gold"))
    asked = ask("w", priority=9, cpu=50)
    decision = decide(state, replace(asked, charge=replace(asked.charge, priority_class="gold")), 0)
    assert names(decision) == ["gold-low"]


def test_an_exhausted_disruption_budget_goes_last() -> None:
    state = ledger(HARD, 0)
    state.add(charge("guarded", priority=1, cpu=500))
    state.add(charge("other", priority=2, cpu=500))
    state.set_budgets("a", [Budget("pdb", frozenset({"guarded"}), 0)])
    assert names(decide(state, ask("w", priority=9, cpu=500), 0)) == ["other"]
    assert names(decide(state, ask("w", priority=9, cpu=1000), 0)) == ["other", "guarded"]


def cohort(capacity: int = 1000, guaranteed: int = 500) -> Ledger:
    """Tenants a and b, each with its guarantee, sharing a capacity in millicores."""
    state = Ledger()
    for tenant in ("a", "b"):
        state.set_quotas(tenant, [Quota("q", {"requests.cpu": 10_000})])
        state.set_policy(tenant, Policy(threshold=0, guaranteed={"requests.cpu": guaranteed}, cohort="default"))
    state.set_cohort(Cohort("default", {"requests.cpu": capacity}))
    return state


def test_what_was_lent_is_reclaimed_whatever_the_priority() -> None:
    state = cohort()
    state.add(charge("mine", "a", 99, cpu=500))
    state.add(charge("lent", "a", 99, cpu=500))
    decision = decide(state, ask("w", "b", 0, cpu=500), 0)
    assert isinstance(decision, Wait)
    assert [(v.charge.tenant, v.rule) for v in decision.victims] == [("a", "reclaim")]


def test_no_reclaim_from_a_tenant_within_its_guarantee() -> None:
    state = cohort(capacity=900)
    state.add(charge("mine", "a", 0, cpu=500))
    state.add(charge("theirs", "b", 5, cpu=400))
    assert isinstance(decide(state, ask("w", "b", 5, cpu=100), 0), Deny)


def test_shared_capacity_goes_by_priority_and_spares_guarantees() -> None:
    state = cohort(guaranteed=300)
    state.add(charge("base", "a", 0, cpu=300))
    state.add(charge("extra", "a", 1, cpu=200))
    state.add(charge("b", "b", 9, cpu=500))
    # b is above its guarantee: only what a has above its own may be taken, and only lower priorities.
    decision = decide(state, ask("w", "b", 5, cpu=200), 0)
    assert isinstance(decision, Wait)
    assert [(v.charge.uid, v.rule) for v in decision.victims] == [("extra", "priority")]
    assert isinstance(decide(state, ask("w", "b", 5, cpu=300), 0), Deny)
    assert isinstance(decide(state, ask("w", "b", 1, cpu=200), 0), Deny)


def test_a_guarantee_does_not_make_a_big_workload_immune() -> None:
    state = cohort(guaranteed=100)
    state.add(charge("big", "a", 0, cpu=800))
    state.add(charge("b", "b", 9, cpu=200))
    decision = decide(state, ask("w", "b", 5, cpu=200), 0)
    assert isinstance(decision, Wait)
    assert [(v.charge.uid, v.rule) for v in decision.victims] == [("big", "priority")]
    assert isinstance(decide(state, ask("w", "b", 0, cpu=200), 0), Deny), "only lower priorities, as always"


def test_who_lent_keeps_its_own_where_one_borrower_suffices() -> None:
    state = cohort(1200, 600)
    state.add(charge("mine", "a", 0, cpu=300))
    state.add(charge("mid", "b", 1, cpu=300))
    state.add(charge("high", "b", 2, cpu=400))
    decision = decide(state, ask("w", "a", 2, cpu=300), 0)
    assert isinstance(decision, Wait)
    assert [(v.charge.uid, v.rule) for v in decision.victims] == [("mid", "reclaim")]


def test_own_victims_and_reclaim_go_together() -> None:
    """Within the guarantee only once an own workload has left: that one leaves, and what was lent comes back."""
    state = cohort(1000, 600)
    state.add(charge("mine", "a", 0, cpu=300))
    state.add(charge("lent", "b", 9, cpu=700))
    decision = decide(state, ask("w", "a", 5, cpu=600), 0)
    assert isinstance(decision, Wait)
    assert sorted((v.charge.uid, v.rule) for v in decision.victims) == [("lent", "reclaim"), ("mine", "in-tenant")]
    assert isinstance(decide(state, ask("w", "a", 5, cpu=700), 0), Deny), "more than is guaranteed is not reclaimed"


def test_reclaim_keeps_guarantees_whole_where_it_can() -> None:
    state = cohort()
    state.add(charge("base", "a", 0, cpu=500))
    state.add(charge("extra", "a", 1, cpu=200))
    state.add(charge("b", "b", 9, cpu=300))
    assert names(decide(state, ask("w", "b", 0, cpu=200), 0)) == ["extra"]
    # Where one workload straddles the guarantee, what it borrows comes back only with it.
    state = cohort()
    state.add(charge("straddles", "a", 0, cpu=700))
    state.add(charge("b", "b", 9, cpu=300))
    assert names(decide(state, ask("w", "b", 0, cpu=200), 0)) == ["straddles"]


def test_borrowing_has_a_limit_and_a_reserve_is_not_lent() -> None:
    state = cohort()
    state.set_policy("a", Policy(guaranteed={"requests.cpu": 500}, borrowing={"requests.cpu": 100}, cohort="default"))
    decision = decide(state, ask("w", "a", cpu=700), 0)
    assert isinstance(decision, Deny)
    assert "exceeded borrowing limit: a" in refusal(decision)
    state.set_policy("b", Policy(guaranteed={"requests.cpu": 500}, lending={"requests.cpu": 50}, cohort="default"))
    decision = decide(state, ask("w", "a", cpu=560), 0)
    assert isinstance(decision, Deny)
    assert "exceeded cohort capacity: default" in refusal(decision)
    assert isinstance(decide(state, ask("w", "a", cpu=550), 0), Admit)


def test_text_and_data_tell_the_same() -> None:
    state = ledger(HARD, 0)
    state.add(charge("low", cpu=800))
    asked = ask("w", priority=9, cpu=500, pods=1)
    decision = decide(state, asked, 0)
    told = text(asked, decision)
    assert "pod/a/w (priority 9) waits: lower claims leave for it" in told
    assert "q requests.cpu  +500m on 800m of 1: short by 300m" in told
    assert "leaves: pod/a/low (priority 0; in-tenant)" in told
    facts = data(asked, decision)
    assert facts["decision"] == "wait"
    assert facts["victims"][0] == {
        "workload": "pod/a/low", "priority": 0, "rule": "in-tenant", "gives": {"requests.cpu": "800m"},
    }  # fmt: skip
    assert [limit["fits"] for limit in facts["limits"]] == [False, True]


def test_room_for_migrations_is_kept_free() -> None:
    state = ledger({"cpu": 1000, "requests.cpu": 1000}, 0, migration_reserve={"requests.cpu": 300})
    both = {"cpu": 800, "requests.cpu": 800}
    decision = decide(state, Ask(replace(charge("w"), amounts=both)), 0)
    assert isinstance(decision, Deny)
    assert refusal(decision).endswith("kept for migrations: cpu=300m,requests.cpu=300m")
    fits = {"cpu": 700, "requests.cpu": 700}
    assert isinstance(decide(state, Ask(replace(charge("w"), amounts=fits)), 0), Admit)


def test_one_wake_up_lets_in_everyone_who_fits() -> None:
    state = ledger({"requests.cpu": 0})
    for number in range(200):
        late = ask(f"w{number:03}", cpu=1 + number % 3, fields={"owned": True})
        state.commit(late, decide(state, late, 0), 0)  # type: ignore[arg-type]
    state.set_quotas("a", [Quota("q", {"requests.cpu": 10_000})])
    assert len(release(state, "a", 0)) == 200
