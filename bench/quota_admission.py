"""What quota adds to a create: the verbs and the store, durable, with and without a quota that 10,000 workloads are charged to.

    python bench/quota_admission.py [--charged 10000] [--count 2000] [--http] [--json]

Both variants create the same Pods; "without" has no ResourceQuota in the namespace.  Latency is of one create after the other,
throughput (in process only: over the wire the client is what is slow) of 64 at a time.  With ``--http`` a client on a kept-alive
TLS connection asks a server in another process, whose CPU time a create is told too.  Rounds alternate between the variants.
Caveat: the fsync is this disk's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from isoplane.client import kubeconfig
from isoplane.objects.kinds import NAMESPACES, PODS, RESOURCEQUOTAS
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.call import Call
from isoplane.server.plane import ApiServer
from isoplane.server.priority_admission import PriorityAdmission
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.stamp import AcceptedStamp
from isoplane.server.verbs import Verbs
from isoplane.store import Store

AT_ONCE = 64
HARD = {"requests.cpu": "100k", "requests.memory": "100Ti", "pods": "1000k"}


def pod(name: str) -> dict[str, Any]:
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/app:1", "resources": resources}]},
    }


async def together(verbs: Verbs, prefix: str, count: int) -> float:
    """Seconds for ``count`` creates, AT_ONCE at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await verbs.create(PODS, "a", pod(f"{prefix}{number}"), Call())

    began = perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return perf_counter() - began


async def measure(directory: Path, quota: bool, charged: int, count: int) -> dict[str, float]:
    store = Store.open(directory)
    verbs = Verbs(store, Chain([AcceptedStamp(), PriorityAdmission(), QuotaAdmission()]))
    await bootstrap(verbs)
    await verbs.create(NAMESPACES, "", {"metadata": {"name": "a"}}, Call())
    if quota:
        await verbs.create(RESOURCEQUOTAS, "a", {"metadata": {"name": "q"}, "spec": {"hard": HARD}}, Call())
    await together(verbs, "fill", charged)
    each = []
    for number in range(count):
        began = perf_counter()
        await verbs.create(PODS, "a", pod(f"one{number}"), Call())
        each.append(perf_counter() - began)
    seconds = await together(verbs, "many", count)
    await store.close()
    return {"p50_ms": statistics.median(each) * 1000, "per_second": count / seconds}


async def serve(directory: str) -> None:
    """A server of its own process, until it is killed."""
    plugins = [AcceptedStamp(), PriorityAdmission(), QuotaAdmission()]
    server = ApiServer(Path(directory), "127.0.0.1:0", Path(directory) / "kubeconfig", admission=plugins)
    await server.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def cpu_seconds(pid: int) -> float:
    """What a process has used of the CPU: says what a create costs even on a busy machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_http(directory: Path, quota: bool, charged: int, count: int) -> dict[str, float]:
    server = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", str(directory), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        await server.stdout.readline()
        cluster = kubeconfig.load(directory / "kubeconfig")
        assert cluster.context is not None
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(base_url=cluster.server, verify=cluster.context, limits=limits, timeout=60) as api:

            async def create(path: str, obj: dict[str, Any]) -> None:
                (await api.post(path, json=obj)).raise_for_status()

            await create("/api/v1/namespaces", {"metadata": {"name": "a"}})
            if quota:
                await create("/api/v1/namespaces/a/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": HARD}})
            numbers = iter(range(charged))

            async def work() -> None:
                for number in numbers:
                    await create("/api/v1/namespaces/a/pods", pod(f"many{number}"))

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
            each, before = [], cpu_seconds(server.pid)
            for number in range(count):
                began = perf_counter()
                await create("/api/v1/namespaces/a/pods", pod(f"one{number}"))
                each.append(perf_counter() - began)
            spent = cpu_seconds(server.pid) - before
        return {
            "p50_ms": statistics.median(each) * 1000,
            "server_cpu_us": spent / count * 1e6,
        }
    finally:
        server.kill()
        await server.wait()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--charged", type=int, default=10_000)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        await serve(args.serve)
    run = measure_http if args.http else measure
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for _ in range(args.rounds):
        for name in found:
            with tempfile.TemporaryDirectory(prefix="isoplane-bench-") as directory:
                found[name].append(await run(Path(directory), name == "with", args.charged, args.count))
    result: dict[str, Any] = {}
    for name, rounds in found.items():
        result[f"{name}_p50_ms"] = round(statistics.median(r["p50_ms"] for r in rounds), 3)
        if "server_cpu_us" in rounds[0]:
            result[f"{name}_server_cpu_us"] = round(statistics.median(r["server_cpu_us"] for r in rounds))
        if "per_second" in rounds[0]:
            result[f"{name}_per_second"] = round(statistics.median(r["per_second"] for r in rounds))
    result["added_percent"] = round((result["with_p50_ms"] / result["without_p50_ms"] - 1) * 100, 1)
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:24} {value}")


if __name__ == "__main__":
    asyncio.run(main())
