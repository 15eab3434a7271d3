"""The ``isoplane`` command. A command's module is imported when it is used, so that each starts fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperCommand

from isoplane import __version__
from isoplane.cli.terminal import PLAIN, Group

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("isoplane.cli.up", "Serve the API and run workloads on this machine, in the foreground."),
    "status": (
        "isoplane.cli.status",
        "Say whether a plane runs here, where it serves, what it runs and where it logs.",
    ),
    "down": ("isoplane.cli.down", "Stop the workloads and remove every trace."),
    "backup": ("isoplane.cli.backup", "Write the store to one file, while the plane runs or not."),
    "restore": ("isoplane.cli.restore", "Put a backup into a data directory."),
    "rotate-key": ("isoplane.cli.rotate_key", "Encrypt the Secrets of a stopped plane with a new key."),
    "demo": ("isoplane.cli.demo", "Run an example end to end and show what happens."),
    "image": ("isoplane.cli.image", "Load, list and remove OCI images of the local store."),
    "policy": ("isoplane.cli.policy", "Explain, compare and check NetworkPolicies, offline or live."),
    "quota": ("isoplane.cli.quota", "Explain what a quota would admit, whom it would evict, and why."),
    "operator": ("isoplane.cli.operator", "Decide quota for Pods and VMs on an existing Kubernetes."),
    "vm": ("isoplane.cli.vm", "Start, stop, restart, pause and watch virtual machines."),
    "version": ("isoplane.cli.version", "Print the version, and what it is made of and runs on."),
    "lifecycle": ("isoplane.cli.lifecycle", "Print the life cycle that containers and VMs share."),
}
"""Command → (module with a Typer ``app``, its line in the help)."""


class LazyGroup(Group):
    """Knows every command by its line, which is all that help and completion ask for; the one that is run is loaded."""

    def __init__(self, **attributes: Any) -> None:
        lines = {name: TyperCommand(name, help=line, short_help=line) for name, (_, line) in COMMANDS.items()}
        super().__init__(**{**attributes, "commands": lines})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest


def load(name: str) -> Any:
    """The command itself, with all its options."""
    module, line = COMMANDS[name]
    command = typer.main.get_command(importlib.import_module(module).app)
    command.name = name
    command.help = command.help or line
    command.short_help = line
    return command


app = typer.Typer(
    cls=LazyGroup,
    name="isoplane",
    help="One control plane for containers and virtual machines.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **PLAIN,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"isoplane {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main(argv: list[str] | None = None) -> Any:
    """The console script. Exit codes: 0 done, 1 the answer is a finding, 2 bad input."""
    return app(args=argv if argv is not None else sys.argv[1:])


if __name__ == "__main__":
    main()
