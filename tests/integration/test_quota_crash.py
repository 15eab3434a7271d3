"""Quota survives everything that can happen between two of its writes: kills, full disks, refusals by others, dry runs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import Awaitable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from isoplane.objects.errors import ApiError, Forbidden, InsufficientStorage, QuotaExceeded
from isoplane.objects.kinds import PODS, QUOTAPOLICIES, RESOURCEQUOTAS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.quota.scopes import counts
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.server.quota_admission import repair
from isoplane.store import Store, Transaction
from quota_plane_support import QuotaPlane, pod, quota_plane, vmi

CLASSES = ("batch", "normal", "critical")


def check(plane: QuotaPlane) -> None:
    """counters = Σ ledger = Σ charged objects, and no limit is passed."""
    accounts = plane.accounts()
    for tenant in ("a", "b"):
        charges = {c.uid: c for c in accounts.charges(tenant)}
        waiting = {w.charge.uid: w for w in accounts.waiting(tenant)}
        live: dict[str, Any] = {}
        for resource in (PODS, VIRTUALMACHINEINSTANCES):
            for record in plane.store.state.list(resource, tenant):
                live[record.uid] = record.object()
        gated = {
            uid
            for uid, obj in live.items()
            if obj["spec"].get("schedulingGates")
            or any(
                c["type"] == "QuotaAdmitted" and c["status"] == "False"
                for c in (obj.get("status") or {}).get("conditions") or ()
            )
        }
        over = {
            uid
            for uid in gated
            if live[uid]["metadata"].get("deletionTimestamp") or live[uid]["status"].get("phase") == "Failed"
        }
        assert set(waiting) == gated - over
        assert set(charges) == set(live) - (gated - over)
        assert all(charges[uid].finished for uid in over)
        truth = accounts.recount(tenant)
        assert accounts.book(tenant).same(truth)
        for quota in accounts.quotas(tenant):
            totals = accounts.totals(tenant, quota.name)
            for name, limit in quota.hard.items():
                used = sum(c.amounts.get(name, 0) for c in charges.values() if counts(quota, c))
                assert totals.used.get(name, 0) == used <= limit
                assert totals.soft(name) <= limit
            record = plane.store.state.get(RESOURCEQUOTAS, tenant, quota.name)
            assert record is not None
            shown = record.object()["status"]["used"]
            assert int(shown["pods"]) == totals.used.get("pods", 0)


def is_gated(obj: Any) -> bool:
    admitted = next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == "QuotaAdmitted"), {})
    return bool(obj["spec"].get("schedulingGates")) or admitted.get("status") == "False"


async def outcome(asked: Awaitable[Any]) -> str | bool:
    """Of a create, dry or not: the refusal, or whether it is gated."""
    try:
        came = await asked
    except QuotaExceeded as refusal:
        return refusal.message
    return is_gated(came[0] if isinstance(came, tuple) else came)


class Life:
    """Random people using two tenants."""

    def __init__(self, plane: QuotaPlane, seed: int, *, alone: bool = False) -> None:
        self.plane = plane
        self.alone = alone
        self.seen: Counter[Any] = Counter()
        self.rng = Random(seed)
        self.serial = 0

    async def settle(self) -> None:
        for name, value in (("batch", 10), ("normal", 100), ("critical", 1000)):
            await self.plane.priority(name, value)
        hard = {"requests.cpu": "6", "requests.memory": "4Gi", "pods": "8"}
        for tenant in ("a", "b"):
            await self.plane.tenant(tenant, hard, evictionThreshold=500)
            await self.plane.maker(tenant, "rs")

    async def step(self) -> None:
        """One thing that somebody does; refusals are part of life."""
        plane, rng = self.plane, self.rng
        plane.now += 1
        tenant = rng.choice("ab")
        with contextlib.suppress(ApiError):
            match rng.randrange(8):
                case 0 | 1 | 2:
                    self.serial += 1
                    is_pod = rng.random() < 0.6
                    owner = "rs" if rng.random() < 0.5 else ""
                    fields = {"cpu": str(rng.randint(1, 3)), "priority": rng.choice(CLASSES), "owner": owner}
                    if is_pod:
                        fields["memory"] = "64Mi"
                    await self._create(is_pod, f"w{self.serial}", tenant, fields)
                case 3 | 4:
                    await self._delete(tenant, 0)
                case 5:
                    await self._delete(tenant, None)
                case 6:
                    await self._end(tenant)
                case 7:
                    make_obj = rng.choice([pod, vmi])
                    resource = PODS if make_obj is pod else VIRTUALMACHINEINSTANCES
                    await plane.dry_run(make_obj("dry", tenant, priority="critical", owner="rs"), resource)

    async def _create(self, is_pod: bool, name: str, tenant: str, fields: dict[str, Any]) -> None:
        """Create; where nobody else is at it, ask by a dry run first: that changes nothing, and is answered the same."""
        plane, before = self.plane, self.plane.store.revision
        make, resource = (pod, PODS) if is_pod else (vmi, VIRTUALMACHINEINSTANCES)
        foretold: Any = None
        if self.alone:
            foretold = await outcome(plane.dry_run(make(name, tenant, **fields), resource))
            assert plane.store.revision == before
        came = await outcome((plane.pod if is_pod else plane.vmi)(name, tenant, **fields))
        assert foretold is None or came == foretold
        self.seen.update([came if isinstance(came, bool) else "refused"])

    def _some(self, tenant: str) -> tuple[Resource, Any] | None:
        records = [r for res in (PODS, VIRTUALMACHINEINSTANCES) for r in self.plane.store.state.list(res, tenant)]
        record = self.rng.choice(sorted(records, key=lambda r: r.name)) if records else None
        return (record.resource, record.object()) if record is not None else None

    async def _delete(self, tenant: str, grace: int | None) -> None:
        if found := self._some(tenant):
            await self.plane.api.delete(found[0], found[1]["metadata"]["name"], tenant, grace_seconds=grace)

    async def _end(self, tenant: str) -> None:
        if found := self._some(tenant):
            resource, obj = found
            obj["status"] = {**(obj.get("status") or {}), "phase": self.rng.choice(["Running", "Running", "Failed"])}
            await self.plane.api.update(resource, obj, subresource="status")


@pytest.mark.parametrize("seed", range(16))
async def test_the_books_balance_after_every_step_of_a_life(tmp_path: Path, seed: int) -> None:
    async with quota_plane(tmp_path / "data") as plane:
        life = Life(plane, seed, alone=True)
        await life.settle()
        for _ in range(120):
            await life.step()
            check(plane)
        assert min(life.seen[what] for what in (True, False, "refused")) > 0, life.seen
        assert await repair(plane.store, plane.plugin, lambda: plane.now) == []


async def test_a_kill_at_any_moment_leaves_nothing_to_repair(tmp_path: Path) -> None:
    """What is on disk after each write, opened as if the process had died there."""
    async with quota_plane(tmp_path / "data") as plane:
        life = Life(plane, 7)
        await life.settle()
        for number in range(25):
            burst = [asyncio.ensure_future(life.step()) for _ in range(3)]
            await asyncio.sleep(0)
            copy = tmp_path / f"copy{number}"
            shutil.copytree(tmp_path / "data", copy, ignore=shutil.ignore_patterns("*lock*"))
            await asyncio.gather(*burst)
            store = Store.open(copy)
            try:
                dead = QuotaPlane(store)
                check(dead)
                assert await repair(store, dead.plugin) == []
            finally:
                await store.close()


class Photographer:
    """SQLite's connection, with a copy of the directory taken before and after everything that it is told."""

    def __init__(self, connection: Any, directory: Path, album: Path) -> None:
        self._connection = connection
        self._directory = directory
        self._album = album
        self.taken = 0

    def _shoot(self) -> None:
        ignored = shutil.ignore_patterns("*lock*", "pki")
        shutil.copytree(self._directory, self._album / str(self.taken), ignore=ignored)
        self.taken += 1

    def execute(self, *args: Any) -> Any:
        self._shoot()
        try:
            return self._connection.execute(*args)
        finally:
            self._shoot()

    def executemany(self, *args: Any) -> Any:
        try:
            return self._connection.executemany(*args)
        finally:
            self._shoot()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_a_crash_at_every_step_of_a_preemption_leaves_nothing_to_repair(tmp_path: Path) -> None:
    """Object, charge, counters, victims and hold: after each statement of each transaction the disk has all of it, or nothing."""
    album = tmp_path / "album"
    async with quota_plane(tmp_path / "data") as plane:
        await Life(plane, 0).settle()
        await plane.pod("low", cpu="3", memory="64Mi", priority="batch")
        await plane.vmi("old", cpu="3", priority="batch")
        database = plane.store._writer._committer
        camera = Photographer(database._db, tmp_path / "data", album)  # type: ignore[attr-defined]
        database._db = camera  # type: ignore[attr-defined]
        await plane.vmi("db", cpu="6", priority="critical")
        await plane.pod("patient", cpu="1", memory="64Mi", priority="batch", owner="rs")
        await plane.gone("low")
        await plane.gone("old", resource=VIRTUALMACHINEINSTANCES)
        await plane.gone("db", resource=VIRTUALMACHINEINSTANCES)
        database._db = camera._connection  # type: ignore[attr-defined]
    assert camera.taken >= 5 * 6
    states: list[tuple[int, int]] = []
    for number in range(camera.taken):
        store = Store.open(album / str(number))
        try:
            dead = QuotaPlane(store)
            check(dead)
            assert await repair(store, dead.plugin) == []
            accounts = dead.accounts()
            states.append((len(list(accounts.charges("a"))), len(list(accounts.waiting("a")))))
        finally:
            await store.close()
    # (charged, waiting): full; the preemptor waits; one behind it; a victim gone; the last, so it is in; it goes, so the next is.
    steps = [(2, 0), (2, 1), (2, 2), (1, 2), (1, 1), (1, 0)]
    assert [step for at, step in enumerate(states) if at == 0 or states[at - 1] != step] == steps


