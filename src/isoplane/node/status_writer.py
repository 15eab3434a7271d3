"""Tells what became of a workload: the status (and transitions) in its kind's own words, written when it says anything new.

Conflicts are solved here: the newest object is read and the same report told on top of it.  When to report, and what was
observed, is the controller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from isoplane.client.api import Api
from isoplane.node.network.protocol import Fabric
from isoplane.node.seams import Enforcement
from isoplane.node.track import Desired, Track
from isoplane.objects.errors import Conflict, NotFound
from isoplane.objects.metadata import Object
from isoplane.workload.adapters import Report
from isoplane.workload.lifecycle import initialized, overran, stage_of
from isoplane.workload.shape import ALIVE, Observed, Stage, Verdict, Workload

TRIES = 5
OVERRAN = Verdict("DeadlineExceeded", "it was active on the node for longer than the specified deadline")


class StatusWriter:
    """Writes the status of this node's workloads. ``clock`` in POSIX seconds."""

    def __init__(
        self, node: str, api: Api, fabric: Fabric, clock: Callable[[], float], enforcement: Enforcement | None
    ) -> None:
        self._node = node
        self._api = api
        self._fabric = fabric
        self._clock = clock
        self._enforcement = enforcement

    async def report(
        self, desired: Desired, observed: Observed | None, track: Track, stage: Stage | None = None
    ) -> Stage:
        """Write the status if it says anything new. Returns the stage (``stage``, or what is derived)."""
        now = self._clock()
        workload, uid = desired.workload, desired.workload.uid
        reached = stage or stage_of(workload, observed, now)
        verdict = track.verdict
        if verdict is not None and not workload.finished and not _alive(observed):
            reached = Stage.FAILED
        elif reached is Stage.FAILED and overran(workload, observed, now):
            verdict = OVERRAN
        failed = verdict if reached is Stage.FAILED else None
        track.stages.setdefault(reached, now)
        addresses = await self._addresses(workload, observed, reached, track)
        report = Report(
            stage=reached,
            observed=observed,
            initialized=initialized(workload, observed or Observed(uid, workload.namespace, workload.name, False, {})),
            health=dict(track.health),
            waiting=dict(track.waiting),
            transitions={s: at for s, at in track.stages.items() if str(s) not in workload.transitions},
            addresses=addresses,
            node=self._node,
            node_addresses=self._fabric.node_addresses,
            enforced=self._enforcement.enforced(uid) if self._enforcement else None,
            reason=failed.reason if failed else "",
            message=failed.message if failed else "",
            not_enforced=self._enforcement.failure if self._enforcement and self._governed(workload) else "",
        )
        await self._write(desired, report, track)
        return reached

    @staticmethod
    def _governed(workload: Workload) -> bool:
        """Whether it has a port of its own that policies guard."""
        return workload.interface.own

    async def _addresses(
        self, workload: Workload, observed: Observed | None, stage: Stage, track: Track
    ) -> tuple[str, ...]:
        if not workload.interface.own:
            return self._fabric.node_addresses
        known = track.addresses or (observed.addresses if observed else ()) or workload.addresses
        if not known and observed is not None and stage in (Stage.PREPARING, Stage.RUNNING):
            # Plugged in by an earlier process that did not live to tell.
            known = (await self._fabric.plug(workload)).addresses
        return known

    async def _write(self, desired: Desired, report: Report, track: Track) -> None:
        obj = desired.object
        for _ in range(TRIES):
            new = desired.adapter.report(obj, report, self._clock())
            if new.get("status") == obj.get("status") and _notes(new) == _notes(obj):
                return
            try:
                track.latest = await self._api.update(desired.workload.resource, new, subresource="status")
                return
            except NotFound:
                return
            except Conflict:
                try:
                    obj = await self._api.get(
                        desired.workload.resource, desired.workload.name, desired.workload.namespace
                    )
                except NotFound:
                    return
                if (obj.get("metadata") or {}).get("uid") != desired.workload.uid:
                    return
        raise Conflict(f"{desired.workload.id}: the status was written by others {TRIES} times in a row")


def _alive(observed: Observed | None) -> bool:
    return observed is not None and any(unit.state in ALIVE for unit in observed.units.values())


def _notes(obj: Object) -> Mapping[str, str]:
    return (obj.get("metadata") or {}).get("annotations") or {}
