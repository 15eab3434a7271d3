"""A day of three tenants, shaped like the published cluster traces, replayed through the real verbs and store on a virtual clock.

The shape (Google's and Azure's traces): arrivals swing with the hour; most workloads are small and short, few are large and long;
a fifth is production, the rest batch; a third are virtual machines.  The test plays the node: what is admitted runs its time,
what is evicted leaves after a while and is created again by its owner, to run what was left.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from isoplane.http.request_options import Call
from isoplane.objects.errors import NotFound, QuotaExceeded
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.server.quota_admission import repair
from isoplane.store.hub import Subscription
from quota_plane_support import QuotaPlane, condition, pod, quota_plane, vmi

DAY = 86_400.0
WORKLOADS = 4_000 if os.environ.get("CI") else 500
TENANTS = ("a", "b", "c")


@dataclass(frozen=True)
class Job:
    """What somebody wants run, and for how much longer."""

    serial: int
    tenant: str
    machine: bool
    cpu: int
    priority: str
    owned: bool
    left: float
    born: float
    tries: int = 0

    @property
    def resource(self) -> Resource:
        return VIRTUALMACHINEINSTANCES if self.machine else PODS

    @property
    def name(self) -> str:
        return f"w{self.serial}-{self.tries}"

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.resource.plural, self.tenant, self.name)


def jobs(rng: Random) -> list[Job]:
    made = []
    while len(made) < WORKLOADS:
        at = rng.uniform(0, DAY)
        # Twice as busy at three in the afternoon as at three in the night.
        if rng.random() > 0.66 + 0.34 * math.sin((at / DAY - 0.375) * 2 * math.pi):
            continue
        priority = rng.choices(["", "normal", "critical"], [50, 30, 20])[0]
        left = min(rng.lognormvariate(6.5, 1.4), 6 * 3600)
        cpu = rng.choices([1, 2, 4, 8, 16], [50, 25, 15, 8, 2])[0]
        tenant = rng.choices(TENANTS, [5, 3, 2])[0]
        made.append(Job(len(made), tenant, rng.random() < 0.33, cpu, priority, rng.random() < 0.8, left, at))
    return made


class Day:
    def __init__(self, plane: QuotaPlane, watches: list[Subscription]) -> None:
        self.plane = plane
        self.watches = watches
        self.start = plane.now
        self.serial = itertools.count()
        self.events: list[tuple[float, int, str, Job]] = []
        self.alive: dict[tuple[str, str, str], Job] = {}
        self.running: dict[tuple[str, str, str], float] = {}
        self.leaving: set[tuple[str, str, str]] = set()
        self.done = self.refused = self.evicted = 0
        self.waits: list[float] = []

    def at(self, moment: float, what: str, job: Job) -> None:
        heapq.heappush(self.events, (moment, next(self.serial), what, job))

    async def play(self) -> None:
        while self.events:
            moment, _, what, job = heapq.heappop(self.events)
            self.plane.now = self.start + moment
            if what == "arrive":
                await self.arrive(job, moment)
            elif what == "end" and job.key in self.alive and job.key not in self.leaving:
                await self.gone(job)
                self.done += 1
            elif what == "gone":
                await self.gone(job)
                if job.owned:
                    self.at(moment + 1, "arrive", replace(job, tries=job.tries + 1))
            await self.look(moment)

    async def arrive(self, job: Job, moment: float) -> None:
        make = vmi if job.machine else pod
        obj = make(job.name, job.tenant, cpu=str(job.cpu), priority=job.priority, owner="rs" if job.owned else "")
        try:
            await self.plane.api.create(job.resource, obj)
        except QuotaExceeded:
            assert not job.owned
            self.refused += 1
            return
        self.alive[job.key] = job

    async def gone(self, job: Job) -> None:
        for table in (self.alive, self.running):
            table.pop(job.key, None)
        self.leaving.discard(job.key)
        try:
            await self.plane.verbs.delete(job.resource, job.tenant, job.name, _NOW, Call())
        except NotFound:
            raise AssertionError(f"{job.key} went without being told to") from None

    async def look(self, moment: float) -> None:
        """Follow what the store says: who was let in runs, who is told to leave does so after its grace."""
        changes = [change for watch in self.watches for change in await watch.next(0)]
        for change in changes:
            record = change.record
            job = self.alive.get((record.resource.plural, record.namespace, record.name))
            if job is None or change.type == "DELETED":
                continue
            obj = record.object()
            if obj["metadata"].get("deletionTimestamp") and job.key not in self.leaving:
                assert condition(obj, "DisruptionTarget")["reason"] == "PreemptedByQuota"
                self.leaving.add(job.key)
                self.evicted += 1
                ran = moment - self.running.pop(job.key, moment)
                self.at(moment + 5, "gone", replace(job, left=max(1.0, job.left - ran)))
            elif not is_gated(obj) and job.key not in self.running and job.key not in self.leaving:
                self.running[job.key] = moment
                self.waits.append(moment - job.born)
                self.at(moment + job.left, "end", job)
                await self.place(job, obj)
                await self.look(moment)

    async def place(self, job: Job, obj: Any) -> None:
        if job.machine:
            obj["status"] = {**(obj.get("status") or {}), "phase": "Running", "nodeName": "n1"}
            await self.plane.api.update(job.resource, obj, subresource="status")
        else:
            await self.plane.api.subresource(PODS, job.name, job.tenant, "binding", {"target": {"name": "n1"}})


def is_gated(obj: Any) -> bool:
    return bool(obj["spec"].get("schedulingGates")) or condition(obj, "QuotaAdmitted").get("status") == "False"


@pytest.mark.slow
async def test_a_day_breaks_no_invariant(tmp_path: Path) -> None:
    async with quota_plane(tmp_path / "data") as plane:
        await plane.priority("normal", 100)
        await plane.priority("critical", 1000)
        size = max(20, WORKLOADS // 25)
        await plane.node(cpu=str(size), memory="512Gi", pods="9999")
        await plane.cohort(cpu="1.5", memory="1.2", pods=10)
        for tenant in TENANTS:
            hard = {"requests.cpu": str(size), "pods": "9999"}
            guaranteed = {"cpu": str(size // 2)}  # Together all there is: what one lends another takes back.
            await plane.tenant(tenant, hard, evictionThreshold=500, cohort="default", guaranteed=guaranteed)
            await plane.maker(tenant, "rs")
        watches = [plane.store.watch(resource, None) for resource in (PODS, VIRTUALMACHINEINSTANCES)]
        day = Day(plane, watches)
        for job in jobs(Random(20260801)):
            day.at(job.born, "arrive", job)
        peak = 0
        real, checks = plane.verbs.delete, itertools.count()

        async def checked(*args: Any) -> Any:
            nonlocal peak
            if next(checks) % 20 == 0:
                peak = max(peak, balanced(plane, size * 1500))
            return await real(*args)

        plane.verbs.delete = checked  # type: ignore[method-assign]
        await day.play()
        accounts = plane.accounts()
        assert [w for tenant in TENANTS for w in accounts.waiting(tenant)] == [], "every wait ends"
        assert day.done + day.refused + (day.evicted - len(day.leaving)) >= WORKLOADS
        assert not day.alive
        assert day.evicted > 0, "a day without scarcity tests nothing"
        assert peak > size * 1000, "what is overcommitted is used"
        assert await repair(plane.store, plane.plugin, lambda: plane.now) == []


def balanced(plane: QuotaPlane, capacity: int) -> int:
    """Every sum is right and no ceiling is passed; returns the CPU in use."""
    accounts, total = plane.accounts(), 0
    for tenant in TENANTS:
        assert accounts.book(tenant).same(accounts.recount(tenant))
        for quota in accounts.quotas(tenant):
            totals = accounts.totals(tenant, quota.name)
            for name, limit in quota.hard.items():
                assert totals.used.get(name, 0) <= limit
                assert totals.soft(name) <= limit
        total += accounts.whole(tenant).used.get("requests.cpu", 0)
    assert total <= capacity
    cohort = accounts.cohort("default")
    assert cohort is not None
    assert accounts.cohort_totals("default").same(accounts.recount_cohort(cohort))
    return total


def _grace_zero() -> Any:
    from isoplane.http.request_options import DeleteOptions

    return DeleteOptions(grace_seconds=0)


_NOW = _grace_zero()
