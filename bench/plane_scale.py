"""The whole plane on the simulated runtime: 10,000 workloads to Running, memory idle and per workload, CPU when idle.

    python bench/plane_scale.py [--workloads 10000] [--idle-seconds 20] [--out FILE]

Half of the workloads are Pods, half VMIs, created over TLS with 32 connections by this process; the plane is `isoplane up
--runtime simulated` in another, its simulated starts take no time.  Memory is the plane's resident set.  Caveat: two processes
share the machine's cores, so the client's own cost is part of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

import api_load
from isoplane.client.http import HttpApi, path
from isoplane.objects.kinds import NAMESPACES, PODS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.objects.metadata import Object

CONNECTIONS = 32
NAMESPACE = "scale"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
FAST = {"isoplane.io/simulated-start-seconds": "0", "isoplane.io/simulated-stop-seconds": "0"}


def workload(number: int) -> tuple[Resource, Object]:
    """Every other one a VMI."""
    metadata = {"name": f"w{number}", "namespace": NAMESPACE, "labels": {"app": f"a{number % 50}"}, "annotations": FAST}
    if number % 2:
        spec: dict[str, Any] = {
            "domain": {"memory": {"guest": "96Mi"}, "devices": {}, "firmware": {"kernelBoot": KERNEL}}
        }
        kind = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"}
        return VIRTUALMACHINEINSTANCES, {**kind, "metadata": metadata, "spec": spec}
    container = {"name": "main", "image": "web:1", "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}
    return PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


KERNEL = {"container": {"image": "guest:1", "kernelPath": "/boot/vmlinuz"}}


def resident(pid: int) -> int:
    """Bytes of resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def cpu_seconds(pid: int) -> float:
    """User and system time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


async def running(api: HttpApi) -> int:
    """How many workloads run."""
    count = 0
    for resource in (PODS, VIRTUALMACHINEINSTANCES):
        page = await api.list(resource, NAMESPACE, field_selector="status.phase=Running")
        count += len(page.items)
    return count


async def fill(target: api_load.Target, first: int, count: int) -> None:
    """Create ``count`` workloads over CONNECTIONS connections, one request in flight on each."""
    numbers = iter(range(first, first + count))

    def source() -> bytes | None:
        number = next(numbers, None)
        if number is None:
            return None
        resource, obj = workload(number)
        return api_load.request("POST", path(resource, NAMESPACE), orjson.dumps(obj))

    await api_load.run(target, CONNECTIONS, source)


async def until(api: HttpApi, wanted: int) -> None:
    while await running(api) < wanted:
        await asyncio.sleep(0.25)


def serve(data: Path) -> subprocess.Popen[str]:
    """Start the plane and wait for its ready line."""
    command = [sys.executable, "-m", "isoplane.cli.main", "up", "--data", str(data), "--listen", "127.0.0.1:0"]
    plane = subprocess.Popen([*command, "--runtime", "simulated"], stdout=subprocess.PIPE, text=True)
    assert plane.stdout is not None
    line = plane.stdout.readline()
    assert line.startswith("ready"), line
    return plane


async def measure(workloads: int, idle_seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="isoplane-bench-") as directory:
        data = Path(directory) / "data"
        began = time.monotonic()
        plane = serve(data)
        try:
            found = {"start_seconds": time.monotonic() - began}
            target = api_load.Target(data / "kubeconfig")
            async with HttpApi.from_kubeconfig(data / "kubeconfig") as api:
                await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
                await asyncio.sleep(2)
                found["idle_mb"] = resident(plane.pid) / 1e6
                await fill(target, 0, 100)
                await until(api, 100)
                await asyncio.sleep(3)
                before = cpu_seconds(plane.pid)
                await asyncio.sleep(idle_seconds)
                found["idle_cpu_percent_100_workloads"] = (cpu_seconds(plane.pid) - before) / idle_seconds * 100
                base = resident(plane.pid)
                began = time.monotonic()
                await fill(target, 100, workloads)
                found["created_seconds"] = time.monotonic() - began
                await until(api, workloads + 100)
                found["running_seconds"] = time.monotonic() - began
                await asyncio.sleep(5)
                found["kb_per_workload"] = (resident(plane.pid) - base) / 1000 / workloads
            return found
        finally:
            plane.terminate()
            plane.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=int, default=10_000)
    parser.add_argument("--idle-seconds", type=float, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.workloads, arguments.idle_seconds))
    for name, value in found.items():
        print(f"{name:36} {value:10.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
