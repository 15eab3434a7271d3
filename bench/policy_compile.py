"""Policies to tables: a hundred thousand pods at once, one change among them, who governs a pod, who reaches whom.

    python bench/policy_compile.py [--scale 1.0] [--rounds 3] [--out FILE]

The shapes are those of Antrea's published controller benchmark, which takes 5.8 to 6.4 s and 1.5 to 1.7 GB for
25,000 namespaces of four pods and three policies, and 10.7 s for 10,000 pods under 10,000 policies that select all.
Each part runs in a process of its own, so that its peak of memory is its own.  One part at a time, one core.

Caveats: another language and another machine than the published figures; memory includes the interpreter and the
manifests.  Pods are typed values from the start, as a node's caches hold them; policies are parsed from objects.
A change is timed from the changed value to the new tables, in a small namespace: one that concerns every pod costs
as much as every pod.  Python's garbage collector is held still while much is made at once and walks the heap later:
"one full collection" says what that costs, and "longest collection" how long one stopped the changes.
Rendering and loading into an engine are not part of any figure.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from time import perf_counter, process_time
from typing import Any

from isoplane.policy.compile import Compilation, compile_tables
from isoplane.policy.incremental import LiveTables
from isoplane.policy.model import Cluster, Endpoint, cluster
from isoplane.policy.parse import network_policies, network_policy
from isoplane.policy.reach import Reach
from isoplane.policy.rules import INGRESS

GOALS = {
    "large: total s": 6.0,
    "large: peak MB": 1500.0,
    "dense: total s": 5.0,
    "change: label p99 ms": 20.0,
    "change: policy p99 ms": 20.0,
    "query: p99 ms": 1.0,
    "reach: total s": 1.0,
}


def pod(namespace: str, name: str, number: int, app: str) -> Endpoint:
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return Endpoint("pod", namespace, name, {"app": app}, (address,))


def policy(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def app(name: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"app": name}}}


def small_namespaces(count: int) -> tuple[list[Endpoint], list[dict[str, Any]]]:
    """Four pods and three policies in each namespace: deny, let in, let out."""
    pods, policies = [], []
    for index in range(count):
        space = f"ns-{index}"
        pods += [pod(space, f"p{j}", index * 4 + j, f"app-{j % 2}") for j in range(4)]
        inward = {**app("app-0"), "ingress": [{"from": [app("app-1")], "ports": [{"port": 80}]}]}
        outward = {
            **app("app-1"),
            "policyTypes": ["Egress"],
            "egress": [{"to": [app("app-0")], "ports": [{"port": 80}]}],
        }
        policies += [
            policy(space, "deny", {"podSelector": {}, "policyTypes": ["Ingress"]}),
            policy(space, "in", inward),
            policy(space, "out", outward),
        ]
    return pods, policies


def snapshot(pods: list[Endpoint], policies: list[dict[str, Any]]) -> Cluster:
    return cluster(pods, {e.namespace: {} for e in pods}, network_policies(policies))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large(scale: float) -> dict[str, float]:
    pods, objects = small_namespaces(int(25_000 * scale))
    namespaces: dict[str, dict[str, str]] = {e.namespace: {} for e in pods}
    began, spent = perf_counter(), process_time()
    parsed = network_policies(objects)
    read = perf_counter()
    made = cluster(pods, namespaces, parsed)
    ordered = perf_counter()
    tables = compile_tables(made)
    done = perf_counter()
    spent, peak = process_time() - spent, peak_mb()
    assert len(tables.endpoints) == len(pods)
    gc.collect()
    return {
        "pods": len(pods),
        "policies": len(objects),
        "parse s": read - began,
        "snapshot s": ordered - read,
        "compile s": done - ordered,
        "total s": done - began,
        "CPU s": spent,
        "one full collection s": perf_counter() - done,
        "peak MB": peak,
    }


def dense_cluster(scale: float) -> tuple[int, Callable[[], Cluster]]:
    count = int(10_000 * scale)
    pods = [pod("all", f"p{k}", k, f"app-{k % 2}") for k in range(count)]
    objects = [
        policy(
            "all",
            f"n{i}",
            {
                "podSelector": {},
                "ingress": [{"from": [app("app-1")], "ports": [{"port": 80 + i % 1000}]}],
                "egress": [{"to": [{"podSelector": {}}]}],
            },
        )
        for i in range(count)
    ]
    return count, lambda: snapshot(pods, objects)


def dense(scale: float) -> dict[str, float]:
    count, make = dense_cluster(scale)
    began = perf_counter()
    made = make()
    parsed = perf_counter()
    compile_tables(made)
    done = perf_counter()
    return {
        "pods": count,
        "policies": count,
        "parse s": parsed - began,
        "compile s": done - parsed,
        "total s": done - began,
        "peak MB": peak_mb(),
    }


def change(scale: float) -> dict[str, float]:
    """One pod's label, then one policy's port, among all the others; the tables are asked for after each."""
    rng = Random(1)
    pods, objects = small_namespaces(int(25_000 * scale))
    began = perf_counter()
    live = LiveTables(snapshot(pods, objects))
    before = live.tables()
    started = perf_counter() - began
    labels, policies = [], []
    pauses = [0.0]

    def watch(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            pauses.append(-perf_counter())
        else:
            pauses[-1] += perf_counter()

    gc.callbacks.append(watch)
    for turn in range(300):
        old = rng.choice(pods)
        new = replace(old, labels={"app": f"app-{turn % 2}", "turn": str(turn)})
        began = perf_counter()
        live.set_endpoint(new)
        live.tables()
        labels.append((perf_counter() - began) * 1000)
        inward = {"from": [app("app-1")], "ports": [{"port": 1000 + turn}]}
        changed = policy(old.namespace, "in", {**app("app-0"), "ingress": [inward]})
        began = perf_counter()
        live.set_policy(network_policy(changed))
        after = live.tables()
        policies.append((perf_counter() - began) * 1000)
    assert len(after.endpoints) == len(before.endpoints) == len(pods)
    found = {"pods": len(pods), "first tables, with parsing s": started, "peak MB": peak_mb()}
    found["longest collection ms"] = max(pauses) * 1000
    for name, times in (("label", labels), ("policy", policies)):
        found[f"{name} median ms"] = statistics.median(times)
        found[f"{name} p99 ms"] = sorted(times)[int(len(times) * 0.99)]
        found[f"{name} max ms"] = max(times)
    return found


def query(scale: float) -> dict[str, float]:
    """Which policies govern a pod: at 10,000 policies in small namespaces, and where all of them select it."""
    rng = Random(1)
    pods, objects = small_namespaces(int(3_334 * scale))
    sparse = Compilation(snapshot(pods, objects))
    times = []
    for _ in range(2_000):
        position = rng.randrange(len(sparse.directory.endpoints))
        began = perf_counter()
        sparse.governing(position, INGRESS)
        times.append((perf_counter() - began) * 1000)
    _, make = dense_cluster(scale)
    crowded = Compilation(make())
    heavy = []
    for _ in range(50):
        began = perf_counter()
        crowded.governing(rng.randrange(len(crowded.directory.endpoints)), INGRESS)
        heavy.append((perf_counter() - began) * 1000)
    return {
        "policies": len(objects),
        "median ms": statistics.median(times),
        "p99 ms": sorted(times)[int(len(times) * 0.99)],
        "all 10,000 select it, median ms": statistics.median(heavy),
    }


def reach(scale: float) -> dict[str, float]:
    """10,000 endpoints under 1,000 policies, every pair on one port."""
    pods = [Endpoint("pod", f"ns-{k % 100}", f"p{k}", {"app": f"app-{k // 100 % 10}"}) for k in range(int(1e4 * scale))]
    objects = []
    for i in range(1_000):
        other = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": f"ns-{i * 7 % 100}"}}}
        inward = {"from": [other, {"podSelector": {}}], "ports": [{"port": 80}]}
        outward = {"to": [{"namespaceSelector": {}, **app(f"app-{i % 10}")}]}
        spec = {**app(f"app-{i // 100}"), "ingress": [inward], "egress": [outward]}
        objects.append(policy(f"ns-{i % 100}", f"n{i}", spec))
    made = snapshot(pods, objects)
    began = perf_counter()
    found = Reach(made)
    prepared = perf_counter()
    matrix = found.matrix("TCP", 80)
    done = perf_counter()
    return {
        "endpoints": len(pods),
        "pairs allowed": sum(row.bit_count() for row in matrix),
        "prepare s": prepared - began,
        "matrix s": done - prepared,
        "total s": done - began,
    }


PARTS: dict[str, Callable[[float], dict[str, float]]] = {
    "large": large,
    "dense": dense,
    "change": change,
    "query": query,
    "reach": reach,
}


def alone(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One part in a process of its own."""
    command = [sys.executable, __file__, "--part", name, "--scale", str(arguments.scale)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of pods and policies")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each part; the median is told")
    parser.add_argument("--part", choices=sorted(PARTS), help="run one part here and print it as JSON")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.scale)))
        return
    medians: dict[str, float] = {}
    for name in PARTS:
        runs = [alone(name, arguments) for _ in range(arguments.rounds)]
        for key in runs[0]:
            title = f"{name}: {key}"
            medians[title] = statistics.median(run[key] for run in runs)
            goal = f"   goal {GOALS[title]:g}" if title in GOALS else ""
            print(f"{title:48} {medians[title]:12.3f}{goal}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(medians, indent=1) + "\n")


if __name__ == "__main__":
    main()
