"""Processes by number, told apart from later ones that were given the same number."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

from isoplane.node.runtime.oci import kernel


def start_ticks(pid: int) -> int:
    """When a process was started, in clock ticks since boot: with its number, its identity. 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = text.rpartition(b")")[2].split()
    # A zombie has ended, though its number is still taken.
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid: int, ticks: int) -> bool:
    """Whether that very process still runs. ``ticks`` 0: whether any of that number does."""
    now = start_ticks(pid) if pid > 0 else 0
    return now != 0 and (ticks in (0, now))


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


def signal_number(name: str) -> int:
    """``SIGTERM``, ``TERM``, ``15`` or ``SIGRTMIN+3`` as a number; SIGTERM for what is none of these."""
    text = name.strip().upper().removeprefix("SIG")
    if text.isdigit() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    base, _, offset = text.partition("+")
    number = getattr(signal, f"SIG{base}", signal.SIGTERM)
    return int(number) + (int(offset) if offset.isdigit() else 0)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it is gone."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def wait_gone(pid: int, timeout: float) -> bool:
    """Wait for a process that is not our child. Seconds."""
    fd = open_pidfd(pid)
    if fd is None:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
    finally:
        os.close(fd)


def conmon_lives(lock: Path, pid_file: Path, container_id: str) -> bool:
    """Whether a container's supervisor is there, from before it wrote its pid until after it wrote the exit code.

    It holds the lock from its birth, but lets go of it a little before it writes the exit code.
    """
    if kernel.lock_is_held(lock):
        return True
    pid = read_pid(pid_file)
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if pid else []
    except OSError:
        return False
    return container_id.encode() in arguments


def wait_conmon(lock: Path, pid_file: Path, container_id: str, timeout: float) -> bool:
    """Wait until a container's supervisor is gone. Seconds; False when it is still there."""
    deadline = time.monotonic() + timeout
    while conmon_lives(lock, pid_file, container_id):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


def wait_pid(pid_file: Path, lock: Path, timeout: float) -> int:
    """Wait until conmon has written a container's pid, while it lives. Seconds; 0 when it never did."""
    deadline = time.monotonic() + timeout
    while not (pid := read_pid(pid_file)):
        if time.monotonic() >= deadline or not kernel.lock_is_held(lock):
            return read_pid(pid_file)
        time.sleep(0.002)
    return pid
