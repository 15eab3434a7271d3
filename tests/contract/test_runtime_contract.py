"""The promises of the Runtime protocol, asked of every runtime in the same words."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from runtimes_support import CASES, LINE, Behaviour, RuntimeCase

from isoplane.node.runtime.protocol import Runtime, RuntimeFailure
from isoplane.workload.shape import Observed, UnitObserved, UnitState, Workload


class Bench:
    """One runtime on a data directory of its own, and instances of it to come."""

    def __init__(self, case: RuntimeCase, data_dir: Path) -> None:
        self.case = case
        self.data_dir = data_dir
        self.changes: list[str] = []
        self._instances: list[Runtime] = []

    async def instance(self) -> Runtime:
        """A started instance; the second one adopts what the first left, which was not closed."""
        runtime = self.case.make(self.data_dir)
        self._instances.append(runtime)
        runtime.on_change(self.changes.append)
        await runtime.start()
        return runtime

    def declare(self, behaviour: Behaviour, units: int = 1, uid: str = "w1") -> Workload:
        if behaviour not in self.case.behaviours:
            pytest.skip(f"{self.case.name} has nothing that behaves so: {behaviour}")
        if units > self.case.max_units:
            pytest.skip(f"a workload of {self.case.name} has at most {self.case.max_units} unit")
        return self.case.declare(uid, behaviour, units)

    async def running(self, runtime: Runtime, behaviour: Behaviour, units: int = 1, uid: str = "w1") -> Workload:
        """A workload whose units all run (or have ended already)."""
        workload = self.declare(behaviour, units, uid)
        await runtime.prepare(workload, self.case.materials)
        for unit in workload.units:
            await runtime.start_unit(workload, unit, 0, self.case.materials)
        for unit in workload.units:
            await self.until(runtime, uid, unit.name, UnitState.RUNNING, UnitState.EXITED)
        return workload

    async def until(self, runtime: Runtime, uid: str, unit: str, *states: UnitState) -> UnitObserved:
        """Wait for a state. Fails the test after the case's patience."""
        deadline = time.monotonic() + self.case.patience
        while True:
            observed = await runtime.observe(uid)
            found = (observed or Observed(uid, "", "", False, {})).unit(unit)
            if found.state in states:
                return found
            if time.monotonic() > deadline:
                pytest.fail(f"{unit} of {uid} is {found.state}, not {' or '.join(states)}")
            await asyncio.sleep(0.01)

    async def clean_up(self) -> None:
        if self._instances:
            newest = self._instances[-1]
            for observed in await newest.observe_all():
                await newest.remove(observed.uid)
        for runtime in self._instances:
            await runtime.close()


@pytest_asyncio.fixture(params=CASES, ids=lambda case: case.name)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    case: RuntimeCase = request.param
    case.check_host()
    made = Bench(case, tmp_path)
    try:
        yield made
    finally:
        await made.clean_up()
    assert not case.traces(tmp_path)


async def text_of(runtime: Runtime, uid: str, unit: str, *, previous: bool = False) -> str:
    stream = runtime.logs(uid, unit, follow=False, tail_lines=None, since=None, previous=previous, timestamps=False)
    return b"".join([line async for line in stream]).decode()


