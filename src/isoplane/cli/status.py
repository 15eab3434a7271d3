"""``isoplane status``: whether a plane runs on a data directory, where it serves, what it runs, where it logs.

Looks from outside and changes nothing: at the lock of the data directory, at the API server's readiness by the directory's own
kubeconfig, and at the sandboxes that lie there.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from isoplane.cli.terminal import DATA, DONE, FINDING, Output, command_line, default_data_dir, fail

if TYPE_CHECKING:
    from isoplane.store.lock import Holder

app = command_line()

_SANDBOXES = {"containers": "oci/pods", "virtual machines": "qemu/machines"}


@app.command()
def status(
    data: Path | None = DATA,
    output: Output = typer.Option(Output.TABLE, "--output", "-o", help="table or json."),
) -> None:
    """Say whether a plane runs here, where it serves, what it runs and where it logs.

    Exit code 1 when none runs, or when the one that runs is not ready.
    """
    directory = (data or default_data_dir()).absolute()
    if not directory.is_dir():
        fail(
            f"{directory} does not exist: no plane ran there; `isoplane up` starts one, --data names another directory"
        )
    told = look(directory)
    if output is Output.JSON:
        typer.echo(json.dumps(told, indent=2))
    else:
        for name, value in told.items():
            shown = "-" if value in (None, "") else value
            typer.echo(f"{name + ':':<18}{shown}")
    raise typer.Exit(DONE if told["ready"] == "yes" else FINDING)


def look(directory: Path) -> dict[str, Any]:
    """What is seen of the plane on a data directory, name → value for people."""
    from isoplane.store.lock import holder

    try:
        held = holder(directory)
    except OSError as error:
        fail(
            f"{directory} cannot be read ({error.strerror}): ask as the user that runs the plane, root for a real one",
            FINDING,
        )
    found: dict[str, Any] = {"data": str(directory), "plane": _told(held)}
    found |= asyncio.run(_ask(directory)) if held else {"serves": None, "ready": "no"}
    for what, where in _SANDBOXES.items():
        place = directory / where
        found[what] = sum(1 for entry in place.iterdir() if entry.is_dir()) if place.is_dir() else 0
    found["kubeconfig"] = str(directory / "kubeconfig") if (directory / "kubeconfig").exists() else None
    found["log"] = _log_of(held.pid) if held else "of the last run: wherever its standard error went"
    return found


def _told(held: Holder | None) -> str:
    if held is None:
        return "does not run"
    return f"runs as process {held.pid}" if held.pid else "runs, as a process that could not write its number"


async def _ask(directory: Path) -> dict[str, Any]:
    from isoplane.client import kubeconfig
    from isoplane.client.http import HttpApi
    from isoplane.client.problems import KubeconfigProblem
    from isoplane.objects.errors import ApiError

    path = directory / "kubeconfig"
    try:
        cluster = kubeconfig.load(path)
        async with HttpApi(cluster) as api:
            try:
                await api.text("/readyz")
                ready = "yes"
            except ApiError as error:
                ready = f"no: {error.message}"
    except (KubeconfigProblem, OSError) as error:
        return {"serves": None, "ready": f"no: {error}"}
    return {"serves": cluster.server, "ready": ready}


def _log_of(pid: int) -> str:
    """Where the plane's standard error goes: a file, the journal of its unit, or a terminal."""
    environment = _environment(pid)
    if environment.get("JOURNAL_STREAM"):
        return "the journal: journalctl -u isoplane"
    try:
        return os.readlink(f"/proc/{pid}/fd/2")
    except OSError:
        return "its standard error"


def _environment(pid: int) -> Mapping[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (entry.decode(errors="replace").partition("=") for entry in raw if b"=" in entry)
    return {name: value for name, _, value in pairs}
