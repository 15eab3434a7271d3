"""The shapes that Kueue publishes, through the API: HTTPS, all admission plug-ins, durable, Gated Pods watched over HTTP.

    python bench/quota_api.py [--times | --drop] [--scale 1.0] [--json]

With run times (15,000 in 30 queues): every Pod is created when Kueue's generator would, waits Gated for its queue's 20 CPUs,
"runs" its time and is deleted; the whole takes the quota-bound floor of 66 s or longer.  Run times dropped (both shapes):
64 lives at a time, each created, watched until it is admitted and deleted at once: durable admissions a second.  ``--scale``
takes a part of the queues.  Sixteen connections carry the calls, another the watch; client and server share this machine.

Caveats: a run is a timer, no node is involved.  Kueue: 351 s for the first shape (42.7 admissions/s), 1,179 s for the second.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
import uvloop

from api_load import Answers, Target, request, run
from quota_kueue import CLASSES, OWN_CPUS, SHAPES, Class

AT_ONCE = 64
CONNECTIONS = 16


def pod(name: str, kind: Class) -> bytes:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": True}
    return orjson.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {
                "priorityClassName": kind.name,
                "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": str(kind.cpu)}}}],
            },
        }
    )


class Caller(Answers):
    """A kept-alive connection: one call at a time, its body back. Raises RuntimeError on anything but a 2xx."""

    def call(self, data: bytes) -> asyncio.Future[bytes]:
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._answer

    def answered(self, answer: bytes, ok: bool, body_at: int) -> None:
        body = answer[body_at:]
        if ok:
            self._answer.set_result(body)
        else:
            self._answer.set_exception(RuntimeError(f"a request failed: {body[:300]!r}"))


class Gates(asyncio.Protocol):
    """A watch of all Pods that tells who is let in."""

    def __init__(self, admitted: dict[tuple[str, str], asyncio.Event]) -> None:
        self._admitted = admitted
        self._buffer = b""
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(request("GET", "/api/v1/pods?watch=true&allowWatchBookmarks=false"))

    def data_received(self, data: bytes) -> None:
        if not self.open.done():
            self.open.set_result(None)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if line.startswith(b'{"type":"MODIFIED"') and b'"schedulingGates"' not in line:
                meta = orjson.loads(line)["object"]["metadata"]
                if event := self._admitted.get((meta["namespace"], meta["name"])):
                    event.set()


class Bench:
    def __init__(self, drop: bool) -> None:
        self.drop = drop
        self.admitted: dict[tuple[str, str], asyncio.Event] = {}
        self.waits: dict[str, list[float]] = {kind.name: [] for kind in CLASSES}
        self._free: asyncio.Queue[Caller] = asyncio.Queue()

    async def connect(self, target: Target) -> None:
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await target.connect(Caller))
        watch = await target.connect(lambda: Gates(self.admitted))
        await watch.open

    async def _call(self, data: bytes) -> bytes:
        caller = await self._free.get()
        try:
            return await caller.call(data)
        finally:
            self._free.put_nowait(caller)

    async def one(self, tenant: str, name: str, kind: Class) -> None:
        """The life of one workload."""
        event = self.admitted[(tenant, name)] = asyncio.Event()
        began, path = perf_counter(), f"/api/v1/namespaces/{tenant}/pods"
        if b'"schedulingGates"' in await self._call(request("POST", path, pod(name, kind))):
            await event.wait()
        self.waits[kind.name].append(perf_counter() - began)
        if not self.drop:
            await asyncio.sleep(kind.run)
        await self._call(request("DELETE", f"{path}/{name}?gracePeriodSeconds=0"))
        del self.admitted[(tenant, name)]


def setup(tenants: list[str]) -> Iterator[bytes]:
    def post(path: str, obj: dict[str, Any]) -> bytes:
        return request("POST", path, orjson.dumps(obj))

    for kind in CLASSES:
        yield post(
            "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": kind.name}, "value": kind.priority}
        )
    for tenant in tenants:
        yield post("/api/v1/namespaces", {"metadata": {"name": tenant}})
        quota = {"metadata": {"name": "own"}, "spec": {"hard": {"requests.cpu": str(OWN_CPUS)}}}
        yield post(f"/api/v1/namespaces/{tenant}/resourcequotas", quota)


async def measure(target: Target, workloads: int, queues: int, drop: bool, scale: float) -> dict[str, Any]:
    each = workloads // queues
    tenants = [f"q{number}" for number in range(max(1, round(queues * scale)))]
    steps = setup(tenants)
    await run(target, 1, lambda: next(steps, None))
    bench = Bench(drop)
    await bench.connect(target)
    jobs = [
        (number * kind.every, tenant, f"{kind.name}-{number}", kind)
        for tenant in tenants
        for kind in CLASSES
        for number in range(round(each * kind.share))
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
    floor = sum(kind.cpu * kind.run * round(each * kind.share) for kind in CLASSES) / OWN_CPUS
    return {
        "workloads": len(jobs),
        "queues": len(tenants),
        "run_times": "dropped" if drop else "kept",
        "seconds": round(seconds, 1),
        "admissions_per_second": round(len(jobs) / seconds),
        **({} if drop else {"floor_s": floor, "over_floor": round(seconds / floor, 3)}),
        "mean_wait_s": {name: round(statistics.mean(times), 2) for name, times in bench.waits.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", action="store_true", help="only with run times")
    parser.add_argument("--drop", action="store_true", help="only with run times dropped")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    gc.set_threshold(50_000, 50, 50)
    results = []
    runs = [(15_000, False)] * (not args.drop) + [(shape, True) for shape in sorted(SHAPES)] * (not args.times)
    for shape, drop in runs:
        with tempfile.TemporaryDirectory(prefix="isoplane-bench-") as directory:
            serve = str(Path(__file__).with_name("api_serve.py"))
            command = [sys.executable, serve, directory, "127.0.0.1:0", "--admission"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                try:
                    assert server.stdout is not None
                    target = Target(Path(server.stdout.readline().strip()))
                    results.append(uvloop.run(measure(target, shape, SHAPES[shape], drop, args.scale)))
                finally:
                    server.terminate()
    if args.json:
        print(json.dumps(results))
        return
    for result in results:
        for name, value in result.items():
            print(f"{name:24} {value}")
        print()


if __name__ == "__main__":
    main()
