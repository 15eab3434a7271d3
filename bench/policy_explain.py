"""How long `isoplane policy explain` takes on three objects, and `isoplane --version` and `--help`: the whole process.

    python bench/policy_explain.py [--rounds 15]

Beside them, in turn, an empty Python, and a process that only imports the command-line library: what no command can be below.
Mistrust: on a busy machine wall time says more about the others, so CPU time stands beside it, and that is half as much again
where both processors share their caches; the ratio to the empty Python stays.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MANIFESTS = """
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a, labels: {app: web}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: fe, namespace: a}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}, spec: {podSelector: {}, ingress: [{}]}}
"""
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Compiled modules are kept, as an installed program's are."""
FLOOR = "import typer; app = typer.Typer(); app.command()(lambda x='': None); app([])"


def measured(command: list[str]) -> tuple[float, float]:
    """(wall, CPU) seconds of one run, which must answer 0."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "manifests.yaml")
        file.write_text(MANIFESTS)
        ends = ["--from", "a/fe", "--to", "a/web", "--port", "80"]
        isoplane = [sys.executable, "-m", "isoplane.cli.main"]
        commands = {
            "an empty Python": [sys.executable, "-c", "pass"],
            "isoplane policy explain": [*isoplane, "policy", "explain", "-f", str(file), *ends],
            "isoplane --version": [*isoplane, "--version"],
            "isoplane --help": [*isoplane, "--help"],
            "the command-line library alone": [sys.executable, "-c", FLOOR],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                figures = measured(command)
                if number:  # the first fills the caches
                    found[name].append(figures)
    for name, runs in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name:32} {wall:.3f} s wall, {cpu:.3f} s CPU (medians of {rounds})")


if __name__ == "__main__":
    main()