class Full:
    """A disk that is full now and then."""

    short = False

    def __init__(self, committer: Any, rng: Random) -> None:
        self.committer = committer
        self.rng = rng
        self.failures = 0

    def commit(self, write: Any) -> None:
        if self.rng.random() < 0.3:
            self.failures += 1
            raise InsufficientStorage("the disk is full; nothing was written")
        self.committer.commit(write)

    def maintain(self) -> None:
        self.committer.maintain()


async def test_a_full_disk_loses_no_count(tmp_path: Path) -> None:
    async with quota_plane(tmp_path / "data") as plane:
        life = Life(plane, 11)
        await life.settle()
        writer = plane.store._writer
        writer._committer = full = Full(writer._committer, Random(1))
        for _ in range(60):
            await asyncio.gather(life.step(), life.step(), life.step(), return_exceptions=True)
            check(plane)
        assert full.failures > 5
        writer._committer = full.committer
        assert await repair(plane.store, plane.plugin, lambda: plane.now) == []


class Contrary(Plugin):
    """Somebody behind quota in the chain who refuses some of what quota has just decided."""

    def __init__(self) -> None:
        self.rng = Random(3)
        self.refused = 0

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return resource in (PODS, VIRTUALMACHINEINSTANCES)

    def in_transaction(self, txn: Transaction, request: AdmissionRequest) -> Iterable[str]:
        if self.rng.random() < 0.3:
            self.refused += 1
            raise Forbidden("not today")
        return ()


