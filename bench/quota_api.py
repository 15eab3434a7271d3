"""The 15,000 workloads that Kueue publishes, through the verbs and the durable store.

    python bench/quota_api.py [--drop] [--scale 1.0] [--json]

With run times (the default): every Pod is created when Kueue's generator would, waits Gated for its queue's 20 CPUs,
"runs" its time and is deleted; the whole takes the quota-bound floor of 66 s or longer.  With ``--drop``: all are created
64 at a time, and deleted as soon as they are admitted: durable admissions a second.  ``--scale`` takes a part of the queues.

Caveats: no HTTP; a run is a timer, no node is involved.  Kueue: 351 s for this shape (42.7 admissions/s).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from isoplane.objects.kinds import NAMESPACES, PODS, PRIORITYCLASSES, RESOURCEQUOTAS
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.call import Call, DeleteOptions
from isoplane.server.priority_admission import PriorityAdmission
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.verbs import Verbs
from isoplane.store import Store
from quota_kueue import CLASSES, OWN_CPUS, Class

AT_ONCE = 64
NOW = DeleteOptions(grace_seconds=0)


def pod(name: str, kind: Class) -> dict[str, Any]:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "ownerReferences": [owner]},
        "spec": {
            "priorityClassName": kind.name,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": str(kind.cpu)}}}],
        },
    }


class Bench:
    def __init__(self, verbs: Verbs, drop: bool) -> None:
        self.verbs = verbs
        self.drop = drop
        self.admitted: dict[tuple[str, str], asyncio.Event] = {}
        self.waits: dict[str, list[float]] = {kind.name: [] for kind in CLASSES}

    async def watch(self) -> None:
        """Who was let in, by the store's own word."""
        subscription = self.verbs.store.watch(PODS, None)
        while True:
            for change in await subscription.next(3600):
                record = change.record
                event = self.admitted.get((record.namespace, record.name))
                if event is not None and change.type == "MODIFIED" and b'"schedulingGates"' not in record.data:
                    event.set()

    async def one(self, tenant: str, name: str, kind: Class) -> None:
        """The life of one workload."""
        event = self.admitted[(tenant, name)] = asyncio.Event()
        began = perf_counter()
        record = await self.verbs.create(PODS, tenant, pod(name, kind), Call())
        if b'"schedulingGates"' in record.data:
            await event.wait()
        self.waits[kind.name].append(perf_counter() - began)
        if not self.drop:
            await asyncio.sleep(kind.run)
        await self.verbs.delete(PODS, tenant, name, NOW, Call())
        del self.admitted[(tenant, name)]


async def run(directory: Path, queues: int, drop: bool) -> dict[str, Any]:
    store = Store.open(directory)
    verbs = Verbs(store, Chain([PriorityAdmission(), QuotaAdmission()]))
    await bootstrap(verbs)
    for kind in CLASSES:
        await verbs.create(PRIORITYCLASSES, "", {"metadata": {"name": kind.name}, "value": kind.priority}, Call())
    tenants = [f"q{number}" for number in range(queues)]
    for tenant in tenants:
        await verbs.create(NAMESPACES, "", {"metadata": {"name": tenant}}, Call())
        hard = {"requests.cpu": str(OWN_CPUS)}
        await verbs.create(RESOURCEQUOTAS, tenant, {"metadata": {"name": "own"}, "spec": {"hard": hard}}, Call())
    bench = Bench(verbs, drop)
    watching = asyncio.create_task(bench.watch())
    await asyncio.sleep(0)
    jobs = [
        (number * kind.every, tenant, f"{kind.name}-{number}", kind)
        for tenant in tenants
        for kind in CLASSES
        for number in range(round(500 * kind.share))
    ]
    jobs.sort(key=lambda job: job[:3])
    began = perf_counter()
    if drop:
        source = iter(jobs)

        async def work() -> None:
            for _, tenant, name, kind in source:
                await bench.one(tenant, name, kind)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    else:

        async def later(at: float, tenant: str, name: str, kind: Class) -> None:
            await asyncio.sleep(max(0.0, began + at - perf_counter()))
            await bench.one(tenant, name, kind)

        await asyncio.gather(*(later(*job) for job in jobs))
    seconds = perf_counter() - began
    watching.cancel()
    await store.close()
    floor = sum(kind.cpu * kind.run * round(500 * kind.share) for kind in CLASSES) / OWN_CPUS
    return {
        "workloads": len(jobs),
        "seconds": round(seconds, 1),
        "admissions_per_second": round(len(jobs) / seconds),
        **({} if drop else {"floor_s": floor, "over_floor": round(seconds / floor, 3)}),
        "mean_wait_s": {name: round(statistics.mean(times), 2) for name, times in bench.waits.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--drop", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    # As the server sets it: a full collection over thousands of waiting tasks stops everything for a while.
    gc.set_threshold(50_000, 50, 50)
    with tempfile.TemporaryDirectory(prefix="isoplane-bench-") as directory:
        result = asyncio.run(run(Path(directory), max(1, round(30 * args.scale)), args.drop))
    if args.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
