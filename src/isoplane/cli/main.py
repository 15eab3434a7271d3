"""The ``isoplane`` command. A command's module is imported when it is used, so that each starts fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from isoplane import __version__

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
    "vm": ("isoplane.cli.vm", "Start, stop, restart, pause and watch virtual machines."),
    "version": ("isoplane.cli.version", "Print the version, and what it is made of and runs on."),
    "lifecycle": ("isoplane.cli.lifecycle", "Print the life cycle that containers and VMs share."),
}
"""Command → (module with a Typer ``app``, its line in the help)."""


class LazyGroup(TyperGroup):
    """Knows every command by name and loads it when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, line = COMMANDS[cmd_name]
        app = importlib.import_module(module).app
        command = typer.main.get_command(app)
        command.name = cmd_name
        command.help = command.help or line
        command.short_help = line
        return command


app = typer.Typer(
    cls=LazyGroup,
    name="isoplane",
    help="One control plane for containers and virtual machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
