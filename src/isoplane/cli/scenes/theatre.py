"""What every demo needs: a plane of its own on a throw-away data directory, images, and nothing left behind afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rich.console import Console

from isoplane.cli.manifests import read
from isoplane.cli.terminal import default_data_dir
from isoplane.node.parts import NodeOptions
from isoplane.node.programs import missing
from isoplane.objects import kinds, metadata
from isoplane.objects.metadata import Object
from isoplane.plane import Plane, PlaneOptions


@dataclass(slots=True)
class Stage:
    """A running plane and where to print."""

    plane: Plane
    console: Console
    simulated: bool

    def say(self, text: str) -> None:
        """One step of the story."""
        self.console.print(f"\n[bold]▸ {text}[/]")

    async def apply(self, objects: Sequence[Object]) -> list[Object]:
        """Create the objects in order."""
        made = []
        for obj in objects:
            resource = kinds.of(obj)
            made.append(await self.plane.api.create(resource, obj, namespace=metadata.namespace(obj)))
            where = f" in {metadata.namespace(obj)}" if metadata.namespace(obj) else ""
            self.console.print(f"  {obj['kind']} {metadata.name(obj)}{where} created", highlight=False)
        return made


def example(name: str) -> list[Object]:
    """The manifests of an example that ships with isoplane."""
    return read([example_dir(name)])


def example_dir(name: str) -> Path:
    """The directory of an example; in a checkout the package's ``examples`` is a link to those at its top."""
    return Path(str(resources.files("isoplane"))) / "examples" / name


async def build_images(console: Console) -> Path:
    """The image store with the demo's images, built from Debian packages where they are missing."""
    from isoplane.node.images import demo, guest
    from isoplane.node.images.store import ImageStore

    store = ImageStore(default_data_dir() / "images")
    if store.lookup(demo.WEB_IMAGE) is None or store.lookup(demo.BUSYBOX_IMAGE) is None:
        console.print("building the container images from busybox-static …")
        await demo.build_demo(store)
    if store.lookup(guest.GUEST_IMAGE) is None:
        console.print("building the guest image from linux-image-cloud and busybox-static …")
        await guest.build_guest(store)
    return store.root


def choose_simulated(console: Console, wanted: str) -> bool:
    """Whether to simulate: as wanted, or, with ``auto``, where this host cannot run workloads for real; said plainly."""
    if wanted != "auto":
        return wanted == "simulated"
    reasons = missing()
    if os.geteuid() != 0:
        reasons.insert(0, "this is not root")
    if not reasons:
        return False
    console.print("[yellow]Running on the simulated runtime, no container or VM is real:[/]")
    for reason in reasons:
        console.print(f"  - {reason}", highlight=False)
    return True


@asynccontextmanager
async def stage(console: Console, *, simulated: bool) -> AsyncIterator[Stage]:
    """A fresh plane; taken down with every trace at the end, whatever happened."""
    logging.basicConfig(level=logging.ERROR)
    images = None if simulated else await build_images(console)
    directory = Path(tempfile.mkdtemp(prefix="isoplane-demo-"))
    options = PlaneOptions(
        data_dir=directory, listen="127.0.0.1:0", node=NodeOptions(simulated=simulated, images=images)
    )
    plane = Plane(options)
    try:
        await plane.start()
        yield Stage(plane, console, simulated)
    finally:
        await plane.take_down()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
