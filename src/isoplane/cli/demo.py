"""``isoplane demo``: run an example end to end and show what happens."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum

import typer
from rich.console import Console

from isoplane.cli.terminal import FINDING, command_line

app = command_line()


class Scene(StrEnum):
    """Which demo."""

    POD_AND_VM = "pod-and-vm"
    QUOTA = "quota"
    NETWORK = "network"


class RuntimeChoice(StrEnum):
    """``--runtime``; auto takes the real one where this host can."""

    AUTO = "auto"
    REAL = "real"
    SIMULATED = "simulated"


@app.command()
def demo(
    name: Scene = typer.Argument(Scene.POD_AND_VM, help="Which demo to run."),
    runtime: RuntimeChoice = typer.Option(
        RuntimeChoice.AUTO, "--runtime", help="Real, simulated, or whatever this host can."
    ),
) -> None:
    """Run an example end to end and show what happens: on a plane of its own, leaving nothing behind."""
    from importlib import import_module

    from isoplane.cli.scenes.theatre import choose_simulated
    from isoplane.http.listener import ListenError
    from isoplane.node.images.model import ImageError
    from isoplane.node.network.protocol import FabricFailure
    from isoplane.node.runtime.protocol import RuntimeFailure

    # A pipe has no width of its own: wide enough for the table.
    console = Console() if sys.stdout.isatty() else Console(width=150)
    simulated = choose_simulated(console, runtime.value)
    scene = import_module(f"isoplane.cli.scenes.{name.value.replace('-', '_')}")
    try:
        import uvloop

        uvloop.run(scene.run(console, simulated))
    except (TimeoutError, AssertionError, ImageError, FabricFailure, RuntimeFailure, ListenError) as error:
        console.print(f"[red]the demo failed:[/] {error}", highlight=False)
        raise typer.Exit(FINDING) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None
