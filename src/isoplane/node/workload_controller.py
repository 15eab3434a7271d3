"""The one controller of Pods and VMs: get the desired state, get the actual state, compute the delta, act, report.

It carries out what ``workload.delta`` decides and tells what ``workload.lifecycle`` derives; it chooses nothing.  The key is
the workload's uid, so that a name used again is another workload.  Level-triggered: call :meth:`reconcile` at any time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.client.workqueue import WorkQueue
from isoplane.node.materials import MaterialsMissing, gather
from isoplane.node.network.protocol import Fabric, FabricFailure
from isoplane.node.prober import Prober
from isoplane.node.runtime.protocol import Materials, Runtime, RuntimeFailure, RuntimeReason
from isoplane.node.seams import Enforcement, Events, Lookup
from isoplane.node.status_writer import StatusWriter
from isoplane.node.telling import Teller
from isoplane.node.track import Desired, Track
from isoplane.objects.errors import ApiError, Conflict, NotFound
from isoplane.workload import backoff, eviction, health, sysctls, wording
from isoplane.workload import delta as steps
from isoplane.workload.adapters import Waiting
from isoplane.workload.shape import Observed, RunState, Stage, UnitState, Workload

_log = logging.getLogger(__name__)

MAX_ROUNDS = 32
"""Looks in one pass: enough for any number of init containers to be started in turn; the rest waits for the next pass."""
WORKERS = 16
"""Workloads in work at a time: most of the work is waiting for processes of the host."""
EARLY_REPORT = 0.1
"""Seconds of preparing after which people are told that it goes on."""
REFRESH_SECONDS = 30.0
"""Seconds after which volumes are brought up to their ConfigMaps and Secrets; the kubelet takes up to a minute and more."""
MEASURE_SECONDS = 10.0
"""Seconds between two measurements of what a limited workload takes of the disk: the kubelet's."""
_FILE_VOLUMES = ("configMap", "secret", "downwardAPI", "projected")
LONG_RUN = backoff.RESET_AFTER


