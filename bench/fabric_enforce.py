"""From a changed policy to rules enforced, in steps: rendering, each engine's loading, and until a packet shows it.

    sudo python bench/fabric_enforce.py [--endpoints 100] [--rounds 30] [--rules 10000] [--out FILE]

``on the wire`` counts from the change of the policy until a probe, sent every half millisecond over UDP, is first answered: for
each choice of engines, a container and a machine behind it, in both of which the change is loaded.  ``loaded`` is the loading of
10,000 rules of a policy, as datapath.py writes them, compiled and rendered before: ``whole`` all of them, ``update`` one more.
Milliseconds, medians and 99th percentiles; of few rounds the 99th percentile is the largest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import select
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from datapath import Bed, scratch
from fabric_support import udp_socket
from isoplane.node.network.settings import Wiring
from policy_lab_support import PolicyLab

RANGE = "100.113.0.0/16"
MIXES = ("nftables-and-openvswitch", "iptables-and-openvswitch", "openvswitch")
GOALS = {"on the wire": 50.0, "loaded": 500.0}
"""Milliseconds: the 99th percentile of a change, the median of a load."""


def cluster(endpoints: int, allowed: bool) -> list[dict[str, Any]]:
    """Endpoints of both kinds under one policy that lets ``client`` in, or nobody."""
    label = "client" if allowed else "nobody"
    policy = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "gate", "namespace": "a"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": label}}}]}],
        },
    }

    def load(kind: str, name: str, app: str) -> dict[str, Any]:
        return {"kind": kind, "metadata": {"name": name, "namespace": "a", "labels": {"app": app}}}

    return [
        {"kind": "Namespace", "metadata": {"name": "a"}},
        load("Pod", "client", "client"),
        load("Pod", "server", "server"),
        load("VirtualMachineInstance", "server", "server"),
        *(load("Pod", f"other{n}", "other") for n in range(endpoints - 3)),
        policy,
    ]


class Prober:
    """Asks without pause and notes when the first answer to a question of the current round came."""

    def __init__(self, path: str, address: str, port: int) -> None:
        self._socket = udp_socket(path)
        self._socket.connect((address, port))
        self._socket.setblocking(False)
        self.first = 0.0
        self._round, self._running = 0, True
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        self._round, self.first = self._round + 1, 0.0

    def _ask(self) -> None:
        while self._running:
            word = str(self._round).encode()
            try:
                self._socket.send(word)
                if (
                    select.select([self._socket], [], [], 0.0005)[0]
                    and self._socket.recv(20) == word
                    and not self.first
                ):
                    self.first = time.perf_counter()
            except OSError:
                pass

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self._socket.close()


async def measure(mix: str, endpoints: int, rounds: int) -> dict[str, list[float]]:
    """A change of policy for a container and for a machine, on one choice of engines."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as data:
        lab = PolicyLab(Path(data), RANGE, mix, (8080,), serve=("server", "client"))
        try:
            await lab.start(cluster(endpoints, False))
            for kind in ("pod", "vmi"):
                for _ in range(rounds):
                    await lab.load(cluster(endpoints, False))
                    # a new source port for every round: replies to what was just cut are dropped for a moment
                    prober = Prober(lab.places["pod/a/client"].path, lab.places[f"{kind}/a/server"].address, 8080)
                    prober.begin()
                    await asyncio.sleep(0.05)
                    assert not prober.first, "the probe passed a closed door"
                    changed = cluster(endpoints, True)
                    start = time.perf_counter()
                    await lab.load(changed)
                    found.setdefault(f"{mix}, {kind}: enforced", []).append((time.perf_counter() - start) * 1000)
                    while not prober.first:
                        await asyncio.sleep(0.001)
                    found.setdefault(f"{mix}, {kind}: on the wire", []).append((prober.first - start) * 1000)
                    prober.close()
        finally:
            await lab.stop()
    return found


async def measure_loads(rules: int, rounds: int) -> dict[str, list[float]]:
    """Loading a policy of so many rules into each engine: all of it, and the difference that one more rule makes."""
    found: dict[str, list[float]] = {}
    for wiring in (Wiring.ROUTED, Wiring.BRIDGED):
        with scratch() as data:
            bed = Bed(wiring, data)
            try:
                await bed.start((rules, rules + 2), ("nftables", "iptables", "openvswitch"))
                for name, engine in bed.engines.items():
                    for _ in range(rounds):
                        took = await bed.load(name, rules) * 1000
                        found.setdefault(f"{name}: {rules} rules loaded, whole", []).append(took)
                        update = bed.update(name, rules, rules + 2)
                        start = time.perf_counter()
                        await engine.apply(update.text, f"{1:016x}", update.update)
                        took = (time.perf_counter() - start) * 1000
                        found.setdefault(f"{name}: update of two in {rules}", []).append(took)
            finally:
                await bed.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--rules", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {}
    for mix in MIXES:
        found |= asyncio.run(measure(mix, arguments.endpoints, arguments.rounds))
    found |= asyncio.run(measure_loads(arguments.rules, 5))
    for name, values in found.items():
        middle, high = statistics.median(values), sorted(values)[int(len(values) * 0.99)]
        goal = next((limit for part, limit in GOALS.items() if part in name), 0.0)
        judged = middle if "loaded" in name else high
        verdict = "" if not goal else f"   goal {goal:g}: {'ok' if judged <= goal else 'MISSED'}"
        print(f"{name:50} median {middle:8.2f} ms   p99 {high:8.2f} ms   n {len(values)}{verdict}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"endpoints": arguments.endpoints, "milliseconds": found}))


if __name__ == "__main__":
    main()
