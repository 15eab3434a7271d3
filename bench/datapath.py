"""What rules cost a packet: from no policy at all to 50,000 rules, on the product's own links, with its own rules.

    sudo python bench/datapath.py [--sizes 10 100 …] [--rounds 5] [--seconds 0.7] [--warm 0.15] [--only ENGINE …] [--out FILE]

Two containers plugged in by the fabric, once on routed links (nftables, iptables with ipset) and once on the Open vSwitch
bridge.  Manifests with that many rules, half of them the client's for sending and half the server's for receiving, are
compiled and rendered by isoplane and loaded by its engines; nine in ten name an address, one a /28.  Beside them the same
rules as a linear chain of iptables, which begins with `ct state established` as everybody's do.  The rule that lets the
traffic pass is the last in every direction.

    unanswered    UDP that is never answered: to connection tracking each datagram is new, and a chain that passes what is
                  established, as everybody's do, is walked for each
    established   UDP on a connection that was answered once
    stream        one TCP connection; bytes
    connections   TCP connections opened and reset, one after the other

Each figure is the ratio to the same path with no policy, measured just before or just after it in the same round (the order
turns every round); medians over the rounds.  Packets are what the server's namespace was given, per second; CPU is what the
scheduler gave to client, server, switch and soft interrupts meanwhile (/proc/PID/schedstat), for each packet.

Mistrust: two cores make the sender, the switch and the receiver share; the kernel's rates are bound by the sender, so a rule's
cost is diluted by what sending costs; `no policy` still tracks connections on routed links, because the fabric's masquerade
does, and is a plain learning switch on the bridge.  CPU is steadier than rates where the host does other things too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoplane.node.network.bridge import OPEN_FLOWS
from isoplane.node.network.enforcer import EngineRules, Rendered
from isoplane.node.network.engines.iptables import IptablesEngine
from isoplane.node.network.engines.nftables import NftablesEngine
from isoplane.node.network.engines.openvswitch import OpenvswitchEngine
from isoplane.node.network.engines.protocol import Engine
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.process import run
from isoplane.node.network.rules import NodeRules
from isoplane.node.network.settings import FabricSettings, Wiring
from isoplane.node.network.verify.lab import NODE, stand_in
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.policy.compile import compile_tables
from isoplane.policy.model import Cluster, Endpoint, Node, cluster
from isoplane.policy.parse import network_policies
from isoplane.policy.table import Tables

HERE = Path(__file__).resolve().parent
RANGES = {Wiring.ROUTED: "100.115.0.0/16", Wiring.BRIDGED: "100.116.0.0/16"}
SIZES = (10, 100, 1_000, 2_000, 10_000, 50_000)
KINDS = ("unanswered", "established", "stream", "connections")
PORTS = 997
"""How many different ports the rules name."""
BLOCKS = 10
"""Every so-many-th rule names a /28 instead of an address."""
POLICY_RULES = 50
FLAT, LEAST = 0.9, 0.85
"""The goals: the ratio at the most rules over that at the fewest; the ratio to no policy."""
JUDGED_BY_GOALS = ("nftables", "iptables", "openvswitch")
LINEAR = "linear"
NS = "bench"


@dataclass(frozen=True)
class Peer:
    """What one rule names. ``where``: an address or a block."""

    where: str
    port: int


def peers(count: int, second: int) -> list[Peer]:
    """``count`` peers that nobody has, below 10.``second``."""
    found = []
    for n in range(count):
        port = 1000 + n % PORTS
        if n % BLOCKS == BLOCKS - 1:
            base = n * 16
            found.append(Peer(f"172.{16 + second // 16 + (base >> 16)}.{base >> 8 & 255}.{base & 255}/28", port))
        else:
            found.append(Peer(f"10.{second + (n >> 15)}.{n >> 7 & 255}.{n * 2 & 255}/32", port))
    return found


def item(peer: Peer) -> dict[str, Any]:
    return {"ipBlock": {"cidr": peer.where}}


ALLOWED = [{"protocol": "UDP", "port": 9000}, {"protocol": "TCP", "port": 9001, "endPort": 9002}]


@dataclass(frozen=True)
class Case:
    """So many rules: the cluster that isoplane compiles, and the same as a chain."""

    cluster: Cluster
    chain: str


def case(rules: int, client: str, server: str, node: str) -> Case:
    """Half of the rules are the client's egress, half the server's ingress; the ones that match come last."""
    half = rules // 2 - 1
    outward, inward = peers(half, 64), peers(half, 128)
    policies = []
    for app, direction, word, named, other in (
        ("client", "egress", "to", outward, "server"),
        ("server", "ingress", "from", inward, "client"),
    ):
        written = [{word: [item(peer)], "ports": [{"port": peer.port}]} for peer in named]
        written.append({word: [{"podSelector": {"matchLabels": {"name": other}}}], "ports": ALLOWED})
        for start in range(0, len(written), POLICY_RULES):
            spec = {
                "podSelector": {"matchLabels": {"name": app}},
                "policyTypes": [direction.capitalize()],
                direction: written[start : start + POLICY_RULES],
            }
            metadata = {"name": f"{direction}-{start:06}", "namespace": NS}
            policies.append({"kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    ours = [
        Endpoint("pod", NS, name, {"name": name}, (ip,), node=NODE)
        for name, ip in (("client", client), ("server", server))
    ]
    made = cluster(ours, {NS: {}}, network_policies(policies), nodes=[Node(NODE, (node,))])
    return Case(made, chain(outward, inward, client, server))


def chain(outward: Sequence[Peer], inward: Sequence[Peer], client: str, server: str) -> str:
    """For ``iptables-restore --noflush``: one chain for each direction, one rule after the other."""
    lines = [
        "*filter", ":ISOBENCH - [0:0]", ":ISOBENCH-OUT - [0:0]", ":ISOBENCH-IN - [0:0]", "-I FORWARD 1 -j ISOBENCH",
        "-A ISOBENCH -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
        f"-A ISOBENCH -s {client} -j ISOBENCH-OUT", f"-A ISOBENCH -d {server} -j ISOBENCH-IN",
    ]  # fmt: skip
    for name, flag, named, last in (("OUT", "-d", outward, server), ("IN", "-s", inward, client)):
        lines += [f"-A ISOBENCH-{name} {flag} {p.where} -p tcp -m tcp --dport {p.port} -j RETURN" for p in named]
        lines.append(f"-A ISOBENCH-{name} {flag} {last} -p udp -m udp --dport 9000 -j RETURN")
        lines.append(f"-A ISOBENCH-{name} {flag} {last} -p tcp -m tcp --dport 9001:9002 -j RETURN")
        lines.append(f"-A ISOBENCH-{name} -j DROP")
    return "".join(f"{line}\n" for line in [*lines, "COMMIT"])


class LinearChain:
    """The comparison: what an engine would be that writes one rule after the other."""

    name = LINEAR

    async def load(self, text: str) -> None:
        await self.clear()
        await run("iptables-restore", "--noflush", "-w", "10", stdin=text.encode())

    async def clear(self) -> None:
        saved = (await run("iptables-save", "-t", "filter")).decode()
        if ":ISOBENCH " in saved:
            lines = ["*filter", "-D FORWARD -j ISOBENCH", "-F ISOBENCH", "-F ISOBENCH-OUT", "-F ISOBENCH-IN"]
            lines += ["-X ISOBENCH", "-X ISOBENCH-OUT", "-X ISOBENCH-IN", "COMMIT"]
            await run("iptables-restore", "--noflush", "-w", "10", stdin="".join(f"{one}\n" for one in lines).encode())


class End:
    """A server or a client in a namespace (datapath_load.py)."""

    def __init__(self, role: str, path: str, address: str, cpu: int) -> None:
        command = [sys.executable, str(HERE / "datapath_load.py"), role, path, address, str(cpu)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._child.pid

    def ask(self, do: str, **more: float) -> dict[str, float]:
        """One request, one answer. Raises RuntimeError with the other side's complaint."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._child.stdin.flush()
        answer: dict[str, Any] = json.loads(self._child.stdout.readline() or '{"error": "the process is gone"}')
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(10)


