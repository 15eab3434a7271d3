"""What becomes of a machine: every row of the table, and what holds whatever happens in whichever order."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoplane.node.runtime.qemu.disks import BootFiles
from isoplane.node.runtime.qemu.machine_events import (
    Answered,
    AskStatus,
    Command,
    Effect,
    Event,
    GuestPanicked,
    GuestReset,
    GuestShutdown,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    MonitorLost,
    NobodyThere,
    Pause,
    PowerButton,
    ProcessGone,
    Quit,
    Reconnect,
    Resume,
    Resumed,
    Save,
    Spawned,
    StatusRead,
    Stopped,
    Tell,
)
from isoplane.node.runtime.qemu.machine_state import IO_ERROR_PERIOD, State, observed, react
from isoplane.node.runtime.qemu.records import End, Run, Sandbox
from isoplane.workload.shape import UnitState

RUN = Run(0, "tcg")
SANDBOX = Sandbox("u", "a", "vm", "machine", ("10.0.0.2",), "52:54:00:00:00:01", BootFiles("", "", {}))
START: tuple[Event, ...] = (Launch(RUN), Spawned(7, True), Answered("running", 1.0), Launched(1.0))


def after(*events: Event, state: State | None = None) -> tuple[State, list[Effect]]:
    """The state after some events, and what followed from the last."""
    found, effects = state or State(), ()
    for event in events:
        found, effects = react(found, event)
    return found, list(effects)


RUNNING = after(*START)[0]


def test_a_start_is_known_step_by_step() -> None:
    launched, effects = after(Launch(RUN))
    assert (launched, effects) == (State(run=RUN), [])
    spawned, _ = after(Launch(RUN), Spawned(7, True))
    assert (spawned.process, spawned.run) == (True, replace(RUN, pid=7))
    _, effects = after(*START)
    assert effects == [Save(replace(RUN, pid=7, launched=True, started_at=1.0))]
    assert (RUNNING.status, RUNNING.connected, RUNNING.ended) == ("running", True, None)


def test_a_start_that_failed_leaves_nothing_that_could_be_asked() -> None:
    failed, effects = after(Launch(RUN), Spawned(7, True), LaunchFailed())
    assert (failed.process, failed.connected, effects) == (False, False, [])
    dead, effects = after(Launch(RUN), Spawned(7, True), ProcessGone(2.0, words="no kernel"))
    assert (dead.ended, effects) == (None, [Tell()]), "a run that never came up has no end: it is started again"
    assert after(NobodyThere(3.0), state=dead) == (dead, [])


@pytest.mark.parametrize(
    ("event", "reason", "graceful", "code"),
    [
        (GuestShutdown(5.0), "GuestShutdown", True, 0),
        (GuestPanicked(5.0), "GuestPanicked", False, 1),
        (StatusRead("shutdown", 5.0), "GuestShutdown", True, 0),
        (StatusRead("guest-panicked", 5.0), "GuestPanicked", False, 1),
        (StatusRead("internal-error", 5.0), "Crashed", False, 1),
        (Answered("shutdown", 5.0), "GuestShutdown", True, 0),
        (Kill(5.0), "Destroyed", False, 137),
    ],
)
def test_an_end_is_written_down_before_qemu_is_let_go(event: Event, reason: str, graceful: bool, code: int) -> None:
    ended, effects = after(event, state=RUNNING)
    end = ended.ended
    assert end is not None
    assert (end.reason, end.graceful, end.exit_code, end.finished_at) == (reason, graceful, code, 5.0)
    assert effects[:2] == [Save(end), Quit()]
    later, effects = after(ProcessGone(9.0), state=ended)
    assert (later.ended, effects) == (end, [Tell()]), "how it ended is known already"


@pytest.mark.parametrize(
    ("event", "reason", "code", "message"),
    [
        (ProcessGone(5.0, signal=9), "Crashed", 137, "QEMU was ended by signal 9 (Killed)"),
        (ProcessGone(5.0, words="a chip melted"), "Crashed", 1, "QEMU was ended from outside: a chip melted"),
        (ProcessGone(5.0, signal=9, out_of_memory=True), "OOMKilled", 137, "QEMU was killed at its memory limit"),
    ],
)
def test_a_process_that_is_gone_says_how(event: Event, reason: str, code: int, message: str) -> None:
    ended, effects = after(event, state=RUNNING)
    end = ended.ended
    assert end is not None
    assert (end.reason, end.exit_code, end.message) == (reason, code, message)
    assert effects == [Save(end), Tell()], "there is nobody left to quit"
    assert (ended.process, ended.connected, ended.status) == (False, False, "")


def test_a_graceful_stop_presses_the_button_and_may_press_it_again() -> None:
    once, effects = after(PowerButton(), state=RUNNING)
    assert (once, effects) == (RUNNING, [Command("system_powerdown")])
    assert after(PowerButton(), state=once)[1] == [Command("system_powerdown")], "a guest that boots misses the first"
    ended, _ = after(GuestShutdown(5.0), state=once)
    assert after(PowerButton(), state=ended) == (ended, []), "nobody is asked who has ended"


@pytest.mark.parametrize("event", [PowerButton(), Pause(), Resume(1.0)])
def test_nobody_is_asked_who_cannot_be_told(event: Event) -> None:
    for state in (State(), after(MonitorLost(), state=RUNNING)[0], after(Kill(2.0), state=RUNNING)[0]):
        assert after(event, state=state) == (state, [])


def test_pausing_and_going_on_are_seen_by_asking() -> None:
    assert after(Pause(), state=RUNNING) == (RUNNING, [Command("stop"), AskStatus()])
    assert after(Stopped(), state=RUNNING) == (RUNNING, [AskStatus()])
    paused, effects = after(StatusRead("paused", 3.0), state=RUNNING)
    assert effects == [Tell()]
    assert seen(paused) is UnitState.PAUSED
    assert after(Resume(4.0), state=paused) == (paused, [Command("cont"), AskStatus()])
    assert after(Resumed(), state=paused)[1] == [AskStatus()]
    assert seen(after(StatusRead("running", 5.0), state=paused)[0]) is UnitState.RUNNING


def test_a_guest_that_a_full_disk_stopped_is_given_time_between_two_tries() -> None:
    full, _ = after(StatusRead("io-error", 3.0), state=RUNNING)
    assert seen(full) is UnitState.PAUSED
    tried, effects = after(Resume(100.0), state=full)
    assert effects == [Command("cont"), AskStatus()]
    assert after(Resume(100.0 + IO_ERROR_PERIOD / 2), state=tried) == (tried, [])
    assert after(Resume(100.0 + IO_ERROR_PERIOD), state=tried)[1] == [Command("cont"), AskStatus()]


def test_a_reset_goes_on_in_the_same_run() -> None:
    assert after(GuestReset(), state=RUNNING) == (RUNNING, [])


def test_a_monitor_that_is_lost_is_looked_for_as_long_as_the_process_lives() -> None:
    lost, effects = after(MonitorLost(), state=RUNNING)
    assert (lost.connected, effects) == (False, [Reconnect()])
    back, effects = after(Answered("paused", 4.0), state=lost)
    assert (back.connected, back.status, effects) == (True, "paused", [Tell()])
    gone, _ = after(ProcessGone(5.0), state=lost)
    assert after(MonitorLost(), state=gone)[1] == []


def test_an_earlier_planes_run_is_taken_over_as_it_is_found() -> None:
    run = replace(RUN, launched=True, pid=7)
    alone, effects = after(NobodyThere(9.0), state=State(run=run))
    assert alone.ended is not None
    assert (alone.ended.reason, effects) == ("Crashed", [Save(alone.ended)])
    end = End(0, "GuestShutdown", "the guest powered off", True, 0, 0, 2.0)
    _, effects = after(Spawned(7, True), Answered("shutdown", 9.0), state=State(run=run, end=end))
    assert effects == [Quit(), Tell()], "an end with a living process is finished off"
    earlier = State(run=replace(run, attempt=1), end=end)
    assert earlier.ended is None, "the end of an earlier run is none of this one's"


def test_what_is_observed() -> None:
    assert observed("u", SANDBOX, State()) is None
    assert observed("u", SANDBOX, after(*START[:3])[0]) is None, "not before it is known to have come up"
    assert seen(RUNNING) is UnitState.RUNNING
    ended, _ = after(GuestShutdown(5.0), state=RUNNING)
    assert seen(ended) is UnitState.RUNNING, "until its process is gone"
    gone, _ = after(ProcessGone(6.0), state=ended)
    unit = observed("u", SANDBOX, gone)
    assert unit is not None
    assert (unit.state, unit.reason, unit.graceful) == (UnitState.EXITED, "GuestShutdown", True)
    assert unit.details["qmp_status"] == "exited"


def seen(state: State) -> UnitState:
    unit = observed("u", SANDBOX, state)
    assert unit is not None
    return unit.state


STATUSES = ("running", "paused", "io-error", "shutdown", "guest-panicked", "internal-error", "suspended")
PLAIN: tuple[Event, ...] = (
    GuestShutdown(2.0), GuestPanicked(2.0), GuestReset(), Stopped(), Resumed(), PowerButton(), Pause(), Kill(2.0),
    MonitorLost(), ProcessGone(2.0, 9), NobodyThere(2.0), LaunchFailed(),
)  # fmt: skip
HAPPENINGS: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from(STATUSES).map(lambda status: StatusRead(status, 2.0)),
    st.sampled_from(STATUSES).map(lambda status: Answered(status, 2.0)),
    st.sampled_from(PLAIN),
    st.integers(0, 30).map(lambda now: Resume(float(now))),
)


@given(st.lists(HAPPENINGS, max_size=12))
@settings(max_examples=200)
def test_whatever_happens_a_run_ends_once(happenings: list[Event]) -> None:
    state, saved = RUNNING, []
    for event in happenings:
        before = state
        state, effects = react(state, event)
        assert state.run == before.run
        saved += [effect.record for effect in effects if isinstance(effect, Save)]
        if before.ended is not None:
            assert state.ended == before.ended, "an end is never rewritten"
            assert not any(isinstance(effect, Command | AskStatus) for effect in effects)
        if Quit() in effects:
            assert state.process
            assert state.ended in saved, "the truth is on disk before QEMU is let go"
    assert saved == ([state.ended] if state.ended else [])