async def test_a_later_refusal_undoes_everything(tmp_path: Path) -> None:
    async with quota_plane(tmp_path / "data") as plane:
        life = Life(plane, 13)
        await life.settle()
        contrary = Contrary()
        plane.verbs.admission.add(contrary)
        for _ in range(120):
            await life.step()
            check(plane)
        assert contrary.refused > 10


async def test_what_is_wrong_is_repaired_told_and_nobody_is_left_waiting(tmp_path: Path) -> None:
    async with quota_plane(tmp_path / "data") as plane:
        await plane.tenant("a", {"requests.cpu": "4", "pods": "9"})
        await plane.tenant("b", {"requests.cpu": "4", "pods": "9"})
        first = await plane.pod("first", cpu="4")
        await plane.pod("second", cpu="4", owner="rs")
        uid = first["metadata"]["uid"]

        def harm(txn: Transaction) -> None:
            # The first is removed behind the ledger's back.
            record = txn.get(PODS, "a", "first")
            assert record is not None
            txn.delete(record)

        await plane.store.transact(harm)
        assert plane.accounts().charge("a", uid) is not None
        found = await repair(plane.store, plane.plugin, lambda: plane.now)
        assert {f.tenant for f in found} == {"a"}
        assert not (await plane.api.get(PODS, "second", "a"))["spec"].get("schedulingGates")
        check(plane)
        audit = plane.store.state.rows("quota.audit").values()
        assert any(b'"repair"' in row for row in audit)
        assert await repair(plane.store, plane.plugin, lambda: plane.now) == []
        await plane.api.delete(RESOURCEQUOTAS, "q", "a")
        with contextlib.suppress(ApiError):
            await plane.api.delete(QUOTAPOLICIES, "default", "a")