class WorkloadController(Controller):
    """Runs the workloads of one node."""

    name = "workload"

    def __init__(
        self,
        *,
        node: str,
        api: Api,
        lookup: Lookup,
        runtimes: Mapping[str, Runtime],
        fabric: Fabric,
        events: Events,
        clock: Callable[[], float],
        enforcement: Enforcement | None = None,
        workers: int = WORKERS,
        unsafe_sysctls: Sequence[str] = (),
    ) -> None:
        """``unsafe_sysctls``: what Pods may set beyond the safe ones, names and patterns."""
        super().__init__(workers=workers, queue=WorkQueue(base_delay=0.05, max_delay=60.0))
        self._node = node
        self._api = api
        self._lookup = lookup
        self._runtimes = runtimes
        self._fabric = fabric
        self._teller = Teller(events)
        self._clock = clock
        self._enforcement = enforcement
        self._unsafe_sysctls = tuple(unsafe_sysctls)
        self._tracks: dict[str, Track] = {}
        self._prober = Prober(self._answered, runtimes)
        self._status = StatusWriter(node, api, fabric, clock, enforcement)

    async def reconcile(self, uid: str) -> float | None:
        """One pass over one workload. Returns the seconds after which to look again by itself, or None."""
        track = self._tracks.setdefault(uid, Track())
        desired = self.desired(uid, track)
        if desired is not None:
            track.stages.setdefault(Stage.PLACED, self._clock())
        plan = steps.Plan()
        observed: Observed | None = None
        for _ in range(MAX_ROUNDS):
            before, observed = observed, await self.actual(uid, desired, track)
            if before is not None and before == observed:
                break
            plan = self.delta(desired, observed, track)
            if not plan.actions or not await self.act(desired, plan, track, uid):
                break
        return await self._conclude(uid, desired, observed, plan, track)

    def desired(self, uid: str, track: Track) -> Desired | None:
        """The workload as it is wanted on this node, or None when it is not wanted here any more."""
        found = self._lookup(uid, track.newer)
        if found is None:
            return None
        track.runtime = found.workload.runtime
        return found if found.workload.node == self._node else None

    async def actual(self, uid: str, desired: Desired | None, track: Track) -> Observed | None:
        """The sandbox as the host has it."""
        names = [track.runtime] if track.runtime else list(self._runtimes)
        for name in names:
            observed = await self._runtimes[name].observe(uid)
            if observed is not None:
                track.runtime = name
                self._notice(desired, observed, track)
                return observed
        return None

    def _notice(self, desired: Desired | None, observed: Observed, track: Track) -> None:
        """Health begins anew with every attempt; a unit that runs has nothing to wait for."""
        if desired is None:
            return
        for unit in desired.workload.units:
            seen = observed.unit(unit.name)
            self._teller.ended(desired, seen, track)
            if seen.state not in (UnitState.RUNNING, UnitState.PAUSED):
                continue
            if unit.name not in track.health or track.attempts.get(unit.name) != seen.attempt:
                track.forget_unit(unit.name)
                track.health[unit.name] = health.initial(unit)
                track.attempts[unit.name] = seen.attempt
            track.waiting.pop(unit.name, None)

    def delta(self, desired: Desired | None, observed: Observed | None, track: Track) -> steps.Plan:
        """Desired minus actual."""
        workload = desired.workload if desired else None
        return steps.plan(workload, observed, track.memory(), self._clock())

    async def act(self, desired: Desired | None, plan: steps.Plan, track: Track, uid: str) -> bool:
        """Carry out a plan in order. False when a step failed and the rest has to wait."""
        try:
            for action in plan.actions:
                await self._step(action, desired, track, uid)
        except (RuntimeFailure, FabricFailure, MaterialsMissing) as failure:
            self._failed(failure, desired, plan, track)
            return False
        return True

    async def _step(self, action: steps.Action, desired: Desired | None, track: Track, uid: str) -> None:
        runtime = self._runtimes[track.runtime] if track.runtime else None
        match action:
            case steps.Prepare() if desired and (verdict := sysctls.forbidden(desired.workload, self._unsafe_sysctls)):
                track.verdict = verdict
                self._teller.verdict(desired, verdict)
            case steps.Prepare() if desired and runtime:
                await self._prepare(desired, runtime, track)
            case steps.Start(unit, attempt) if desired and runtime:
                await self._start(desired, runtime, unit.name, attempt, track)
            case steps.AskStop(unit_name, why) if runtime:
                now = self._clock()
                if desired is not None:
                    self._teller.stopping(desired, unit_name, why, track, killed=False)
                track.asked_first.setdefault(unit_name, now)
                track.asked[unit_name] = now
                await runtime.stop_unit(uid, unit_name)
            case steps.Kill(unit_name, why) if runtime:
                if desired is not None:
                    self._teller.stopping(desired, unit_name, why, track, killed=True)
                await runtime.kill_unit(uid, unit_name)
            case steps.Pause(unit_name, paused) if runtime:
                await runtime.pause_unit(uid, unit_name, paused)
            case steps.Remove() if runtime:
                if desired is not None:
                    # The last word before the sandbox goes: how it ended.
                    await self._status.report(desired, await runtime.observe(uid), track)
                await runtime.remove(uid)
            case _:
                pass

    async def _prepare(self, desired: Desired, runtime: Runtime, track: Track) -> None:
        track.stages.setdefault(Stage.PREPARING, self._clock())
        work = asyncio.ensure_future(self._prepare_now(desired, runtime, track))
        done, _ = await asyncio.wait({work}, timeout=EARLY_REPORT)
        if not done:
            await self._status.report(desired, None, track, stage=Stage.PREPARING)
        await work
        self._refreshed(desired.workload, track)
        track.failures, track.retry_at = 0, 0.0
        track.waiting.clear()

    async def _prepare_now(self, desired: Desired, runtime: Runtime, track: Track) -> None:
        await runtime.prepare(desired.workload, await self._materials(desired, track))

    async def _materials(self, desired: Desired, track: Track) -> Materials:
        workload = desired.workload
        objects = await gather(self._api, workload)
        network = await self._fabric.plug(workload)
        track.addresses = network.addresses
        if self._enforcement is not None and workload.interface.own:
            self._enforcement.changed(workload.uid)
        listener = self._teller.images(desired)
        return Materials(objects, network, self._node, self._fabric.node_addresses, listener)

    async def _start(self, desired: Desired, runtime: Runtime, name: str, attempt: int, track: Track) -> None:
        workload = desired.workload
        unit = next(u for u in workload.units if u.name == name)
        if attempt > 0 and track.told.get(name) != attempt:
            observed = await runtime.observe(workload.uid)
            seen = observed.unit(name) if observed else None
            ran_long = seen is not None and seen.finished_at - seen.started_at >= LONG_RUN
            track.crashes[name] = 1 if ran_long else track.crashes.get(name, attempt - 1) + 1
        await runtime.start_unit(workload, unit, attempt, await self._materials(desired, track))
        if track.told.get(name) != attempt:
            track.told[name] = attempt
            track.forget_unit(name)
            self._teller.started(desired, unit)
        track.failures, track.retry_at = 0, 0.0

    def _failed(
        self,
        failure: RuntimeFailure | FabricFailure | MaterialsMissing,
        desired: Desired | None,
        plan: steps.Plan,
        track: Track,
    ) -> None:
        """A step failed: say why on every unit it holds up, and when the next try is."""
        reason = str(failure.reason) if isinstance(failure, RuntimeFailure) else str(RuntimeReason.SANDBOX)
        if isinstance(failure, MaterialsMissing):
            reason = str(RuntimeReason.CREATE_CONFIG)
        message = str(failure)
        _log.warning("%s: %s: %s", desired.workload.id if desired else "gone", reason, message)
        if desired is None:
            track.retry_at = self._clock() + 1.0
            return
        track.failures += 1
        track.retry_at = self._clock() + backoff.image(track.failures)
        shown = reason
        if track.failures > 1 and reason == RuntimeReason.ERR_IMAGE_PULL:
            shown = wording.IMAGE_BACK_OFF
        started = [action.unit for action in plan.actions if isinstance(action, steps.Start)]
        for unit in started or desired.workload.units:
            track.waiting[unit.name] = Waiting(shown, message)
        self._teller.failed(desired, failure, reason, started, again=track.failures > 1)

    # what is told

    async def _conclude(
        self, uid: str, desired: Desired | None, observed: Observed | None, plan: steps.Plan, track: Track
    ) -> float | None:
        now = self._clock()
        if desired is None:
            self._prober.forget(uid)
            if observed is not None:
                return max(0.0, track.retry_at - now) or 1.0
            await self._unplug(uid)
            self._tracks.pop(uid, None)
            return None
        workload = desired.workload
        if workload.deleting and observed is None:
            self._prober.forget(uid)
            await self._unplug(uid)
            await self._release(workload)
            self._tracks.pop(uid, None)
            return None
        for unit, due in plan.backing_off.items():
            if due > now and observed is not None:
                seen, name = observed.unit(unit), f"{workload.name}_{workload.namespace}({workload.uid})"
                pause = wording.duration(due - seen.finished_at)
                message = f"back-off {pause} restarting failed container={unit} pod={name}"
                track.waiting[unit] = Waiting("CrashLoopBackOff", message)
                if track.backed_off.get(unit) != seen.attempt:
                    track.backed_off[unit] = seen.attempt
                    self._teller.backing_off(desired, unit, name)
        stage = await self._status.report(desired, observed, track)
        if stage in (Stage.SUCCEEDED, Stage.FAILED):
            self._prober.forget(uid)
            await self._unplug(uid)
        elif observed is not None and workload.desired is RunState.RUN:
            self._prober.follow(workload, observed)
        else:
            self._prober.forget(uid)
        refresh_at = await self._refresh(desired, observed, stage, track)
        measure_at = await self._measure(desired, observed, stage, track)
        wakes = [at for at in (plan.wake_at, track.retry_at or None, refresh_at, measure_at) if at is not None]
        return max(0.0, min(wakes) - now) if wakes else None

    def _refreshed(self, workload: Workload, track: Track) -> None:
        track.refresh_at = self._clock() + REFRESH_SECONDS
        track.told_of_itself = workload.labels, workload.annotations

    async def _refresh(self, desired: Desired, observed: Observed | None, stage: Stage, track: Track) -> float | None:
        """Bring the files in a workload's volumes up to their objects when it is time; returns the time of the next."""
        workload = desired.workload
        has_files = any(volume.get(kind) is not None for volume in workload.volumes for kind in _FILE_VOLUMES)
        gone = observed is None or not observed.prepared or stage in (Stage.SUCCEEDED, Stage.FAILED)
        if gone or not has_files or workload.deleting:
            return None
        itself = workload.labels, workload.annotations
        if self._clock() >= track.refresh_at or itself != track.told_of_itself:
            self._refreshed(workload, track)
            try:
                objects = await gather(self._api, workload, partly=True)
                network = await self._fabric.plug(workload)
                materials = Materials(objects, network, self._node, self._fabric.node_addresses)
                await self._runtimes[track.runtime].refresh(workload, materials)
            except (RuntimeFailure, FabricFailure, ApiError) as failure:
                self._teller.warn(desired, "FailedMount", str(failure))
        return track.refresh_at

    async def _measure(self, desired: Desired, observed: Observed | None, stage: Stage, track: Track) -> float | None:
        """Whether it takes more of the disk than it may, when it is time; returns the time of the next look."""
        workload = desired.workload
        over = stage in (Stage.SUCCEEDED, Stage.FAILED) or workload.deleting or track.verdict is not None
        if over or observed is None or not eviction.is_limited(workload):
            return None
        began = self._clock()
        if began < track.measure_at:
            return track.measure_at
        try:
            verdict = eviction.judge(workload, await self._runtimes[track.runtime].storage(workload))
        except RuntimeFailure as failure:
            _log.warning("%s: %s", workload.id, failure.message)
            verdict = None
        if verdict is not None:
            track.verdict = verdict
            self._teller.verdict(desired, verdict)
            return began
        # Many files take long to count: never more than a small part of the time.
        now = self._clock()
        track.measure_at = now + max(MEASURE_SECONDS, 10 * (now - began))
        return track.measure_at

    async def _unplug(self, uid: str) -> None:
        await self._fabric.unplug(uid)
        if self._enforcement is not None:
            self._enforcement.changed(uid)

    async def _release(self, workload: Workload) -> None:
        """The final delete: nothing of it is left on this node."""
        try:
            await self._api.delete(
                workload.resource, workload.name, workload.namespace, grace_seconds=0, uid=workload.uid
            )
        except (NotFound, Conflict):
            pass

    # probes

    def _answered(
        self, workload: Workload, unit_name: str, kind: health.ProbeKind, success: bool, message: str
    ) -> None:
        """A probe was answered: count it, and look at the workload again if that changed its health."""
        track = self._tracks.get(workload.uid)
        unit = next((u for u in workload.units if u.name == unit_name), None)
        if track is None or unit is None or unit_name not in track.health:
            return
        old = track.health[unit_name]
        new = health.after(unit, old, kind, success)
        track.health[unit_name] = new
        self._prober.update(workload.uid, unit_name, new)
        if not success and (found := self._lookup(workload.uid)) is not None:
            self._teller.unhealthy(found, unit, kind, message)
        if (old.ready, old.started, old.failed) != (new.ready, new.started, new.failed):
            self.enqueue(workload.uid)

    async def stop(self) -> None:
        """Stop looking and asking; leave everything running."""
        await super().stop()
        await self._prober.close()
