"""The data-path benchmark on a second host, whose kernel has Open vSwitch's datapath (tools/second_host.py).

    sudo python bench/datapath_guest.py [--sizes 10 1000 10000 50000] [--rounds 2] [--out FILE]

The same program, `bench/datapath.py`, inside a QEMU guest under Debian's cloud kernel: the product finds the kernel's datapath
there and uses it.  Only ratios mean anything: without KVM each instruction is emulated, so that work in the kernel costs some
ten times more, and what is cheap on a processor need not be cheap here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 1700
WARM = "1.0"
"""Seconds: code that was never run must be translated first."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["10", "1000", "10000", "50000"], help="how many rules")
    parser.add_argument("--rounds", default="2")
    parser.add_argument("--seconds", default="0.7", help="of each measurement")
    parser.add_argument("--out", type=Path, help="keep every sample as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="isoplane-datapath-guest-") as results:
        inside = [sys.executable, str(ROOT / "bench" / "datapath.py"), "--sizes", *arguments.sizes]
        inside += [
            "--warm",
            WARM,
            "--rounds",
            arguments.rounds,
            "--seconds",
            arguments.seconds,
            "--out",
            "/results/datapath.json",
        ]
        host = [sys.executable, str(ROOT / "tools" / "second_host.py"), "--timeout", str(TIMEOUT), "--results", results]
        code = subprocess.run([*host, *inside], check=False).returncode
        if code == 0 and arguments.out:
            arguments.out.write_bytes((Path(results) / "datapath.json").read_bytes())
    return code


if __name__ == "__main__":
    sys.exit(main())
