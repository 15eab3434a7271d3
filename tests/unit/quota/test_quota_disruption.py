"""Evictions against PodDisruptionBudgets, decided without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.quota.disruption import MAX_DISRUPTED, Verdict, decide_eviction, still_disrupted

NOW = "2026-01-01T00:00:00Z"


def pod(phase: str = "Running", ready: bool = True, **meta: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": "web-1", "namespace": "a", "labels": {"app": "web"}, **meta},
        "status": {"phase": phase, "conditions": conditions},
    }


def budget(allowed: int = 1, name: str = "pdb", **more: Any) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": {"app": "web"}}, **more.pop("spec", {})}
    status = {"observedGeneration": 1, "currentHealthy": 2, "desiredHealthy": 2, "disruptionsAllowed": allowed, **more}
    return {"metadata": {"name": name, "namespace": "a", "generation": 1}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    "target",
    [pod("Pending"), pod("Succeeded"), pod("Failed"), pod(deletionTimestamp=NOW), pod(labels={"app": "other"})],
)
def test_who_serves_nobody_or_is_not_selected_goes_freely(target: dict[str, Any]) -> None:
    assert decide_eviction(target, [budget(0)], NOW).verdict is Verdict.FREE


def test_an_allowed_eviction_spends_one() -> None:
    found = decide_eviction(pod(), [budget(2)], NOW)
    assert found.verdict is Verdict.SPEND
    assert found.status is not None
    assert found.status["disruptionsAllowed"] == 1
    assert found.status["disruptedPods"] == {"web-1": NOW}
    assert "conditions" not in found.status
    last = decide_eviction(pod(), [budget(1)], NOW).status
    assert last is not None
    assert (last["conditions"][0]["reason"], last["conditions"][0]["status"]) == ("InsufficientPods", "False")


def test_an_exhausted_budget_says_what_it_needs() -> None:
    found = decide_eviction(pod(), [budget(0)], NOW)
    assert (found.verdict, found.retry_after) == (Verdict.WAIT, 0)
    assert found.why == "The disruption budget pdb needs 2 healthy pods and has 2 currently"
    failed = {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale"}
    found = decide_eviction(pod(), [budget(0, conditions=[failed])], NOW)
    assert found.why.endswith("currently because it failed sync: no scale")
    found = decide_eviction(pod(), [budget(0, currentHealthy=3)], NOW)
    assert found.why == "The disruption budget pdb does not allow evicting pods currently"


def test_a_budget_not_counted_yet_asks_for_patience() -> None:
    found = decide_eviction(pod(), [budget(1, observedGeneration=0)], NOW)
    assert (found.verdict, found.retry_after) == (Verdict.WAIT, 10)


def test_several_budgets_are_not_supported() -> None:
    assert decide_eviction(pod(), [budget(), budget(name="second")], NOW).verdict is Verdict.AMBIGUOUS


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({}, Verdict.FREE),
        ({"currentHealthy": 1}, Verdict.WAIT),
        ({"currentHealthy": 0, "desiredHealthy": 0}, Verdict.WAIT),
        ({"currentHealthy": 1, "spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}, Verdict.FREE),
        ({"currentHealthy": 1, "spec": {"unhealthyPodEvictionPolicy": "IfHealthyBudget"}}, Verdict.WAIT),
    ],
)
def test_an_unready_pod_goes_while_the_others_suffice(more: dict[str, Any], verdict: Verdict) -> None:
    assert decide_eviction(pod(ready=False), [budget(0, **more)], NOW).verdict is verdict


def test_a_status_that_cannot_be_is_refused() -> None:
    assert decide_eviction(pod(), [budget(-1)], NOW).verdict is Verdict.FORBIDDEN
    many = {f"p{n}": NOW for n in range(MAX_DISRUPTED + 1)}
    assert decide_eviction(pod(), [budget(1, disruptedPods=many)], NOW).verdict is Verdict.FORBIDDEN


@given(st.integers(0, 5), st.integers(1, 8))
def test_never_more_than_allowed(allowed: int, attempts: int) -> None:
    current, done = budget(allowed), 0
    for number in range(attempts):
        found = decide_eviction(pod(name=f"web-{number}"), [current], NOW)
        if found.status is not None:
            current, done = {**current, "status": dict(found.status)}, done + 1
    assert done == min(allowed, attempts)
    assert len(current["status"].get("disruptedPods", {})) == done


def test_disrupted_pods_are_kept_until_seen_or_overdue() -> None:
    status = {"disruptedPods": {"kept": NOW, "leaving": NOW, "gone": NOW, "late": "2025-12-31T23:57:00Z"}}
    leaving = {"kept": False, "leaving": True, "late": False}
    assert still_disrupted(status, leaving, 1_767_225_600.0 + 5) == {"kept": NOW}
