"""Durable creates, reads, lists and fan-out of the API server over TLS, beside the bare commit rate of SQLite here.

    python bench/api_throughput.py [--seconds 5] [--out FILE]

Creates: 3 kB pods, 32 connections, validation and admission on, 10 watches of all pods open; of one template, as a controller
makes them, and each with a spec of its own.  Every figure is of this machine and this run; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from api_load import Target, Watch, fetch, quantile, request, run

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "", "labels": {"app": "bench", "tier": "web"}, "annotations": {"pad": ""}},
    "spec": {
        "containers": [
            {
                "name": f"c{n}",
                "image": "registry.example/app:v1",
                "command": ["/bin/server", "--port", "8080"],
                "env": [{"name": f"VARIABLE_{i}", "value": f"value-{i}"} for i in range(8)],
                "ports": [{"containerPort": 8080 + n, "name": f"http{n}"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 5},
            }
            for n in range(2)
        ]
    },
}
PODS = "/api/v1/namespaces/default/pods"


def _template() -> bytes:
    """A 3 kB pod, compact as Go's clients write it, with a place for the name."""
    obj = json.loads(json.dumps(POD))
    obj["metadata"]["name"] = "@NAME@"
    size = len(json.dumps(obj, separators=(",", ":")))
    obj["metadata"]["annotations"]["pad"] = "x" * max(0, 3000 - size)
    return json.dumps(obj, separators=(",", ":")).encode()


_POD = _template()


def pod(name: str) -> bytes:
    return _POD.replace(b"@NAME@", name.encode())


def bare_commits(directory: Path, batch: int, seconds: float) -> float:
    """Rows per second of plain SQLite with the same durability, ``batch`` rows to a commit."""
    db = sqlite3.connect(directory / f"bare{batch}.db", isolation_level=None)
    db.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)"
    )
    row, count, began = pod("x"), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        db.execute("BEGIN")
        db.executemany("INSERT INTO t (v) VALUES (?)", [(row,)] * batch)
        db.execute("COMMIT")
        count += batch
    rate = count / (time.perf_counter() - began)
    db.close()
    return rate


def memory(pid: int) -> float:
    """Resident megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    """Processor time that the process has used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def distinct(name: str) -> bytes:
    """A pod whose spec no other has."""
    return pod(name).replace(b'"value-1"', b'"of-' + name.encode() + b'"')


async def creates(
    target: Target, seconds: float, connections: int, watches: int, prefix: str, body: Callable[[str], bytes] = pod
) -> dict[str, float]:
    now = (await fetch(target, "/api/v1/pods?limit=1"))["metadata"]["resourceVersion"]
    path = f"/api/v1/pods?watch=1&resourceVersion={now}"
    watchers = [await target.connect(lambda: Watch(path)) for _ in range(watches)]
    await asyncio.gather(*(w.open for w in watchers))
    end = time.perf_counter() + seconds
    count = 0

    def source() -> bytes | None:
        nonlocal count
        if time.perf_counter() > end:
            return None
        count += 1
        return request("POST", PODS, body(f"{prefix}-{count}"))

    latencies, took = await run(target, connections, source)
    await asyncio.sleep(0.5)
    for watcher in watchers:
        watcher.transport.close()
    return {
        "per_second": len(latencies) / took,
        "p50_ms": quantile(latencies, 0.5) * 1e3,
        "p99_ms": quantile(latencies, 0.99) * 1e3,
        "objects": len(latencies),
        "count": len(latencies),
        "events_per_watch": min((w.events for w in watchers), default=0),
    }


async def reads(target: Target, seconds: float, connections: int, path: str) -> dict[str, float]:
    end = time.perf_counter() + seconds
    data = request("GET", path)
    latencies, took = await run(target, connections, lambda: data if time.perf_counter() < end else None)
    return {
        "per_second": len(latencies) / took,
        "p50_ms": quantile(latencies, 0.5) * 1e3,
        "p99_ms": quantile(latencies, 0.99) * 1e3,
        "count": len(latencies),
    }


async def fan_out(target: Target, watches: int, rounds: int) -> dict[str, float]:
    """Milliseconds from sending one create to its event at the last of all watches."""
    arrived = 0
    complete = asyncio.Event()

    def event() -> None:
        nonlocal arrived
        arrived += 1
        if arrived >= watches:
            complete.set()

    path = "/api/v1/namespaces/default/configmaps?watch=1"
    watchers = [await target.connect(lambda: Watch(path, event)) for _ in range(watches)]
    await asyncio.gather(*(w.open for w in watchers))
    await asyncio.sleep(1)
    times = []
    for number in range(rounds):
        arrived = 0
        complete.clear()
        body = json.dumps({"metadata": {"name": f"fan-{time.time_ns()}-{number}"}, "data": {"a": "b"}}).encode()
        began = time.perf_counter()
        sent = [request("POST", "/api/v1/namespaces/default/configmaps", body)]
        await run(target, 1, lambda sent=sent: sent.pop() if sent else None)  # type: ignore[misc]
        await asyncio.wait_for(complete.wait(), 30)
        times.append((time.perf_counter() - began) * 1e3)
    for watcher in watchers:
        watcher.transport.close()
    times.sort()
    return {"p50_ms": statistics.median(times), "p99_ms": quantile(times, 0.99), "watches": watches}


async def measure(kubeconfig: Path, pid: int, seconds: float) -> dict[str, Any]:
    target = Target(kubeconfig)
    result: dict[str, Any] = {"idle_mb": memory(pid)}

    async def costed(name: str, work: Coroutine[Any, Any, dict[str, float]]) -> None:
        """Also the server's own processor time a request: what stays when the machine is shared."""
        before = cpu_seconds(pid)
        found = await work
        count = found.pop("count")
        result[name] = {**found, "server_cpu_us": (cpu_seconds(pid) - before) / count * 1e6}

    for number in range(3):
        await costed(f"creates_{number}", creates(target, seconds, 32, 10, f"p{number}"))
    await costed("creates_without_watches", creates(target, seconds, 32, 0, "q"))
    await costed("creates_of_distinct_specs", creates(target, seconds, 32, 10, "d", distinct))
    result["after_creates"] = {"mb": memory(pid), "objects": sum(result[f"creates_{n}"]["objects"] for n in range(3))}
    await costed("get", reads(target, seconds, 32, f"{PODS}/p0-1"))
    body = json.dumps({"metadata": {"name": "many"}}).encode()
    await run(target, 1, iter([request("POST", "/api/v1/namespaces", body), None]).__next__)
    names = iter([pod(f"m-{n}") for n in range(1000)])
    many = PODS.replace("default", "many")
    await run(target, 32, lambda: request("POST", many, body) if (body := next(names, None)) else None)
    await costed("list_1000", reads(target, seconds, 4, many))
    result["fan_out"] = await fan_out(target, 1000, 20)
    result["loaded_mb"] = memory(pid)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="isoplane-bench-") as directory:
        bare = {f"rows_per_second_batch_{n}": bare_commits(Path(directory), n, 1) for n in (1, 32)}
        command = [sys.executable, str(Path(__file__).with_name("api_serve.py")), f"{directory}/data", "127.0.0.1:0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            kubeconfig = Path(server.stdout.readline().strip())
            result = {"sqlite": bare, **uvloop.run(measure(kubeconfig, server.pid, options.seconds))}
        finally:
            server.terminate()
            server.wait(20)
    text = json.dumps(result, indent=2, default=float)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
