"""How much of the disk lies below some directories, measured by ``du``: in a process of its own, however deep and many.

What is measured is written by tenants meanwhile: du walks by descriptor, follows no link and leaves no file system.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason

_TIMEOUT = 120.0


def measure(paths: Iterable[Path]) -> dict[Path, int]:
    """Path → bytes allocated at and below it; what is gone has none. A file with several names counts once. Blocking."""
    found = {path: 0 for path in paths if os.path.lexists(path)}
    if not found:
        return {}
    command = ["nice", "du", "-s", "-x", "-0", "--block-size=1", "--", *map(str, found)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeFailure(RuntimeReason.SANDBOX, f"disk usage could not be measured: {error}") from None
    # A status other than 0 is that of files that went meanwhile; the sums of all others are there.
    for line in done.stdout.split(b"\0")[:-1]:
        size, _, name = line.partition(b"\t")
        found[Path(os.fsdecode(name))] = int(size)
    return found
