"""How long a sandbox's network takes: the fabric's plug and unplug, beside the same steps done by hand with ``ip -batch``.

    sudo python bench/fabric.py [--rounds 100] [--out FILE]

Interleaved rounds on one host, medians and 95th percentiles in milliseconds, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fabric_support import workload
from isoplane.node.network.fabric import FabricSettings, HostFabric
from isoplane.workload.shape import InterfaceType

RANGE = "100.111.0.0/16"


async def timed(step: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    await step()
    return (time.perf_counter() - start) * 1000


def by_hand(number: int, gateway: str) -> None:
    """A namespace, a veth pair, an address and routes: what a script would do with iproute2, in as few calls as it takes."""
    name, address = f"byhand{number}", f"100.112.0.{number % 250 + 2}"
    mac = "ee:ee:ee:ee:ee:ee"
    subprocess.run(["ip", "netns", "add", name], check=True)
    host = [
        f"link add {name} address {mac} type veth peer name eth0 netns {name}",
        f"link set {name} up",
        f"route add {address}/32 dev {name}",
    ]
    inside = [
        "link set lo up",
        "link set eth0 up",
        f"addr add {address}/32 dev eth0",
        f"route add {gateway} dev eth0",
        f"route add default via {gateway}",
        f"neigh add {gateway} lladdr {mac} dev eth0 nud permanent",
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(host), text=True, check=True)
    subprocess.run(["ip", "-netns", name, "-batch", "-"], input="\n".join(inside), text=True, check=True)


def remove_by_hand(number: int) -> None:
    subprocess.run(["ip", "link", "del", f"byhand{number}"], check=True)
    subprocess.run(["ip", "netns", "del", f"byhand{number}"], check=True)


async def measure(rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as data:
        fabric = HostFabric(FabricSettings(Path(data), cidr=RANGE, enforced=False, quarantine_seconds=0))
        start = time.perf_counter()
        await fabric.start()
        note("start of the fabric, cold", (time.perf_counter() - start) * 1000)
        try:
            for turn in range(rounds):
                note(
                    "by hand", await timed(lambda turn=turn: asyncio.to_thread(by_hand, turn, fabric.node_addresses[0]))
                )
                pod, machine = workload("pod"), workload("machine", InterfaceType.TAP)
                note("container plug", await timed(lambda pod=pod: fabric.plug(pod)))
                note("container plug again", await timed(lambda pod=pod: fabric.plug(pod)))
                note("machine plug", await timed(lambda machine=machine: fabric.plug(machine)))
                note("container unplug", await timed(lambda pod=pod: fabric.unplug(pod.uid)))
                note("machine unplug", await timed(lambda machine=machine: fabric.unplug(machine.uid)))
                note("by hand, removal", await timed(lambda turn=turn: asyncio.to_thread(remove_by_hand, turn)))
            pods = [workload(f"pod-{turn}") for turn in range(50)]
            note("50 containers at once", await timed(lambda: asyncio.gather(*(fabric.plug(pod) for pod in pods))))
        finally:
            await fabric.teardown()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.rounds))
    for name, values in found.items():
        high = sorted(values)[int(len(values) * 0.95)]
        print(f"{name:28} median {statistics.median(values):8.2f} ms   p95 {high:8.2f} ms   n {len(values)}")
    ratio = statistics.median(found["container plug"]) / statistics.median(found["by hand"])
    print(f"{'container plug / by hand':28} {ratio:.2f}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"milliseconds": found, "ratio": ratio}))


if __name__ == "__main__":
    main()
