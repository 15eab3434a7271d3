"""From a changed policy to rules enforced, in steps: rendering, each engine's loading, and until a packet shows it.

    sudo python bench/fabric_enforce.py [--endpoints 100] [--rounds 30] [--flows 10000] [--out FILE]

``on the wire`` counts from the change of the policy until a probe, sent every half millisecond over UDP, is first answered.
``whole`` loads the complete rules, ``update`` the difference.  Milliseconds, medians and 99th percentiles.
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

from fabric_support import udp_socket
from isoplane.node.network.engines.openvswitch import OpenvswitchEngine
from policy_lab import PolicyLab

RANGE = "100.113.0.0/16"
MIX = "nftables-and-openvswitch"


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


async def measure(endpoints: int, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as data:
        lab = PolicyLab(Path(data), RANGE, MIX, (8080,), serve=("server", "client"))
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
                    found.setdefault(f"{kind}: enforced", []).append((time.perf_counter() - start) * 1000)
                    while not prober.first:
                        await asyncio.sleep(0.001)
                    found.setdefault(f"{kind}: on the wire", []).append((prober.first - start) * 1000)
                    prober.close()
        finally:
            await lab.stop()
    return found


async def measure_flows(count: int) -> dict[str, list[float]]:
    """Loading flows alone: all, none changed, and one changed."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as data:
        lab = PolicyLab(Path(data), RANGE, MIX, (), serve=())
        try:
            await lab.start(cluster(3, False))
            engine = next(one for one in lab.engines if isinstance(one, OpenvswitchEngine))
            await lab.enforcer.close()

            def text(port: int) -> str:
                lines = (
                    f"table=60,priority=10,tcp,nw_src=10.{n >> 8 & 255}.{n & 255}.1,tp_dst={port + n % 3}"
                    for n in range(count)
                )
                return "".join(f"{line},actions=drop\n" for line in lines)

            for turn in range(5):
                start = time.perf_counter()
                await engine.apply(text(1000 * turn), f"{turn:016x}")
                found.setdefault(f"{count} flows, whole", []).append((time.perf_counter() - start) * 1000)
                more = text(1000 * turn) + "table=60,priority=11,ip,nw_src=10.9.9.9,actions=drop\n"
                start = time.perf_counter()
                await engine.apply(more, f"{turn + 16:016x}", "")
                found.setdefault(f"{count} flows, update of one", []).append((time.perf_counter() - start) * 1000)
        finally:
            await lab.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--flows", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.endpoints, arguments.rounds))
    found |= asyncio.run(measure_flows(arguments.flows))
    for name, values in found.items():
        high = sorted(values)[int(len(values) * 0.99)]
        print(f"{name:30} median {statistics.median(values):8.2f} ms   p99 {high:8.2f} ms   n {len(values)}")
    if arguments.out:
        arguments.out.write_text(json.dumps({"endpoints": arguments.endpoints, "milliseconds": found}))


if __name__ == "__main__":
    main()