async def eventually(ask: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not await ask():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def test_an_unknown_sandbox_leaves_no_trace(bench: Bench) -> None:
    runtime = await bench.instance()
    assert await runtime.observe("nobody") is None
    assert list(await runtime.observe_all()) == []
    await runtime.remove("nobody")


async def test_prepared_is_not_started(bench: Bench) -> None:
    runtime = await bench.instance()
    workload = bench.declare(Behaviour.SERVE)
    await runtime.prepare(workload, bench.case.materials)
    observed = await runtime.observe("w1")
    assert observed is not None
    assert observed.prepared
    assert (observed.uid, observed.namespace, observed.name) == ("w1", workload.namespace, workload.name)
    assert observed.unit("u0").state is UnitState.ABSENT


async def test_preparing_twice_changes_nothing(bench: Bench) -> None:
    runtime = await bench.instance()
    workload = await bench.running(runtime, Behaviour.SERVE)
    before = (await runtime.observe("w1")).unit("u0")  # type: ignore[union-attr]
    await runtime.prepare(workload, bench.case.materials)
    after = (await runtime.observe("w1")).unit("u0")  # type: ignore[union-attr]
    assert (after.state, after.pid, after.started_at) == (UnitState.RUNNING, before.pid, before.started_at)


async def test_starting_the_same_attempt_twice_starts_once(bench: Bench) -> None:
    runtime = await bench.instance()
    workload = await bench.running(runtime, Behaviour.SERVE)
    before = (await runtime.observe("w1")).unit("u0")  # type: ignore[union-attr]
    await asyncio.gather(*(runtime.start_unit(workload, workload.units[0], 0, bench.case.materials) for _ in range(3)))
    after = (await runtime.observe("w1")).unit("u0")  # type: ignore[union-attr]
    assert (after.attempt, after.pid, after.handle) == (0, before.pid, before.handle)


async def test_concurrent_first_starts_start_once(bench: Bench) -> None:
    runtime = await bench.instance()
    workload = bench.declare(Behaviour.SERVE)
    await runtime.prepare(workload, bench.case.materials)
    start = lambda: runtime.start_unit(workload, workload.units[0], 0, bench.case.materials)  # noqa: E731
    await asyncio.gather(start(), start(), start())
    found = await bench.until(runtime, "w1", "u0", UnitState.RUNNING)
    assert found.attempt == 0


async def test_a_started_unit_tells_of_itself(bench: Bench) -> None:
    runtime = await bench.instance()
    before = time.time()
    await bench.running(runtime, Behaviour.SERVE)
    found = (await runtime.observe("w1")).unit("u0")  # type: ignore[union-attr]
    assert found.state is UnitState.RUNNING
    assert found.handle
    assert before - 1 <= found.started_at <= time.time() + 1
    assert found.exit_code is None
    if bench.case.real:
        assert found.pid > 0


async def test_an_ended_unit_keeps_its_exit_code(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.FAIL)
    ended = await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    assert (ended.exit_code, ended.reason, ended.graceful) == (3, "Error", False)
    assert ended.started_at <= ended.finished_at <= time.time() + 1


async def test_success_is_completed(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SUCCEED)
    ended = await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    assert (ended.exit_code, ended.graceful) == (0, True)
    assert ended.reason in ("Completed", "GuestShutdown")


async def test_an_end_is_reported(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SUCCEED)
    await bench.until(runtime, "w1", "u0", UnitState.EXITED)

    async def told() -> bool:
        return "w1" in bench.changes

    assert await eventually(told, 2.0)


async def test_an_ended_unit_is_not_started_again_by_its_attempt(bench: Bench) -> None:
    runtime = await bench.instance()
    workload = await bench.running(runtime, Behaviour.FAIL)
    ended = await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    await runtime.start_unit(workload, workload.units[0], 0, bench.case.materials)
    await asyncio.sleep(0.1)
    assert (await runtime.observe("w1")).unit("u0") == ended  # type: ignore[union-attr]


async def test_a_graceful_stop_ends_well(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE)
    await asyncio.sleep(0.1)
    await runtime.stop_unit("w1", "u0")
    await runtime.stop_unit("w1", "u0")
    ended = await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    assert ended.graceful
    await runtime.stop_unit("w1", "u0")


async def test_stop_asks_and_kill_insists(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.STUBBORN)
    await asyncio.sleep(0.1)
    await runtime.stop_unit("w1", "u0")
    await asyncio.sleep(0.3)
    assert (await runtime.observe("w1")).unit("u0").state is UnitState.RUNNING  # type: ignore[union-attr]
    await runtime.kill_unit("w1", "u0")
    ended = await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    assert not ended.graceful
    if bench.case.exit_code_when_killed is not None:
        assert ended.exit_code == bench.case.exit_code_when_killed
    await runtime.kill_unit("w1", "u0")


async def test_a_restart_is_the_next_attempt(bench: Bench) -> None:
    runtime = await bench.instance()
    workload = await bench.running(runtime, Behaviour.FAIL)
    first = await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    await runtime.start_unit(workload, workload.units[0], 1, bench.case.materials)
    second = await bench.until(runtime, "w1", "u0", UnitState.RUNNING, UnitState.EXITED)
    assert second.attempt == 1
    assert second.handle != first.handle
    third = await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    assert (third.attempt, third.exit_code) == (1, 3)


async def test_units_of_one_sandbox_are_independent(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE, units=2)
    await runtime.kill_unit("w1", "u0")
    await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    observed = await runtime.observe("w1")
    assert observed is not None
    assert set(observed.units) == {"u0", "u1"}
    assert observed.unit("u1").state is UnitState.RUNNING


async def test_pause_freezes_and_thaws(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE)
    for _ in range(2):
        await runtime.pause_unit("w1", "u0", True)
    assert (await runtime.observe("w1")).unit("u0").state is UnitState.PAUSED  # type: ignore[union-attr]
    for _ in range(2):
        await runtime.pause_unit("w1", "u0", False)
    assert (await runtime.observe("w1")).unit("u0").state is UnitState.RUNNING  # type: ignore[union-attr]


async def test_a_paused_unit_can_be_killed(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE)
    await runtime.pause_unit("w1", "u0", True)
    await runtime.kill_unit("w1", "u0")
    await bench.until(runtime, "w1", "u0", UnitState.EXITED)


async def test_the_next_process_adopts_what_runs(bench: Bench) -> None:
    first = await bench.instance()
    await bench.running(first, Behaviour.SERVE)
    before = (await first.observe("w1")).unit("u0")  # type: ignore[union-attr]
    second = await bench.instance()
    (observed,) = await second.observe_all()
    after = observed.unit("u0")
    assert observed.prepared
    assert (after.state, after.pid, after.handle, after.attempt) == (
        UnitState.RUNNING,
        before.pid,
        before.handle,
        before.attempt,
    )
    bench.changes.clear()
    await second.stop_unit("w1", "u0")
    ended = await bench.until(second, "w1", "u0", UnitState.EXITED)
    assert ended.graceful
    assert "w1" in bench.changes


async def test_an_exit_while_nobody_looked_is_kept(bench: Bench) -> None:
    first = await bench.instance()
    await bench.running(first, Behaviour.FAIL)
    await first.close()
    await asyncio.sleep(0.5)
    second = await bench.instance()
    ended = await bench.until(second, "w1", "u0", UnitState.EXITED)
    assert ended.exit_code == 3


async def test_the_next_process_does_not_start_an_attempt_again(bench: Bench) -> None:
    first = await bench.instance()
    workload = await bench.running(first, Behaviour.SERVE)
    before = (await first.observe("w1")).unit("u0")  # type: ignore[union-attr]
    second = await bench.instance()
    await second.prepare(workload, bench.case.materials)
    await second.start_unit(workload, workload.units[0], 0, bench.case.materials)
    after = (await second.observe("w1")).unit("u0")  # type: ignore[union-attr]
    assert (after.pid, after.handle) == (before.pid, before.handle)


async def test_closing_leaves_workloads_running(bench: Bench) -> None:
    first = await bench.instance()
    await bench.running(first, Behaviour.SERVE)
    await first.close()
    second = await bench.instance()
    assert (await second.observe("w1")).unit("u0").state is UnitState.RUNNING  # type: ignore[union-attr]


async def test_remove_forgets_and_may_be_repeated(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE)
    await runtime.remove("w1")
    assert await runtime.observe("w1") is None
    assert list(await runtime.observe_all()) == []
    await runtime.remove("w1")
    assert not bench.case.traces(bench.data_dir)


async def test_removed_stays_removed_for_the_next_process(bench: Bench) -> None:
    first = await bench.instance()
    await bench.running(first, Behaviour.SERVE)
    await first.remove("w1")
    second = await bench.instance()
    assert list(await second.observe_all()) == []


async def test_a_sandbox_can_be_made_again_after_removal(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE)
    await runtime.remove("w1")
    await bench.running(runtime, Behaviour.SERVE)
    found = (await runtime.observe("w1")).unit("u0")  # type: ignore[union-attr]
    assert (found.state, found.attempt) == (UnitState.RUNNING, 0)


async def test_sandboxes_do_not_touch_each_other(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE, uid="w1")
    await bench.running(runtime, Behaviour.SERVE, uid="w2")
    assert {observed.uid for observed in await runtime.observe_all()} == {"w1", "w2"}
    await runtime.remove("w1")
    assert (await runtime.observe("w2")).unit("u0").state is UnitState.RUNNING  # type: ignore[union-attr]


async def test_starting_without_a_sandbox_is_refused(bench: Bench) -> None:
    runtime = await bench.instance()
    workload = bench.declare(Behaviour.SERVE)
    with pytest.raises(RuntimeFailure):
        await runtime.start_unit(workload, workload.units[0], 0, bench.case.materials)


async def test_logs_tell_what_was_said(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE)

    async def said() -> bool:
        text = await text_of(runtime, "w1", "u0")
        return LINE in text if bench.case.speaks else bool(text)

    assert await eventually(said, bench.case.patience)


async def test_logs_of_the_previous_attempt(bench: Bench) -> None:
    runtime = await bench.instance()
    workload = await bench.running(runtime, Behaviour.SUCCEED)
    await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    await runtime.start_unit(workload, workload.units[0], 1, bench.case.materials)
    text = await text_of(runtime, "w1", "u0", previous=True)
    assert LINE in text if bench.case.speaks else text


async def test_a_unit_tells_the_image_it_was_started_from_as_it_was_named(bench: Bench) -> None:
    """Or nothing, where that cannot change: a name of the runtime's own making would look like a change."""
    runtime = await bench.instance()
    workload = await bench.running(runtime, Behaviour.SERVE)
    observed = await runtime.observe("w1")
    assert observed is not None
    assert observed.unit("u0").image in ("", workload.units[0].image)


async def test_without_an_earlier_attempt_there_is_no_previous_log(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE)
    with pytest.raises(RuntimeFailure):
        await text_of(runtime, "w1", "u0", previous=True)


async def test_following_ends_with_the_unit(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SUCCEED)
    stream = runtime.logs("w1", "u0", follow=True, tail_lines=None, since=None, previous=False, timestamps=False)
    async with asyncio.timeout(bench.case.patience):
        lines = [line async for line in stream]
    assert not bench.case.speaks or any(LINE.encode() in line for line in lines)
    assert all(line.endswith(b"\n") for line in lines)


async def test_every_line_bears_its_time_when_asked(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SUCCEED)
    stream = runtime.logs("w1", "u0", follow=True, tail_lines=None, since=None, previous=False, timestamps=True)
    async with asyncio.timeout(bench.case.patience):
        lines = [line async for line in stream]
    assert lines
    assert all(re.match(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) ", line) for line in lines), lines


async def test_exec_collects_output_and_exit_code(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SERVE)
    if not bench.case.executes_anything:
        with pytest.raises(RuntimeFailure):
            await runtime.exec("w1", "u0", ["/bin/sh", "-c", "echo out; exit 4"], 5.0)
        return
    result = await runtime.exec("w1", "u0", ["/bin/sh", "-c", "echo out; exit 4"], 5.0)
    if bench.case.executes:
        assert (result.exit_code, result.output) == (4, b"out\n")


async def test_exec_needs_a_running_unit(bench: Bench) -> None:
    runtime = await bench.instance()
    await bench.running(runtime, Behaviour.SUCCEED)
    await bench.until(runtime, "w1", "u0", UnitState.EXITED)
    with pytest.raises(RuntimeFailure):
        await runtime.exec("w1", "u0", ["/bin/true"], 5.0)
