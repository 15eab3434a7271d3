"""kill -9 of a whole plane at random points: no acknowledged write is lost, nothing is started twice or left over."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import samples_support as samples
from isoplane.client.http import HttpApi
from isoplane.objects.errors import ApiError, NotFound
from isoplane.objects.kinds import NAMESPACES, PODS, VIRTUALMACHINEINSTANCES, Resource
from plane_support import PlaneProcess

KILLS = 50
SEEDS = (20260101, 20260102, 20260103, 20260104)
NAMESPACE = "tenant-a"
STORED = "kubevirt.io!=virt-launcher"
"""Selects all but the Pods that the plane shows for machines and nobody created."""


class Ledger:
    """What the plane acknowledged: what must be there, what must be gone, what may be either (cut off in mid-request)."""

    def __init__(self) -> None:
        self.present: dict[tuple[Resource, str], str] = {}
        self.deleted: set[str] = set()
        self.unsure: set[tuple[Resource, str]] = set()

    def check(self, found: dict[tuple[Resource, str], str]) -> None:
        for key, uid in self.present.items():
            assert found.get(key) == uid, f"an acknowledged {key[0].kind} {key[1]} is lost"
        assert not self.deleted & set(found.values()), "a deleted object came back"
        unknown = found.keys() - self.present.keys() - self.unsure
        assert not unknown, f"objects that nobody created: {unknown}"


async def _listed(api: HttpApi) -> dict[tuple[Resource, str], str]:
    found = {}
    for resource in (PODS, VIRTUALMACHINEINSTANCES):
        for obj in (await api.list(resource, NAMESPACE, label_selector=STORED)).items:
            if not obj["metadata"].get("deletionTimestamp"):
                found[(resource, obj["metadata"]["name"])] = obj["metadata"]["uid"]
    return found


async def _write_for_a_while(api: HttpApi, ledger: Ledger, rng: random.Random, number: int) -> None:
    """Create and delete until the plane dies under it."""
    for step in range(1000):
        resource, make = rng.choice(((PODS, samples.pod), (VIRTUALMACHINEINSTANCES, samples.vmi)))
        if ledger.present and rng.random() < 0.4:
            key = rng.choice(sorted(ledger.present, key=lambda k: (k[0].plural, k[1])))
            uid = ledger.present.pop(key)
            ledger.unsure.add(key)
            await api.delete(key[0], key[1], NAMESPACE, uid=uid)
            ledger.unsure.discard(key)
            ledger.deleted.add(uid)
            continue
        name = f"w{number}-{step}-{rng.randrange(10**6)}"
        obj = make(name)
        for field in ("uid", "creationTimestamp"):
            obj["metadata"].pop(field)
        obj["spec"]["terminationGracePeriodSeconds"] = 1
        key = (resource, name)
        ledger.unsure.add(key)
        made = await api.create(resource, obj, namespace=NAMESPACE)
        ledger.unsure.discard(key)
        ledger.present[key] = made["metadata"]["uid"]


def _sandboxes(data: Path) -> dict[str, dict[str, int]]:
    """uid → unit → how often it was started (its last attempt), from the simulated runtimes' journals."""
    found: dict[str, dict[str, int]] = {}
    for journal in (data / "simulated").glob("*.jsonl"):
        for line in journal.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry.get("sandbox") is None:
                found.pop(entry["uid"], None)
            else:
                found[entry["uid"]] = {name: unit["attempt"] for name, unit in entry["sandbox"]["units"].items()}
    return found


def _leases(data: Path) -> set[str]:
    with sqlite3.connect(data / "simulated" / "network" / "ipam.sqlite") as database:
        return {row[0] for row in database.execute("SELECT uid FROM lease")}


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    process = PlaneProcess(tmp_path / "data", "--runtime", "simulated")
    yield process
    process.close()


async def _settled(api: HttpApi, data: Path) -> dict[tuple[Resource, str], str]:
    """Wait until everything wanted runs, in one sandbox with one address each, started once, and nothing else is left."""
    for _ in range(800):
        objects = [
            o
            for r in (PODS, VIRTUALMACHINEINSTANCES)
            for o in (await api.list(r, NAMESPACE, label_selector=STORED)).items
        ]
        uids = {o["metadata"]["uid"] for o in objects}
        sandboxes = _sandboxes(data)
        starts = [attempt for units in sandboxes.values() for attempt in units.values()]
        assert not any(starts), "a unit was started twice"
        running = all(
            o["status"].get("phase") == "Running" and "deletionTimestamp" not in o["metadata"] for o in objects
        )
        if running and set(sandboxes) == uids == _leases(data):
            return await _listed(api)
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(objects)} objects, {len(sandboxes)} sandboxes, {len(_leases(data))} addresses")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_doubled_or_left_over(plane: PlaneProcess, seed: int) -> None:
    rng, ledger = random.Random(seed), Ledger()
    plane.start()
    async with plane.api() as api:
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for number in range(KILLS):
        async with plane.api() as api:
            writers = [
                asyncio.ensure_future(_write_for_a_while(api, ledger, random.Random(rng.random()), number * 10 + one))
                for one in range(2)
            ]
            await asyncio.sleep(rng.random() * 0.15)
            await asyncio.to_thread(plane.kill)
            for result in await asyncio.gather(*writers, return_exceptions=True):
                assert isinstance(result, ApiError | OSError), result
        await asyncio.to_thread(plane.start)
        async with plane.api() as api:
            ledger.check(await _listed(api))
            if number % 20 == 19:
                # Keep the number of workloads small, so that kills hit many different moments.
                for resource, name in list(ledger.present):
                    ledger.deleted.add(ledger.present.pop((resource, name)))
                    await api.delete(resource, name, NAMESPACE)
                await _forget_unsure(api, ledger)
    async with plane.api() as api:
        ledger.check(await _settled(api, plane.data))
        for resource, name in await _listed(api):
            await api.delete(resource, name, NAMESPACE)
        assert not await _settled(api, plane.data)
    assert plane.stop() == 0


async def _forget_unsure(api: HttpApi, ledger: Ledger) -> None:
    for resource, name in list(ledger.unsure):
        try:
            await api.delete(resource, name, NAMESPACE)
        except NotFound:
            pass
        ledger.unsure.discard((resource, name))
