"""``isoplane restore``: a backup of the store back into a data directory."""

from __future__ import annotations

from pathlib import Path

import typer

from isoplane.cli.terminal import DATA, FINDING, command_line, default_data_dir, fail

app = command_line()


@app.command()
def restore(
    file: Path = typer.Argument(..., metavar="FILE", help="What `isoplane backup` wrote."),
    data: Path | None = DATA,
    force: bool = typer.Option(False, "--force", help="Replace the store of a directory that holds one."),
) -> None:
    """Put a backup into a data directory that no plane runs on; the next `isoplane up` goes on from it.

    A store that is replaced is kept beside it, in DATA/replaced-TIME. Certificates, images and what the workloads left on
    the host stay as they are: the next start adopts the workloads that the backup knows and ends the others.
    """
    from isoplane.store.backup import restore as put_back
    from isoplane.store.errors import StoreError

    directory, source = (data or default_data_dir()).absolute(), file.absolute()
    if not source.is_file():
        fail(f"{source} is no file")
    try:
        contents, kept = put_back(source, directory, force=force)
    except StoreError as error:
        fail(str(error), FINDING)
    typer.echo(f"{directory}: restored {contents.objects} objects of revision {contents.revision}")
    if contents.key:
        typer.echo(f"Its Secrets need encryption key {contents.key} in {directory / 'keys'}, or --encryption-key FILE")
    if kept is not None:
        typer.echo(f"What was there before is kept in {kept}")
