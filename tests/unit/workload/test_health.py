"""Probe thresholds."""

from __future__ import annotations

from isoplane.workload import health
from isoplane.workload.shape import Probe, Unit

UNIT = Unit(
    "main",
    startup=Probe(tcp_port=1, failure_threshold=2),
    readiness=Probe(tcp_port=1, success_threshold=2, failure_threshold=2),
    liveness=Probe(tcp_port=1, failure_threshold=3),
)


def test_a_startup_probe_holds_the_others_back() -> None:
    state = health.initial(UNIT)
    assert not state.started
    assert not state.ready
    assert health.due("startup", state)
    assert not health.due("readiness", state)
    state = health.after(UNIT, state, "startup", True)
    assert state.started
    assert not state.ready
    assert health.due("liveness", state)


def test_a_startup_probe_that_gives_up_fails_the_unit() -> None:
    state = health.initial(UNIT)
    for _ in range(2):
        state = health.after(UNIT, state, "startup", False)
    assert state.failed == "startup"


def test_readiness_comes_and_goes_by_its_thresholds() -> None:
    state = health.after(UNIT, health.initial(UNIT), "startup", True)
    seen = []
    for answer in (True, True, False, True, False, False):
        state = health.after(UNIT, state, "readiness", answer)
        seen.append(state.ready)
    assert seen == [False, True, True, True, True, False]
    assert not state.failed


def test_liveness_counts_failures_in_a_row() -> None:
    state = health.after(UNIT, health.initial(UNIT), "startup", True)
    for answer in (False, False, True, False, False):
        state = health.after(UNIT, state, "liveness", answer)
    assert not state.failed
    assert health.after(UNIT, state, "liveness", False).failed == "liveness"


def test_a_unit_without_probes_is_ready_at_once() -> None:
    assert health.initial(Unit("plain")).ready
