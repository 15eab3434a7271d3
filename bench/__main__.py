"""Run every benchmark (or the named ones) one after the other; what they print is kept in bench/results/NAME.txt.

    python -m bench [NAME …]

A benchmark that needs root is left out for anybody else, and the end says so.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
NEEDS_ROOT = {"pod_start", "vm_start", "fabric", "fabric_enforce", "datapath", "datapath_guest"}
BENCHMARKS: dict[str, list[str]] = {
    "api_throughput": [],
    "api_stalls": [],
    "plane_scale": [],
    "pod_start": [],
    "vm_start": [],
    "fabric": [],
    "fabric_enforce": [],
    "datapath": ["--out", str(RESULTS / "datapath.json")],
    "datapath_guest": ["--out", str(RESULTS / "datapath_guest.json")],
    "policy_compile": [],
    "policy_explain": [],
    "policy_analyser": ["--out", str(RESULTS / "policy_analyser.json")],
    "quota_decisions": [],
    "quota_kueue": [],
    "quota_admission": [],
    "quota_api": [],
}
"""Name → its arguments."""
LIMIT_SECONDS = 1800


def machine() -> str:
    """One line about where this runs."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, Python {platform.python_version()}, load {load}"


def run(name: str) -> bool:
    """Run one, keep what it prints. False when it failed."""
    command = [sys.executable, str(HERE / f"{name}.py"), *BENCHMARKS[name]]
    began = time.monotonic()
    print(f"== {name}", flush=True)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        output, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as slow:
        output, code = f"{slow.stdout or ''}\ngave up after {LIMIT_SECONDS} s\n", 1
    print(output, flush=True)
    shown = " ".join(BENCHMARKS[name]).replace(f"{HERE.parent}/", "")
    head = f"{machine()}\n$ python bench/{name}.py {shown}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.txt").write_text(f"{head}{output}took {time.monotonic() - began:.0f} s, exit code {code}\n")
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], default=[])
    names = parser.parse_args().names or list(BENCHMARKS)
    skipped = [name for name in names if name in NEEDS_ROOT and os.geteuid() != 0]
    failed = [name for name in names if name not in skipped and not run(name)]
    for what, which in (("left out, they need root", skipped), ("failed", failed)):
        if which:
            print(f"{what}: {', '.join(which)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
