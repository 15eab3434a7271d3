"""``isoplane down``: stop the workloads and remove every trace of them from the host."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import typer

from isoplane.cli.terminal import DATA, FINDING, command_line, default_data_dir, fail, waiting

app = command_line()

STOP_SECONDS = 60.0


@app.command()
def down(
    data: Path | None = DATA,
    grace: float = typer.Option(30.0, "--grace", help="Seconds that workloads have to end by themselves."),
) -> None:
    """Stop the workloads and remove every trace: processes, namespaces, links, tables, bridges, mounts, cgroups.

    A plane that runs on the data directory is stopped first. Objects and images stay: the next `isoplane up` starts the
    workloads again.
    """
    directory = (data or default_data_dir()).absolute()
    if not directory.is_dir():
        fail(f"{directory} does not exist: there is nothing to take down")
    from isoplane.store.errors import StoreError, StoreLocked
    from isoplane.store.lock import DirectoryLock

    try:
        lock = DirectoryLock(directory)
    except StoreLocked as held:
        _stop_plane(held.pid)
        try:
            lock = DirectoryLock(directory)
        except StoreError as error:
            fail(str(error), FINDING)
    except StoreError as error:
        fail(str(error), FINDING)
    try:
        with waiting("stopping the workloads and removing their traces"):
            removed = asyncio.run(_take_down(directory, grace))
    finally:
        lock.release()
    typer.echo(f"removed {removed} workload{'s' if removed != 1 else ''} and the network of {directory}")


def _stop_plane(pid: int | None) -> None:
    if pid is None:
        fail("a plane runs on this data directory, and its process is unknown: stop it first", FINDING)
    from isoplane.node import procfs

    typer.echo(f"stopping the plane (process {pid})")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    with waiting(f"waiting for the plane (process {pid}) to end"):
        while time.monotonic() < deadline:
            if not procfs.alive(pid):
                return
            time.sleep(0.1)
    fail(f"the plane (process {pid}) does not stop", FINDING)


async def _take_down(directory: Path, grace: float) -> int:
    from isoplane.node import assembly, formats
    from isoplane.node.network.protocol import FabricFailure
    from isoplane.node.parts import NodeOptions
    from isoplane.node.runtime.protocol import RuntimeFailure
    from isoplane.node.takedown import take_down

    try:
        formats.inspect(directory)
    except formats.RecordsRefused as refused:
        fail(str(refused), FINDING)
    removed = 0
    for options in (NodeOptions(simulated=True), NodeOptions()):
        if not _used(directory, options.simulated):
            continue
        if not options.simulated and os.geteuid() != 0:
            fail("real workloads ran here: taking them down needs root", FINDING)
        try:
            removed += await take_down(assembly.make(directory, options), grace)
        except (RuntimeFailure, FabricFailure) as failure:
            fail(str(failure), FINDING)
    return removed


def _used(directory: Path, simulated: bool) -> bool:
    """Whether a node of that kind ever ran on the data directory."""
    places = ("simulated",) if simulated else ("oci", "qemu")
    return any((directory / place).exists() for place in places)
