"""A runtime without a host: units move through their life cycle on a clock. For trying out, and for tests at scale.

It keeps the same promises as the real ones (the contract suite says so): idempotent, adopted by the next process after
kill -9, for every change is one line appended to a journal before the call returns.  Annotations on a workload steer it:

    isoplane.io/simulated-run-seconds   units end by themselves after so long (default: never)
    isoplane.io/simulated-exit-code     … with this exit code (default 0)
    isoplane.io/simulated-start-seconds how long a start takes (default: the runtime's own)
    isoplane.io/simulated-stop-seconds  how long a graceful stop takes; "never" ignores it until killed
    isoplane.io/simulated-storage-bytes what each unit takes of the disk
    isoplane.io/simulated-failure       every prepare fails with this message
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from isoplane.node.formats import SIMULATED_SANDBOX
from isoplane.node.runtime.protocol import ExecResult, Materials, RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu.serial import stamp
from isoplane.workload.eviction import StorageUse
from isoplane.workload.shape import Observed, Unit, UnitObserved, UnitState, Workload

PREFIX = "isoplane.io/simulated-"
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds."""

    start: float = 0.0
    stop: float = 0.0


CONTAINER_PACE = Pace(start=0.05, stop=0.05)
MACHINE_PACE = Pace(start=1.5, stop=0.8)


@dataclass(slots=True)
class _Unit:
    attempt: int = 0
    started: float = 0.0
    """When it runs (may lie ahead: it is being started until then)."""
    ends: float | None = None
    exit_code: int = 0
    reason: str = ""
    graceful: bool = False
    paused: bool = False
    stop_seconds: float | None = 0.0
    image: str = ""


@dataclass(slots=True)
class _Sandbox:
    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    start: float = 0.0
    stop: float | None = 0.0
    run: float | None = None
    exit_code: int = 0
    units: dict[str, _Unit] = field(default_factory=dict)


def _entry(uid: str, sandbox: _Sandbox) -> dict[str, Any]:
    """A line of the journal: how a sandbox is from now on."""
    return {"uid": uid, "sandbox": SIMULATED_SANDBOX.stamp(asdict(sandbox))}


