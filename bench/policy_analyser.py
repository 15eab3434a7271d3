"""Who reaches whom: isoplane beside a public analyser, on the same manifests, pair by pair, with time and memory.

    python bench/policy_analyser.py [--analyser PATH] [--seeds 20] [--sizes 50 100 200 400] [--rounds 3] [--out FILE]

The analyser is np-guard's netpol-analyzer (Apache-2.0, Go), `netpolicy list -o json`; it is built from the Go module proxy
into .cache/ unless --analyser names it (two minutes, once).  isoplane is `isoplane policy reach --output json`, which
tells pods that are alike together, and with --expand every pair, on all ports or on one.  All are whole processes that read the
same directory of manifests.

Answers: random manifests of pods, namespaces with labels and NetworkPolicies with everything that both understand: both
directions, all kinds of peers, matchExpressions, ports by number, by range and by name, TCP, UDP, SCTP, ipBlock.  Each ordered
pair of different pods is compared on each port that isoplane lists, and one that no policy names.  One difference is known: a
block that covers a pod's address lets that pod in for isoplane, as it does for the packets, and only the outside for the analyser
(upstream leaves it open).  So isoplane is asked twice, as written and with the pods' addresses cut out of the blocks; the second
answers must all be the analyser's, and the first tell how often it matters.

Mistrust: another language, and another question in part: the analyser lists whole connection sets of each pair and the outside
as ranges, isoplane answers port by port; the analyser knows no VMs, no ICMP and no nodes, so none of these is in the manifests.
Its release is the newest that the proxy gave when this was written, not the newest there is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "analyser"
MODULE, VERSION = "github.com/np-guard/netpol-analyzer", "v1.1.0"
UNNAMED = 4444
"""A port that no manifest names."""
PROTOCOLS = ("TCP", "UDP", "SCTP")
NAMED = {"web": 8080, "dns": 5353}


def build() -> Path:
    """The analyser's program. SystemExit says what is missing."""
    target = CACHE / "netpolicy"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "go.mod").write_text(f"module bench\n\ngo 1.21\n\nrequire {MODULE} {VERSION}\n")
        (CACHE / "tools.go").write_text(f'//go:build tools\n\npackage tools\n\nimport _ "{MODULE}/cmd/netpolicy"\n')
        try:
            subprocess.run(
                ["go", "build", "-mod=mod", "-o", str(target), f"{MODULE}/cmd/netpolicy"], cwd=CACHE, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(
                f"the analyser cannot be built ({error}): install Go, or name it with --analyser"
            ) from None
    return target


def selector(rng: Random) -> dict[str, Any]:
    match rng.randrange(6):
        case 0:
            return {}
        case 1:
            values = rng.sample(["a", "b", "c"], rng.randrange(1, 3))
            operator = rng.choice(["In", "NotIn"])
            return {"matchExpressions": [{"key": "app", "operator": operator, "values": values}]}
        case 2:
            return {"matchExpressions": [{"key": "tier", "operator": rng.choice(["Exists", "DoesNotExist"])}]}
        case _:
            return {"matchLabels": {"app": rng.choice("abc")}}


def peer(rng: Random) -> dict[str, Any]:
    kind = rng.randrange(8)
    if kind == 0:
        if rng.random() < 0.5:
            return {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}}
        return {"ipBlock": {"cidr": "198.51.100.0/24"}}
    found: dict[str, Any] = {}
    if kind != 1:
        found["podSelector"] = selector(rng)
    if kind < 4:
        found["namespaceSelector"] = rng.choice([{}, {"matchLabels": {"team": rng.choice(("red", "blue"))}}])
    return found


def port(rng: Random, named: bool) -> dict[str, Any]:
    protocol = rng.choice(PROTOCOLS)
    match rng.randrange(5):
        case 0:
            return {"protocol": protocol}
        case 1:
            low = rng.choice([1000, 8000])
            return {"protocol": protocol, "port": low, "endPort": low + rng.randrange(1, 500)}
        case 2 if named:
            return {"protocol": "TCP", "port": rng.choice(list(NAMED))}
        case _:
            return {"protocol": protocol, "port": rng.choice([53, 80, 443, 8080])}


