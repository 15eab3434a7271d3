"""Memory that lies scattered and unused is given back to the system."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from isoplane.memory import give_back

def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024

kept = [bytes(30_000) for _ in range(5_000)]
full = resident()
kept = kept[::100]  # what stays lies in between, at the top too
before = resident()
assert give_back()
print(full, before, resident())
"""


def test_what_is_free_in_between_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    full, before, after = map(int, done.stdout.split())
    assert before > full - 50, "the library gives little back of itself: else this module is not needed"
    assert after < full - 100
