"""``isoplane backup``: the store in one file, from a running plane or a stopped one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from isoplane.cli.terminal import DATA, FINDING, command_line, default_data_dir, fail

app = command_line()


@app.command()
def backup(
    file: Path = typer.Argument(..., metavar="FILE", help="The new file to write."),
    data: Path | None = DATA,
) -> None:
    """Write every object, the quota ledger and the watch log to one file, while the plane runs or while it does not.

    The file is read back before it counts. It has mode 0600 and holds neither the encryption key nor certificates: save
    DATA/keys and DATA/pki as well, the key in another place than the backup.
    """
    from isoplane.store.errors import StoreError

    directory, target = (data or default_data_dir()).absolute(), file.absolute()
    try:
        made = _make(directory, target)
    except StoreError as error:
        fail(str(error), FINDING)
    typer.echo(f"{made['path']}: {made['objects']} objects at revision {made['revision']}, {made['size']} bytes")
    if made["key"]:
        typer.echo(
            f"Its Secrets are encrypted with key {made['key']}, which is not in it: save the key file "
            f"({directory / 'keys'}, or what --encryption-key names) in another place"
        )
    else:
        typer.echo("It was written by a version that did not encrypt: Secrets are in it as plain text")
    typer.echo(f"It holds no certificates: save {directory / 'pki'} as well, or clients need the new kubeconfig")


def _make(directory: Path, target: Path) -> dict[str, Any]:
    from isoplane.server.control import ControlRefused, ask_for_backup
    from isoplane.store.backup import back_up_stopped
    from isoplane.store.errors import StoreLocked

    try:
        return back_up_stopped(directory, target).to_json()
    except StoreLocked:
        try:
            return ask_for_backup(directory, target)
        except ControlRefused as refused:
            fail(str(refused), FINDING)