def rule(rng: Random, word: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if rng.random() < 0.9:
        found[word] = [peer(rng) for _ in range(rng.randrange(1, 3))]
    if rng.random() < 0.7:
        # The analyser refuses a named port towards addresses, whose names nobody knows.
        named = word == "from" or (word in found and not any("ipBlock" in one for one in found[word]))
        found["ports"] = [port(rng, named) for _ in range(rng.randrange(1, 3))]
    return found


def manifests(pods: int, policies: int, seed: int) -> list[dict[str, Any]]:
    """Pods in ten namespaces or fewer, every one with its labels and named ports, and policies."""
    rng = Random(seed)
    spaces = [f"ns{n}" for n in range(min(10, max(2, pods // 10)))]
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"team": rng.choice(("red", "blue"))}},
        }
        for name in spaces
    ]
    for n in range(pods):
        labels = {"app": rng.choice("abc"), **({"tier": "back"} if rng.random() < 0.3 else {})}
        listed = [{"name": name, "containerPort": number} for name, number in NAMED.items()]
        metadata = {"name": f"p{n}", "namespace": rng.choice(spaces), "labels": labels}
        found.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"containers": [{"name": "c", "image": "i", "ports": listed}]},
                "status": {"hostIP": "192.0.2.10", "podIPs": [{"ip": f"10.1.{n >> 8}.{n & 255}"}]},
            }
        )
    for n in range(policies):
        spec: dict[str, Any] = {"podSelector": selector(rng), "policyTypes": []}
        for word, types, side in (("ingress", "Ingress", "from"), ("egress", "Egress", "to")):
            if rng.random() < 0.6:
                spec["policyTypes"].append(types)
                spec[word] = [rule(rng, side) for _ in range(rng.randrange(3))]
        if not spec["policyTypes"]:
            spec["policyTypes"] = ["Ingress"]
        found.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": f"n{n}", "namespace": rng.choice(spaces)},
                "spec": spec,
            }
        )
    return found


@dataclass(frozen=True)
class Run:
    """One process: how much it wrote, seconds, MB at its peak."""

    bytes: int
    seconds: float
    megabytes: float


def ours(directory: Path, *more: str) -> list[str]:
    """The command that asks isoplane."""
    program = str(Path(sys.executable).parent / "isoplane")
    return [program, "policy", "reach", "-f", str(directory), "--output", "json", *more]


def theirs(program: Path, directory: Path) -> list[str]:
    """The command that asks the analyser."""
    return [str(program), "list", "-q", "--dirpath", str(directory), "-o", "json"]


def answer(command: Sequence[str]) -> str:
    """What it prints. CalledProcessError when it fails."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def execute(command: Sequence[str], output: Path) -> Run:
    """Run to the end; this process stays small, for a child's peak counts what it was forked from."""
    with output.open("wb") as out:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        took = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{command[0]}: exit code {child.returncode}")
    return Run(output.stat().st_size, took, usage.ru_maxrss / 1024)


Spans = dict[str, list[tuple[int, int]]]


def spans(text: str) -> Spans:
    """``TCP 80,443-445,UDP 1-65535`` or ``All Connections`` as intervals."""
    if text == "All Connections":
        return {protocol: [(0, 65535)] for protocol in PROTOCOLS}
    found: Spans = {}
    protocol = ""
    for word in text.split(","):
        match = re.fullmatch(r"(?:([A-Z]+) )?(\d+)(?:-(\d+))?", word.strip())
        if match is None:
            raise ValueError(f"cannot read the connections {text!r}")
        protocol = match[1] or protocol
        found.setdefault(protocol, []).append((int(match[2]), int(match[3] or match[2])))
    return found


def allowed_by(listed: str) -> Mapping[tuple[str, str], Spans]:
    """(source, destination), both as namespace/name → connections, from the analyser's list."""
    return {
        (row["src"].removesuffix("[Pod]"), row["dst"].removesuffix("[Pod]")): spans(row["conn"])
        for row in json.loads(listed) or []
    }


def compare(mine: str, other: str) -> tuple[int, list[str]]:
    """(answers compared, those that differ)."""
    known = allowed_by(other)
    count, differences = 0, []
    for row in json.loads(mine):
        if row["from"] == row["to"] or row["protocol"] not in PROTOCOLS:
            continue
        count += 1
        here = known.get((row["from"], row["to"]), {}).get(row["protocol"], [])
        says = any(low <= row["port"] <= high for low, high in here)
        if says is not row["allowed"]:
            told = f"{row['from']} -> {row['to']} on {row['port']}/{row['protocol']}"
            differences.append(
                f"{told}: isoplane {'allows' if row['allowed'] else 'blocks'}, the analyser does not agree"
            )
    return count, differences


