"""``isoplane version``: the version, the APIs it speaks, and what this host brings."""

from __future__ import annotations

import json
import platform

import typer

from isoplane import __version__
from isoplane.cli.terminal import Output, command_line

app = command_line()

KUBERNETES = "1.37"
KUBEVIRT = "kubevirt.io/v1"


@app.command()
def version(output: Output = typer.Option(Output.TABLE, "--output", "-o", help="table or json.")) -> None:
    """Print the version, the APIs it speaks, and the Python and kernel it runs on."""
    told = {
        "isoplane": __version__,
        "kubernetes": KUBERNETES,
        "kubevirt": KUBEVIRT,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    if output is Output.JSON:
        typer.echo(json.dumps(told, indent=2))
        return
    for name, value in told.items():
        typer.echo(f"{name:<12}{value}")
