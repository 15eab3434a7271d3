"""``isoplane image``: the local image store that containers and machines are made from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from isoplane.cli.terminal import BAD_INPUT, DATA, FINDING, Output, command_line, default_data_dir, fail, waiting

if TYPE_CHECKING:
    from isoplane.node.images import ImageStore, ProgressCallback, StoredImage

app = command_line("Load, list and remove OCI images of the local store.", group=True)

T = TypeVar("T")


@app.command()
def load(
    source: str = typer.Argument(
        ..., help="An OCI layout or archive, a docker archive, or a name to be fetched from its registry."
    ),
    name: str = typer.Option("", "--name", "-n", help="What to call it here.", show_default="what the source calls it"),
    data: Path | None = DATA,
    insecure_registry: list[str] = typer.Option(
        [], "--insecure-registry", metavar="HOST[:PORT]", help="Ask this registry over plain HTTP (loopback always is)."
    ),
) -> None:
    """Load an image into the local store.

    SOURCE is a path (an OCI image layout, an OCI archive or a docker archive, recognised by its content), one of
    oci:DIR[:NAME], oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], or an image name, with or without docker://,
    which is fetched from its registry.
    """
    store = _store(data, insecure_registry)
    with _bar() as progress:
        image = _run(store.load(source, name or None, progress))
    typer.echo(f"loaded {image.reference} ({_size(image.size)}, {image.digest})")


@app.command("list")
def list_(
    data: Path | None = DATA, output: Output = typer.Option(Output.TABLE, "--output", "-o", help="table or json.")
) -> None:
    """List the images in the local store, with all their names."""
    from isoplane.node.images import ImageError

    try:
        images = _store(data).list()
    except (ImageError, OSError) as error:
        fail(str(error), FINDING)
    if output is Output.JSON:
        typer.echo(json.dumps([_described(stored) for stored in images], indent=2))
        return
    if not images:
        typer.echo("no images: `isoplane image load SOURCE` loads one, `isoplane image build-demo` builds the demo's")
        return
    rows = [("NAME", "DIGEST", "SIZE", "LOADED", "USED")]
    for stored in images:
        digest = stored.image.digest.removeprefix("sha256:")[:12]
        used = "yes" if stored.in_use else ""
        rows += [(name, digest, _size(stored.image.size), _age(stored.loaded_at), used) for name in stored.names]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command("rm")
def remove(
    names: list[str] = typer.Argument(..., metavar="NAME...", help="Names as `isoplane image list` shows them."),
    force: bool = typer.Option(False, "--force", help="Drop the name even while a workload uses the image."),
    data: Path | None = DATA,
) -> None:
    """Remove images from the local store. An image with other names keeps those."""
    store = _store(data)
    for name in names:
        for removed in _run(store.remove(name, force=force)):
            typer.echo(f"removed {removed}")


@app.command()
def prune(data: Path | None = DATA) -> None:
    """Remove what nothing names and nothing uses: replaced images, left-overs of interrupted loads."""
    store = _store(data)
    try:
        removed = store.prune()
    except OSError as error:
        fail(str(error), FINDING)
    for digest in removed:
        typer.echo(f"removed {digest}")
    typer.echo(f"{len(removed)} image{'s' if len(removed) != 1 else ''} removed")


@app.command("build-demo")
def build_demo(
    data: Path | None = DATA,
    guest: bool = typer.Option(True, "--guest/--no-guest", help="Build the demonstration's machine image too."),
    kernel_package: Path | None = typer.Option(
        None,
        "--kernel-package",
        metavar="DEB",
        help="The guest's kernel.",
        show_default="Debian's cloud kernel, by apt-get",
    ),
) -> None:
    """Build the demonstration's images from Debian packages, on this machine.

    isoplane.io/demo/busybox:1 and isoplane.io/demo/web:1 (containers, from busybox-static) and isoplane.io/demo/guest:1
    (a machine, from a cloud kernel and busybox-static).
    """
    from isoplane.node.images import demo

    store = _store(data)
    with _bar() as progress:
        built = list(_run(demo.build_demo(store, progress)))
        if guest:
            from isoplane.node.images import guest as machine

            cache = store.root.parent / "cache"
            built.append(_run(machine.build_guest(store, progress, cache=cache, kernel_package=kernel_package)))
    for image in built:
        typer.echo(f"built {image.reference} ({_size(image.size)}, {image.digest})")


def _store(data: Path | None, insecure: list[str] | None = None) -> ImageStore:
    from isoplane.node.images import ImageStore

    directory = (data or default_data_dir()).absolute()
    try:
        (directory / "images").mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{directory / 'images'} cannot be made: {error.strerror}: choose another --data", FINDING)
    return ImageStore(directory / "images", insecure_registries=insecure or ())


def _run(work: Coroutine[Any, Any, T]) -> T:
    from isoplane.node.images import ImageError, ImageInputError

    try:
        return asyncio.run(work)
    except ImageInputError as error:
        fail(str(error), BAD_INPUT)
    except ImageError as error:
        fail(str(error), FINDING)
    except OSError as error:
        fail(f"{error.filename or 'the image store'}: {error.strerror}", FINDING)


@contextlib.contextmanager
def _bar() -> Iterator[ProgressCallback | None]:
    """A progress bar on a terminal; elsewhere a line for each step that takes its time."""
    if not sys.stderr.isatty():
        with waiting("working on the image"):
            yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

    from isoplane.node.images import Progress as Step

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("starting", total=None)

        def tell(step: Step) -> None:
            shown.update(task, description=step.stage, completed=step.done, total=step.total or None)

        yield tell


def _described(stored: StoredImage) -> dict[str, object]:
    return {
        "names": list(stored.names),
        "digest": stored.image.digest,
        "size": stored.image.size,
        "created": stored.created,
        "loadedAt": stored.loaded_at,
        "inUse": stored.in_use,
    }


def _size(size: int) -> str:
    amount, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"


def _age(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"