def written(objects: Sequence[Mapping[str, Any]], directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    loader = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    (directory / "all.yaml").write_text(yaml.dump_all(objects, Dumper=loader))
    return directory


def beyond_pods(objects: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The same manifests, whose blocks leave out the addresses that pods have."""
    text = json.dumps(objects).replace('"except": ["203.0.113.0/24"]', '"except": ["203.0.113.0/24", "10.0.0.0/8"]')
    found: list[Mapping[str, Any]] = json.loads(text)
    return found


def answers(program: Path, seeds: int, scratch: Path) -> Iterator[dict[str, Any]]:
    for seed in range(seeds):
        objects = manifests(20, 10, seed)
        unnamed = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "odd", "namespace": "ns0", "labels": {"app": "odd"}},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": UNNAMED}]}]},
            "status": {"hostIP": "192.0.2.10", "podIPs": [{"ip": "10.2.0.1"}]},
        }  # fmt: skip
        plain = written([*objects, unnamed], scratch / f"seed{seed}")
        outside = written(beyond_pods([*objects, unnamed]), scratch / f"outside{seed}")
        listed = answer(theirs(program, plain))
        count, as_is = compare(answer(ours(plain, "--expand")), listed)
        _, cut = compare(answer(ours(outside, "--expand")), listed)
        yield {"seed": seed, "compared": count, "as written": len(as_is), "blocks beyond pods": cut}


RACERS = ("isoplane", "isoplane, all pairs", "isoplane, one port", "analyser")


def races(program: Path, sizes: Sequence[int], rounds: int, scratch: Path) -> Iterator[dict[str, Any]]:
    for size in sizes:
        directory = written(manifests(size, size // 2, 1000 + size), scratch / f"size{size}")
        commands = (
            ours(directory),
            ours(directory, "--expand"),
            ours(directory, "--expand", "--port", "80/TCP"),
            theirs(program, directory),
        )
        runs: dict[str, list[Run]] = {name: [] for name in RACERS}
        for _ in range(rounds):
            for name, command in zip(RACERS, commands, strict=True):
                runs[name].append(execute(command, scratch / "output"))
        told = {
            name: {
                "seconds": [run.seconds for run in found],
                "megabytes": [run.megabytes for run in found],
                "bytes written": found[0].bytes,
            }
            for name, found in runs.items()
        }
        yield {"pods": size, "policies": size // 2, **told}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--analyser", type=Path, help="netpolicy, built elsewhere")
    parser.add_argument("--seeds", type=int, default=20, help="random clusters whose answers are compared")
    parser.add_argument("--sizes", type=int, nargs="*", default=[50, 100, 200, 400], help="pods; half as many policies")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    program = arguments.analyser or build()
    with tempfile.TemporaryDirectory(prefix="isoplane-analyser-") as place:
        told = list(answers(program, arguments.seeds, Path(place)))
        wrong = [f"seed {one['seed']}: {text}" for one in told for text in one["blocks beyond pods"]]
        compared, by_block = (sum(one["compared"] for one in told), sum(one["as written"] for one in told))
        print(f"{MODULE} {VERSION}")
        print(f"answers: {compared:,} compared on {len(told)} random clusters, {len(wrong):,} differ")
        print(
            f"{by_block:,} more where an ipBlock covers a pod's address: isoplane lets it match, the analyser does not",
            flush=True,
        )
        for text in wrong[:20]:
            print(f"  {text}")
        timed = []
        print(f"{'pods':>6} {'policies':>9}" + "".join(f"{name:>24}" for name in RACERS))
        for one in races(program, arguments.sizes, arguments.rounds, Path(place)):
            timed.append(one)
            cells = ""
            for who in RACERS:
                seconds, peak = (statistics.median(one[who][what]) for what in ("seconds", "megabytes"))
                cells += f"{seconds:>13.2f} s {peak:>5.0f} MB"
            print(f"{one['pods']:>6} {one['policies']:>9}{cells}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"version": VERSION, "answers": told, "races": timed}) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
