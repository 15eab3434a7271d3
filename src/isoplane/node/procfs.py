"""Processes by number, as /proc tells of them: whether one lives, since when, what it was started with; and signals to them.

They are not our children, and numbers are given out again: with its start a number is an identity, and so is an argument
that no other process has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def start_ticks(pid: int) -> int:
    """When a process was started, in clock ticks since boot: with its number, its identity. 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = text.rpartition(b")")[2].split()
    # A zombie has ended, though its number is still taken.
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def started_at(pid: int) -> float:
    """POSIX seconds at which a process started; 0 when it is gone."""
    ticks = start_ticks(pid)
    try:
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except (OSError, StopIteration):
        return 0
    return int(boot.split()[1]) + ticks / _TICKS if ticks else 0


def alive(pid: int, ticks: int = 0) -> bool:
    """Whether that very process still runs. ``ticks`` 0: whether any of that number does."""
    now = start_ticks(pid) if pid > 0 else 0
    return now != 0 and (ticks in (0, now))


def command_line(pid: int) -> list[str]:
    """The arguments of a process, its own name first; empty for one that is gone or a zombie."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
    except OSError:
        return []
    return words if words[-1] else words[:-1]


def numbers() -> Iterator[int]:
    """Every process that is shown to us."""
    return (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())


def with_argument(argument: str) -> Iterator[int]:
    """Processes whose command line has ``argument`` as one of its words."""
    return (pid for pid in numbers() if argument in command_line(pid))


def read_pid(path: Path) -> int:
    """The number in a pid file; 0 when there is none."""
    try:
        return int(path.read_text().strip() or 0)
    except (OSError, ValueError):
        return 0


def send(pid: int, number: int) -> None:
    """Send a signal; a process that is gone has no need of it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
