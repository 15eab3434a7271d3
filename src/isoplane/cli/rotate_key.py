"""``isoplane rotate-key``: a new key for what is encrypted in the store."""

from __future__ import annotations

from pathlib import Path

import typer

from isoplane.cli.terminal import DATA, FINDING, command_line, default_data_dir, fail

app = command_line()


@app.command()
def rotate_key(
    data: Path | None = DATA,
    encryption_key: Path | None = typer.Option(
        None, "--encryption-key", metavar="FILE", help="The file of encryption keys.", show_default="DATA/keys"
    ),
) -> None:
    """Encrypt the Secrets of a plane that does not run with a new key, and forget the old one.

    Interrupted at any moment, it is carried through when it is run again; the plane can start in between. Backups made
    before still need the old key.
    """
    from isoplane.store.errors import StoreError
    from isoplane.store.rotation import rotate

    try:
        done = rotate((data or default_data_dir()).absolute(), encryption_key.absolute() if encryption_key else None)
    except StoreError as error:
        fail(str(error), FINDING)
    if done.resumed:
        typer.echo("carried through a rotation that had been interrupted")
    typer.echo(f"{done.path}: key {done.current} encrypts, {', '.join(done.dropped)} is forgotten")
    typer.echo("Save the new key file. Backups made before need the old one")
