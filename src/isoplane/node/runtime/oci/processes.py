"""Waiting for containers' processes and for their supervisors, which are not our children."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

from isoplane import filelock
from isoplane.node import procfs


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
    if filelock.is_held(lock):
        return True
    pid = procfs.read_pid(pid_file)
    return pid > 0 and container_id in procfs.command_line(pid)


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
    while not (pid := procfs.read_pid(pid_file)):
        if time.monotonic() >= deadline or not filelock.is_held(lock):
            return procfs.read_pid(pid_file)
        time.sleep(0.002)
    return pid
