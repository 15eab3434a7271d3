"""The delta: whatever a host shows, carrying out the plan leads to what is wanted, and nothing is started twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import samples_support as samples
from isoplane.workload import backoff, delta
from isoplane.workload.delta import AskStop, Kill, Memory, Pause, Plan, Prepare, Remove, Start
from isoplane.workload.health import Health
from isoplane.workload.lifecycle import stage_of
from isoplane.workload.pod import PodAdapter
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import (
    Observed,
    RestartRule,
    RunState,
    Stage,
    Unit,
    UnitObserved,
    UnitRole,
    UnitState,
    Workload,
)

NOW = 1_800_000_000.0


def placed(units: tuple[Unit, ...], **fields: object) -> Workload:
    base = PodAdapter().project(samples.pod())
    return replace(base, units=units, **{"node": "n1", **fields})  # type: ignore[arg-type]


class Host:
    """The simplest host: does what a plan says, and remembers how often it started what."""

    def __init__(self) -> None:
        self.seen: Observed | None = None
        self.starts: list[tuple[str, int]] = []

    def carry_out(self, plan: Plan) -> None:
        for action in plan.actions:
            match action:
                case Prepare():
                    self.seen = Observed("uid-web", "tenant-a", "web", True, {})
                case Start(unit, attempt):
                    self.starts.append((unit.name, attempt))
                    self.set(UnitObserved(unit.name, UnitState.RUNNING, attempt, started_at=NOW))
                case AskStop(name, _) | Kill(name, _):
                    assert self.seen is not None
                    self.end(name, 0 if isinstance(action, AskStop) else 137)
                case Pause(name, paused):
                    assert self.seen is not None
                    state = UnitState.PAUSED if paused else UnitState.RUNNING
                    self.set(replace(self.seen.unit(name), state=state))
                case Remove():
                    self.seen = None

    def set(self, unit: UnitObserved) -> None:
        assert self.seen is not None
        self.seen = replace(self.seen, units={**self.seen.units, unit.name: unit})

    def end(self, name: str, code: int, at: float = NOW) -> None:
        assert self.seen is not None
        self.set(replace(self.seen.unit(name), state=UnitState.EXITED, exit_code=code, finished_at=at))

    def settle(self, workload: Workload | None, memory: Memory | None = None, now: float = NOW) -> Plan:
        for _ in range(50):
            plan = delta.plan(workload, self.seen, memory or Memory(), now)
            if not plan.actions:
                return plan
            self.carry_out(plan)
        raise AssertionError("the plan never settles")


MAIN = Unit("main", restart=RestartRule.NEVER)


def test_from_nothing_to_running_and_back() -> None:
    host = Host()
    host.settle(placed((MAIN,)))
    assert host.starts == [("main", 0)]
    assert stage_of(placed((MAIN,)), host.seen, NOW) is Stage.RUNNING
    host.settle(placed((MAIN,), deleting=True, desired=RunState.STOP, stop_deadline=NOW + 30))
    assert host.seen is None


@pytest.mark.parametrize("waiting", [{"node": ""}, {"gates": ("isoplane.io/quota",)}], ids=["not placed", "gated"])
def test_nothing_happens_before_it_is_placed_and_released(waiting: dict[str, object]) -> None:
    assert delta.plan(placed((MAIN,), **waiting), None, Memory(), NOW) == Plan()


def test_init_units_run_one_after_the_other_and_sidecars_stay() -> None:
    units = (
        Unit("first", UnitRole.INIT, RestartRule.ON_FAILURE),
        Unit("proxy", UnitRole.SIDECAR, RestartRule.ALWAYS),
        Unit("second", UnitRole.INIT, RestartRule.ON_FAILURE),
        Unit("main"),
    )
    host, workload = Host(), placed(units)
    host.settle(workload)
    assert host.starts == [("first", 0)]
    assert stage_of(workload, host.seen, NOW) is Stage.PREPARING
    host.end("first", 0)
    host.settle(workload)
    assert host.starts == [("first", 0), ("proxy", 0), ("second", 0)]
    host.end("second", 0)
    host.settle(workload)
    assert host.starts[-1] == ("main", 0)
    assert stage_of(workload, host.seen, NOW) is Stage.RUNNING


def test_a_failed_init_unit_is_tried_again_after_a_back_off_and_holds_the_rest() -> None:
    host, workload = Host(), placed((Unit("first", UnitRole.INIT, RestartRule.ON_FAILURE), Unit("main")))
    host.settle(workload)
    host.end("first", 1)
    host.settle(workload)
    assert host.starts == [("first", 0), ("first", 1)]
    host.end("first", 1)
    plan = host.settle(workload)
    assert plan.backing_off == {"first": NOW + 10}
    assert host.starts[-1] == ("first", 1)


def test_an_init_unit_that_may_not_restart_fails_the_workload() -> None:
    host, workload = Host(), placed((Unit("first", UnitRole.INIT, RestartRule.NEVER), Unit("main")))
    host.settle(workload)
    host.end("first", 1)
    assert stage_of(workload, host.seen, NOW) is Stage.FAILED


def test_restarts_back_off_and_say_when() -> None:
    host, workload = Host(), placed((Unit("main", restart=RestartRule.ALWAYS),))
    host.settle(workload)
    for attempt, delay in ((1, 0.0), (2, 10.0), (3, 20.0), (4, 40.0)):
        host.end("main", 1)
        if delay:
            plan = host.settle(workload)
            assert plan.wake_at == NOW + delay
        host.settle(workload, now=NOW + delay)
        assert host.starts[-1] == ("main", attempt)


@pytest.mark.parametrize(
    ("rule", "code", "stage"),
    [
        (RestartRule.NEVER, 0, Stage.SUCCEEDED),
        (RestartRule.NEVER, 1, Stage.FAILED),
        (RestartRule.ON_FAILURE, 0, Stage.SUCCEEDED),
        (RestartRule.ON_FAILURE, 1, Stage.RUNNING),
        (RestartRule.ALWAYS, 0, Stage.RUNNING),
    ],
)
def test_how_an_end_is_told(rule: RestartRule, code: int, stage: Stage) -> None:
    host, workload = Host(), placed((Unit("main", restart=rule),))
    host.settle(workload)
    host.end("main", code)
    assert stage_of(workload, host.seen, NOW) is stage


def test_a_unit_whose_image_was_changed_is_replaced_at_once_whatever_its_rule() -> None:
    host = Host()
    host.settle(placed((replace(MAIN, image="web:1"),)))
    assert host.seen is not None
    host.set(replace(host.seen.unit("main"), image="web:1"))
    wanted = placed((replace(MAIN, image="web:2"),))
    host.carry_out(delta.plan(wanted, host.seen, Memory(), NOW))
    assert host.seen.unit("main").state is UnitState.EXITED
    assert stage_of(wanted, host.seen, NOW) is Stage.RUNNING, "it has not ended: it comes back"
    host.carry_out(delta.plan(wanted, host.seen, Memory(), NOW))
    assert host.starts == [("main", 0), ("main", 1)]
    host.set(replace(host.seen.unit("main"), image="web:2"))
    assert host.settle(wanted) == Plan()


def test_a_deadline_ends_it_gracefully_and_it_has_failed() -> None:
    host, wanted = Host(), placed((MAIN,), expires_at=NOW + 60, grace_seconds=5)
    assert host.settle(wanted).wake_at == NOW + 60
    assert stage_of(wanted, host.seen, NOW + 59) is Stage.RUNNING
    plan = delta.plan(wanted, host.seen, Memory(), NOW + 60)
    assert plan.actions == (AskStop("main", "active for longer than its deadline"),)
    assert stage_of(wanted, host.seen, NOW + 60) is Stage.RUNNING, "until nothing of it runs"
    asked = Memory(asked={"main": NOW + 60}, asked_first={"main": NOW + 60})
    assert delta.plan(wanted, host.seen, asked, NOW + 65).actions == (
        Kill("main", "active for longer than its deadline"),
    )
    host.end("main", 0, at=NOW + 61)
    assert stage_of(wanted, host.seen, NOW + 61) is Stage.FAILED, "however well it ended"
    assert delta.plan(wanted, host.seen, Memory(), NOW + 61) == Plan()


def test_a_deadline_does_not_touch_what_ended_before_it_or_is_deleted() -> None:
    host, wanted = Host(), placed((MAIN,), expires_at=NOW + 60)
    host.settle(wanted)
    host.end("main", 0, at=NOW + 30)
    assert stage_of(wanted, host.seen, NOW + 90) is Stage.SUCCEEDED, "also when nobody looked meanwhile"
    assert stage_of(replace(wanted, deleting=True), None, NOW + 90) is Stage.STOPPING
    assert stage_of(wanted, None, NOW + 90) is Stage.FAILED, "also before it ever ran"


def test_a_machine_is_asked_again_until_its_grace_is_over_and_then_destroyed() -> None:
    adapter = adapter_for(samples_resource())
    assert adapter is not None
    workload = replace(
        adapter.project(samples.vmi()), node="n1", deleting=True, desired=RunState.STOP, stop_deadline=NOW + 30
    )
    machine = workload.units[0].name
    seen = Observed(workload.uid, "tenant-a", "guest", True, {machine: UnitObserved(machine, UnitState.RUNNING)})
    first = delta.plan(workload, seen, Memory(), NOW)
    assert first.actions == (AskStop(machine, "deleted"),)
    asked = Memory(asked={machine: NOW}, asked_first={machine: NOW})
    assert delta.plan(workload, seen, asked, NOW + 1).actions == ()
    assert delta.plan(workload, seen, asked, NOW + 5).actions == (AskStop(machine, "deleted"),)
    assert delta.plan(workload, seen, asked, NOW + 30).actions == (Kill(machine, "deleted"),)


def samples_resource():  # type: ignore[no-untyped-def]
    from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES

    return VIRTUALMACHINEINSTANCES


def test_grace_zero_kills_at_once() -> None:
    workload = placed((MAIN,), deleting=True, desired=RunState.STOP, grace_seconds=0, stop_deadline=NOW)
    seen = Observed("u", "ns", "n", True, {"main": UnitObserved("main", UnitState.RUNNING)})
    assert delta.plan(workload, seen, Memory(), NOW).actions == (Kill("main", "deleted"),)


def test_a_finished_workload_keeps_its_sandbox_until_it_is_deleted() -> None:
    seen = Observed("u", "ns", "n", True, {"main": UnitObserved("main", UnitState.EXITED, exit_code=0)})
    done = placed((MAIN,), stage=Stage.SUCCEEDED)
    assert delta.plan(done, seen, Memory(), NOW).actions == ()
    assert delta.plan(replace(done, deleting=True), seen, Memory(), NOW).actions == (Remove(),)


def test_a_unit_whose_liveness_probe_gave_up_is_stopped_then_killed() -> None:
    workload = placed((Unit("main"),), grace_seconds=5)
    seen = Observed("u", "ns", "n", True, {"main": UnitObserved("main", UnitState.RUNNING)})
    sick = Memory(health={"main": Health(failed="liveness")})
    assert delta.plan(workload, seen, sick, NOW).actions == (AskStop("main", "liveness probe failed"),)
    asked = replace(sick, asked={"main": NOW}, asked_first={"main": NOW})
    assert delta.plan(workload, seen, asked, NOW + 1).actions == ()
    assert delta.plan(workload, seen, asked, NOW + 5).actions == (Kill("main", "liveness probe failed"),)


def test_pausing_and_thawing() -> None:
    host, workload = Host(), placed((MAIN,))
    host.settle(workload)
    host.settle(replace(workload, desired=RunState.PAUSE))
    assert host.seen is not None
    assert host.seen.unit("main").state is UnitState.PAUSED
    host.settle(workload)
    assert host.seen.unit("main").state is UnitState.RUNNING
    assert host.starts == [("main", 0)]


states = st.sampled_from(list(UnitState))
units = st.lists(
    st.builds(
        Unit,
        name=st.sampled_from(["a", "b", "c", "d"]),
        role=st.sampled_from(list(UnitRole)),
        restart=st.sampled_from(list(RestartRule)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda u: u.name,
)


@given(units, st.data())
def test_any_host_settles_and_a_running_unit_is_never_started_again(declared: list[Unit], data: st.DataObject) -> None:
    workload = placed(tuple(declared))
    found = {
        u.name: UnitObserved(
            u.name, data.draw(states), exit_code=data.draw(st.sampled_from([0, 1])), finished_at=NOW - 999
        )
        for u in declared
    }
    host = Host()
    host.seen = Observed("uid-web", "tenant-a", "web", True, found)
    alive = {name for name, unit in found.items() if unit.state in (UnitState.RUNNING, UnitState.PAUSED)}
    host.settle(workload)
    assert not alive & {name for name, _ in host.starts}


@given(units, st.data())
def test_whatever_a_host_has_nothing_is_left_once_the_object_is_gone_or_its_grace_is_over(
    declared: list[Unit], data: st.DataObject
) -> None:
    found = {u.name: UnitObserved(u.name, data.draw(states)) for u in declared}
    wanted = data.draw(st.sampled_from([None, "deleting"]))
    workload = (
        None if wanted is None else placed(tuple(declared), deleting=True, desired=RunState.STOP, stop_deadline=NOW)
    )
    host = Host()
    host.seen = Observed("uid-web", "tenant-a", "web", data.draw(st.booleans()), found)
    host.settle(workload)
    assert host.seen is None


@given(st.integers(0, 1000))
def test_back_off_grows_to_its_cap(n: int) -> None:
    assert 0 <= backoff.container(n) <= backoff.container(n + 1) <= backoff.CAP
    assert 0 <= backoff.machine(n, 0.5) <= backoff.machine(n + 1, 0.5) <= backoff.CAP
