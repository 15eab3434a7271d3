"""What quota adds to a create: through HTTPS, durable, at a quota with 10,000 charged workloads.

    python bench/quota_admission.py [--charged 10000] [--batches 200] [--batch 50] [--json]

One server (with all admission plug-ins), one kept-alive connection, one create in flight, 3 kB Pods.  Two namespaces hold as many
Pods each; one of them has a ResourceQuota that all of them are charged to.  Small batches alternate between the two, so that
whatever else the machine does falls on both.  ``added_percent`` is the ratio of the medians over all batches.  Two clients: the
official Python client (what a program sees), and a bare socket (``raw_…``: the server, the disk and next to nothing else), for
which the quartiles of the ratio batch by batch and the server's CPU time are told too.  Caveat: the fsync is this disk's; a
faster disk makes the ratio larger.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop
from kubernetes import client, config

from api_load import Connection, Target, request, run
from api_throughput import pod

HARD = {"requests.cpu": "100k", "requests.memory": "100Ti", "limits.memory": "100Ti", "pods": "1000k"}
AT_ONCE = 32
TENANTS = ("plain", "quota")


def post(path: str, obj: dict[str, Any]) -> bytes:
    return request("POST", path, json.dumps(obj).encode())


def pods(tenant: str, prefix: str, count: int) -> Iterator[bytes]:
    for number in range(count):
        yield request("POST", f"/api/v1/namespaces/{tenant}/pods", pod(f"{prefix}{number}"))


def source(items: Iterator[bytes]) -> Callable[[], bytes | None]:
    return lambda: next(items, None)


class Client:
    """One connection that stays, for batches one after the other."""

    def __init__(self) -> None:
        self._items: Iterator[bytes] = iter(())
        self.connection: Connection

    async def connect(self, target: Target) -> None:
        self.connection = await target.connect(lambda: Connection(lambda: next(self._items, None)))

    async def batch(self, items: Iterator[bytes]) -> list[float]:
        """Seconds of each call."""
        client, self._items = self.connection, items
        client.latencies = []
        client.done = asyncio.get_running_loop().create_future()
        client.start()
        await client.done
        if client.failures:
            raise RuntimeError(f"a request failed: {client.failures[0]!r}")
        return client.latencies


def cpu_seconds(pid: int) -> float:
    """What a process has used of the CPU."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def fill(target: Target, charged: int) -> None:
    """Two namespaces with as many Pods, one of them with a quota."""
    setup = [post("/api/v1/namespaces", {"metadata": {"name": tenant}}) for tenant in TENANTS]
    setup.append(post("/api/v1/namespaces/quota/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": HARD}}))
    await run(target, 1, source(iter(setup)))
    for tenant in TENANTS:
        await run(target, AT_ONCE, source(pods(tenant, "fill", charged)))


def turns(batches: int) -> Iterator[tuple[int, str]]:
    """(number, namespace): who goes first alternates; numbers below zero warm up."""
    for number in range(-2, batches):
        for tenant in TENANTS if number % 2 else reversed(TENANTS):
            yield number, tenant


async def raw(target: Target, pid: int, batches: int, size: int) -> dict[str, float]:
    connection = Client()
    await connection.connect(target)
    times: dict[str, list[list[float]]] = {tenant: [] for tenant in TENANTS}
    spent = dict.fromkeys(TENANTS, 0.0)
    for number, tenant in turns(batches):
        before = cpu_seconds(pid)
        found = await connection.batch(pods(tenant, f"raw{number + 2}-", size))
        if number >= 0:
            times[tenant].append(found)
            spent[tenant] += cpu_seconds(pid) - before
    ratios = [
        statistics.median(with_) / statistics.median(without)
        for with_, without in zip(times["quota"], times["plain"], strict=True)
    ]
    quartiles = statistics.quantiles(ratios, n=4)
    flat = {tenant: [value for batch in times[tenant] for value in batch] for tenant in TENANTS}
    return {
        **{f"raw_{name}": value for name, value in compared(flat).items()},
        "raw_added_percent_quartile_1": percent(quartiles[0]),
        "raw_added_percent_quartile_3": percent(quartiles[2]),
        "without_server_cpu_us": round(spent["plain"] / batches / size * 1e6),
        "with_server_cpu_us": round(spent["quota"] / batches / size * 1e6),
    }


def official(kubeconfig: Path, batches: int, size: int) -> dict[str, float]:
    config.load_kube_config(str(kubeconfig))
    api = client.CoreV1Api()
    times: dict[str, list[float]] = {tenant: [] for tenant in TENANTS}
    for number, tenant in turns(batches):
        for index in range(size):
            obj = json.loads(pod(f"one{number + 2}-{index}"))
            began = time.perf_counter()
            api.create_namespaced_pod(tenant, obj)
            if number >= 0:
                times[tenant].append(time.perf_counter() - began)
    return compared(times)


def compared(times: dict[str, list[float]]) -> dict[str, float]:
    middle = {tenant: statistics.median(found) for tenant, found in times.items()}
    return {
        "without_p50_ms": round(middle["plain"] * 1000, 3),
        "with_p50_ms": round(middle["quota"] * 1000, 3),
        "added_percent": percent(middle["quota"] / middle["plain"]),
    }


def percent(ratio: float) -> float:
    return round((ratio - 1) * 100, 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--charged", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="isoplane-bench-") as directory:
        command = [
            sys.executable,
            str(Path(__file__).with_name("api_serve.py")),
            directory,
            "127.0.0.1:0",
            "--admission",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                kubeconfig = Path(server.stdout.readline().strip())
                target = Target(kubeconfig)
                uvloop.run(fill(target, args.charged))
                result = {"charged": args.charged, **official(kubeconfig, args.batches, args.batch)}
                result |= uvloop.run(raw(target, server.pid, args.batches, args.batch))
            finally:
                server.terminate()
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:30} {value}")


if __name__ == "__main__":
    main()