def busy(processes: Sequence[int]) -> float:
    """Seconds that these processes and the kernel's threads for soft interrupts have been running (/proc/PID/schedstat).

    Nanoseconds by the scheduler's clock, whatever else runs; a soft interrupt counts for whom it interrupts.
    """
    spent = 0
    for process in processes:
        try:
            for task in Path(f"/proc/{process}/task").iterdir():
                spent += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # another plane's switch, gone meanwhile
    return spent / 1e9


def named(*names: str) -> list[int]:
    """Processes of the host by the beginning of their names."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and (entry / "comm").read_text().startswith(names):
                found.append(int(entry.name))
        except OSError:
            continue  # gone meanwhile
    return found


class Pair:
    """A client and a server on one fabric, and what can be measured between them."""

    def __init__(self, links: Mapping[str, NetworkInterface]) -> None:
        address, cpus = links["server"].address, sorted(os.sched_getaffinity(0))
        self._server = End("server", links["server"].netns, address, cpus[-1])
        self._client = End("client", links["client"].netns, address, cpus[0])
        self._server.ask("counts")
        self._workers = [self._client.pid, self._server.pid, *named("ksoftirqd/", "ovs-vswitchd")]

    def measure(self, kind: str, seconds: float, warm: float) -> dict[str, float]:
        """After ``warm`` seconds of the same: ``rate``, what arrived in a second, and ``cpu``, microseconds for each."""
        self._client.ask(kind, seconds=warm)
        before, spent = self._server.ask("counts"), busy(self._workers)
        done = self._client.ask(kind, seconds=seconds)
        time.sleep(0.02)  # what is on its way
        spent, after = busy(self._workers) - spent, self._server.ask("counts")
        arrived = done["sent"] if kind == "connections" else after[_COUNTER[kind]] - before[_COUNTER[kind]]
        return {"rate": arrived / done["seconds"], "cpu": spent * 1e6 / max(arrived, 1), "sent": done["sent"]}

    def close(self) -> None:
        self._client.close()
        self._server.close()


_COUNTER = {"unanswered": "datagrams", "established": "datagrams", "stream": "bytes"}


class Bed:
    """One fabric with two containers on it, and the engines that are compared there."""

    def __init__(self, wiring: Wiring, data: Path, datapath: str = "auto") -> None:
        self.wiring = wiring
        self._fabric = HostFabric(
            FabricSettings(
                data,
                cidr=RANGES[wiring],
                container_wiring=wiring,
                machine_wiring=wiring,
                quarantine_seconds=0,
                datapath=datapath,
            )
        )
        self.engines: dict[str, Engine] = {}
        self.linear = LinearChain()
        self.rules: dict[tuple[str, int], Rendered] = {}
        self.chains: dict[int, str] = {}
        self._tables: dict[int, Tables] = {}
        self._plugs: Sequence[NetworkInterface] = ()
        self.pair: Pair

    async def start(self, sizes: Sequence[int], wanted: Sequence[str]) -> None:
        fabric = self._fabric
        await fabric.start()
        links = {
            name: await fabric.plug(stand_in(name, uid=f"pod/{NS}/{name}", namespace=NS))
            for name in ("client", "server")
        }
        names, found = fabric.names, list[Engine]()
        if bridge := fabric.bridge:
            self.datapath = bridge.switch.datapath
            found.append(
                OpenvswitchEngine(lambda: bridge.management, bridge.switch.control, lambda: bridge.switch.datapath_name)
            )
        else:
            found.append(NftablesEngine(names.table, names.link_prefixes))
            found.append(IptablesEngine(names.tag, names.link_prefixes))
        self.engines = {engine.name: engine for engine in found if engine.name in wanted}
        self._plugs = plugs = await fabric.interfaces()
        for size in sizes:
            made = case(size, links["client"].address, links["server"].address, fabric.node_addresses[0])
            self._tables[size] = tables = compile_tables(made.cluster)
            for name in self.engines:
                renderer = NodeRules(NODE, fabric.settings, fabric.ranges, [name], lambda plug: plug.uid)
                self.rules[name, size] = renderer.render(tables, plugs)
            self.chains[size] = made.chain
        for engine in self.engines.values():
            await engine.start()
        await self.open()
        self.pair = Pair(links)

    @property
    def names(self) -> list[str]:
        return [*self.engines, *([LINEAR] if self.wiring is Wiring.ROUTED else [])]

    async def open(self) -> None:
        """No policy at all."""
        for engine in self.engines.values():
            await engine.clear()
        if bridge := self._fabric.bridge:
            await run(
                "ovs-ofctl", "-OOpenFlow14", "--bundle", "replace-flows", f"unix:{bridge.management}", "-",
                stdin=OPEN_FLOWS.encode(),
            )  # fmt: skip
        else:
            await self.linear.clear()

    async def load(self, name: str, size: int) -> float:
        """Seconds that loading took."""
        await self.open()
        began = time.perf_counter()
        if name == LINEAR:
            await self.linear.load(self.chains[size])
        else:
            rendered = self.rules[name, size]
            await self.engines[name].apply(rendered.rules[name].text, rendered.revision)
        return time.perf_counter() - began

    def update(self, name: str, size: int, other: int) -> EngineRules:
        """What leads from the rules of one size to those of another."""
        fabric = self._fabric
        renderer = NodeRules(NODE, fabric.settings, fabric.ranges, [name], lambda plug: plug.uid)
        renderer.render(self._tables[size], self._plugs)
        return renderer.render(self._tables[other], self._plugs).rules[name]

    async def stop(self) -> None:
        if hasattr(self, "pair"):
            self.pair.close()
        await self.open()
        await self._fabric.teardown()


async def one_round(bed: Bed, turn: int, arguments: argparse.Namespace, note: Callable[..., None]) -> None:
    sizes, names = list(arguments.sizes), bed.names
    if turn % 2:
        sizes.reverse()
        names.reverse()
    for size in sizes:
        for name in [n for n in names if not arguments.only or n in arguments.only]:
            base: dict[str, dict[str, float]] = {}
            got: dict[str, dict[str, float]] = {}

            async def without(into: dict[str, dict[str, float]] = base) -> None:
                await bed.open()
                into.update({kind: bed.pair.measure(kind, arguments.seconds, arguments.warm) for kind in KINDS})

            async def with_rules(into: dict[str, dict[str, float]] = got, name: str = name, size: int = size) -> None:
                took = await bed.load(name, size)
                into.update({kind: bed.pair.measure(kind, arguments.seconds, arguments.warm) for kind in KINDS})
                into["load"] = {"seconds": took}

            steps: list[Callable[[], Awaitable[None]]] = [without, with_rules]
            for step in steps[:: -1 if (turn + len(name)) % 2 else 1]:
                await step()
            note(name=name, size=size, turn=turn, base=base, got=got)


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="isoplane-datapath-") as data:
        yield Path(data)


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    samples: list[dict[str, Any]] = []

    def note(**sample: Any) -> None:
        samples.append(sample)

    datapath = ""
    for wiring in (Wiring.ROUTED, Wiring.BRIDGED):
        wanted = arguments.only or (*JUDGED_BY_GOALS, LINEAR)
        if not set(wanted) & ({"openvswitch"} if wiring is Wiring.BRIDGED else {"nftables", "iptables", LINEAR}):
            continue
        with scratch() as data:
            bed = Bed(wiring, data, arguments.datapath)
            try:
                began = time.monotonic()
                await bed.start(arguments.sizes, wanted)
                print(
                    f"{wiring}: compiled and rendered in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
                )
                if wiring is Wiring.BRIDGED:
                    datapath = bed.datapath
                for turn in range(arguments.rounds):
                    await one_round(bed, turn, arguments, note)
                    took = time.monotonic() - began
                    print(
                        f"{wiring}: round {turn + 1} of {arguments.rounds} at {took:.0f} s", file=sys.stderr, flush=True
                    )
            finally:
                await bed.stop()
    versions = {
        "kernel": platform.release(),
        "iptables": (await run("iptables-restore", "--version")).decode().strip(),
        "openvswitch": (await run("ovs-ofctl", "--version")).decode().splitlines()[0].rpartition(" ")[2],
        "datapath": datapath,
    }
    return {"versions": versions, "cpus": os.cpu_count(), "samples": samples}


def medians(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, int], dict[str, float]]:
    """(engine, kind, rules) → medians over the rounds of ratio, rate, CPU and CPU ratio."""
    grouped: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for sample in samples:
        for kind in KINDS:
            got, base = sample["got"][kind], sample["base"][kind]
            row = {"rate": got["rate"], "base": base["rate"], "ratio": got["rate"] / base["rate"], "cpu": got["cpu"]}
            row["cpu ratio"] = got["cpu"] / base["cpu"] if base["cpu"] else 1.0
            grouped.setdefault((sample["name"], kind, sample["size"]), []).append(row)
    return {key: {f: statistics.median(row[f] for row in rows) for f in rows[0]} for key, rows in grouped.items()}


def tell(found: Mapping[str, Any]) -> Iterator[str]:
    """The tables, and what misses a goal."""
    told = medians(found["samples"])
    yield "versions: " + ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    sizes = sorted({size for _, _, size in told})
    names = list(dict.fromkeys(name for name, _, _ in told))
    for kind in KINDS:
        unit = {"stream": "Gb/s", "connections": "1/s"}.get(kind, "packets/s")
        yield f"\n{kind}: ratio to no policy, ({unit}), [CPU ratio]"
        yield f"{'rules':>14}" + "".join(f"{size:>26,}" for size in sizes) + "   flat"
        for name in names:
            cells = ""
            for size in sizes:
                row = told[name, kind, size]
                rate = row["rate"] * 8 / 1e9 if kind == "stream" else row["rate"]
                cells += f"{row['ratio']:>9.3f} ({rate:>8,.{1 if kind == 'stream' else 0}f}) [{row['cpu ratio']:.2f}]"
            flat = told[name, kind, sizes[-1]]["ratio"] / told[name, kind, sizes[0]]["ratio"]
            yield f"{name:>14}{cells}  {flat:.2f}"
    yield "\nCPU for each packet in microseconds, and its ratio to no policy"
    for name in names:
        for kind in ("unanswered", "established", "connections"):
            rows = [told[name, kind, size] for size in sizes]
            yield f"{name:>14} {kind:12}" + "".join(f"{r['cpu']:>10.2f} ({r['cpu ratio']:.2f})" for r in rows)
    yield ""
    for name in [n for n in names if n in JUDGED_BY_GOALS]:
        for kind in KINDS:
            ratios = [told[name, kind, size]["ratio"] for size in sizes]
            flat, least = ratios[-1] / ratios[0], min(ratios)
            verdict = "ok" if flat >= FLAT and least >= LEAST else "MISSED"
            yield f"goal {name:12} {kind:12} flat {flat:.2f} (≥ {FLAT}), least ratio {least:.2f} (≥ {LEAST}): {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="how many rules")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each measurement")
    parser.add_argument("--warm", type=float, default=0.15, help="seconds of the same traffic before each measurement")
    parser.add_argument("--only", nargs="+", choices=(*JUDGED_BY_GOALS, LINEAR), help="these engines alone")
    parser.add_argument("--datapath", choices=("auto", "system", "netdev"), default="auto", help="Open vSwitch's")
    parser.add_argument("--out", type=Path, help="keep every sample as JSON")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who stops it finds the host as it was
    found = asyncio.run(measure(arguments))
    for line in tell(found):
        print(line)
    if arguments.out:
        arguments.out.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