class SimulatedRuntime:
    """Simulates the runtime ``name``; its journal lies at ``data_dir/simulated/NAME.jsonl``."""

    reachable = False

    def __init__(self, data_dir: Path, name: str, pace: Pace, clock: Clock = time.time) -> None:
        self.name = name
        self._path = data_dir / "simulated" / f"{name}.jsonl"
        self._pace = pace
        self._clock = clock
        self._sandboxes: dict[str, _Sandbox] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._fd = -1

    async def start(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._load()
        self._compact()
        for uid, sandbox in self._sandboxes.items():
            for name in sandbox.units:
                self._arm(uid, name)

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def prepare(self, workload: Workload, materials: Materials) -> None:
        if workload.uid in self._sandboxes:
            return
        wanted = workload.annotations
        if failure := wanted.get(PREFIX + "failure"):
            raise RuntimeFailure(RuntimeReason.ERR_IMAGE_PULL, failure)
        stop = wanted.get(PREFIX + "stop-seconds")
        run = wanted.get(PREFIX + "run-seconds")
        self._sandboxes[workload.uid] = _Sandbox(
            workload.namespace,
            workload.name,
            materials.network.addresses,
            start=float(wanted.get(PREFIX + "start-seconds", self._pace.start)),
            stop=None if stop == "never" else float(stop) if stop else self._pace.stop,
            run=float(run) if run else None,
            exit_code=int(wanted.get(PREFIX + "exit-code", 0)),
        )
        self._save(workload.uid)

    async def refresh(self, workload: Workload, materials: Materials) -> None:
        """Nobody could look at files here."""

    async def start_unit(self, workload: Workload, unit: Unit, attempt: int, materials: Materials) -> None:
        sandbox = self._sandbox(workload.uid)
        known = sandbox.units.get(unit.name)
        if known is not None and known.attempt >= attempt:
            return
        started = self._clock() + sandbox.start
        new = _Unit(attempt, started, exit_code=sandbox.exit_code, stop_seconds=sandbox.stop, image=unit.image)
        if sandbox.run is not None:
            new.ends = started + sandbox.run
            new.reason = "Completed" if sandbox.exit_code == 0 else "Error"
            new.graceful = sandbox.exit_code == 0
        sandbox.units[unit.name] = new
        self._save(workload.uid)
        self._arm(workload.uid, unit.name)

    async def stop_unit(self, uid: str, unit: str) -> None:
        self._end(uid, unit, graceful=True)

    async def kill_unit(self, uid: str, unit: str) -> None:
        self._end(uid, unit, graceful=False)

    def _end(self, uid: str, name: str, *, graceful: bool) -> None:
        unit = self._sandbox(uid).units.get(name)
        if unit is None or (graceful and unit.stop_seconds is None):
            return
        now = self._clock()
        at = now + (unit.stop_seconds or 0.0) if graceful else now
        if unit.ends is not None and unit.ends <= at:
            return
        unit.ends, unit.graceful = at, graceful
        unit.exit_code = 0 if graceful else 137
        unit.reason = "Completed" if graceful else "Error"
        self._save(uid)
        self._arm(uid, name)

    async def pause_unit(self, uid: str, unit: str, paused: bool) -> None:
        known = self._sandbox(uid).units.get(unit)
        if known is None or known.paused == paused:
            return
        known.paused = paused
        self._save(uid)

    async def remove(self, uid: str) -> None:
        if self._sandboxes.pop(uid, None) is None:
            return
        for key in [key for key in self._timers if key[0] == uid]:
            self._timers.pop(key).cancel()
        self._append({"uid": uid})

    async def observe(self, uid: str) -> Observed | None:
        sandbox = self._sandboxes.get(uid)
        return None if sandbox is None else self._observed(uid, sandbox)

    async def observe_all(self) -> Sequence[Observed]:
        return [self._observed(uid, sandbox) for uid, sandbox in self._sandboxes.items()]

    async def storage(self, workload: Workload) -> StorageUse:
        """What its annotation says that each unit wrote."""
        written = int(workload.annotations.get(PREFIX + "storage-bytes", 0))
        sandbox = self._sandboxes.get(workload.uid)
        return StorageUse(dict.fromkeys(sandbox.units, written) if sandbox else {})

    def on_change(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    async def exec(self, uid: str, unit: str, command: Sequence[str], timeout: float) -> ExecResult:
        if (await self.observe(uid) or Observed(uid, "", "", False, {})).unit(unit).state is not UnitState.RUNNING:
            raise RuntimeFailure(RuntimeReason.RUN, f"{unit} does not run, so nothing can be executed in it")
        return ExecResult(0, b"")

    async def logs(
        self,
        uid: str,
        unit: str,
        *,
        follow: bool,
        tail_lines: int | None,
        since: float | None,
        previous: bool,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        """What a simulated unit has to say: that it was started."""
        known = self._sandbox(uid).units.get(unit)
        if previous and (known is None or known.attempt == 0):
            raise RuntimeFailure(RuntimeReason.RUN, f"{unit} has not run before")
        if known is not None and tail_lines != 0 and (since is None or known.started >= since):
            attempt = known.attempt - previous
            line = f"simulated {self.name} unit {unit}: started, attempt {attempt}\n".encode()
            yield stamp(known.started, line) if timestamps else line

    # the journal

    def _load(self) -> None:
        if not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError:
                # The last line of a process that was killed while writing: its call never returned.
                continue
            uid, body = entry["uid"], entry.get("sandbox")
            if body is None:
                self._sandboxes.pop(uid, None)
                continue
            fields = SIMULATED_SANDBOX.read(body)
            fields["addresses"] = tuple(fields["addresses"])
            fields["units"] = {name: _Unit(**unit) for name, unit in fields["units"].items()}
            self._sandboxes[uid] = _Sandbox(**fields)

    def _compact(self) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            for uid, sandbox in self._sandboxes.items():
                file.write(orjson.dumps(_entry(uid, sandbox)) + b"\n")
        fresh.replace(self._path)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _save(self, uid: str) -> None:
        self._append(_entry(uid, self._sandboxes[uid]))

    def _append(self, entry: Mapping[str, Any]) -> None:
        os.write(self._fd, orjson.dumps(entry) + b"\n")

    # the clock

    def _sandbox(self, uid: str) -> _Sandbox:
        try:
            return self._sandboxes[uid]
        except KeyError:
            raise RuntimeFailure(RuntimeReason.SANDBOX, f"no sandbox {uid}: prepare it first") from None

    def _arm(self, uid: str, name: str) -> None:
        """Wake at the next change that the clock brings about."""
        if (old := self._timers.pop((uid, name), None)) is not None:
            old.cancel()
        unit, now = self._sandboxes[uid].units[name], self._clock()
        upcoming = [at for at in (unit.started, unit.ends) if at is not None and at > now]
        if upcoming:
            delay = min(upcoming) - now
            self._timers[(uid, name)] = asyncio.get_running_loop().call_later(delay, self._ring, uid, name)
        elif unit.ends is not None:
            asyncio.get_running_loop().call_soon(self._notify, uid)

    def _ring(self, uid: str, name: str) -> None:
        self._timers.pop((uid, name), None)
        if uid in self._sandboxes:
            self._arm(uid, name)
            self._notify(uid)

    def _notify(self, uid: str) -> None:
        for callback in self._callbacks:
            callback(uid)

    def _observed(self, uid: str, sandbox: _Sandbox) -> Observed:
        units = {name: self._unit(uid, name, unit) for name, unit in sandbox.units.items()}
        return Observed(uid, sandbox.namespace, sandbox.name, True, units, sandbox.addresses)

    def _unit(self, uid: str, name: str, unit: _Unit) -> UnitObserved:
        now = self._clock()
        handle = f"simulated://{uid}/{name}/{unit.attempt}"
        seen = UnitObserved(name, UnitState.CREATED, unit.attempt, handle, image=unit.image)
        if unit.ends is not None and unit.ends <= now:
            return replace(
                seen,
                state=UnitState.EXITED,
                started_at=min(unit.started, unit.ends),
                finished_at=unit.ends,
                exit_code=unit.exit_code,
                reason=unit.reason,
                graceful=unit.graceful,
            )
        if unit.started > now:
            return seen
        state = UnitState.PAUSED if unit.paused else UnitState.RUNNING
        return replace(seen, state=state, started_at=unit.started, details={"accelerator": "simulated"})
