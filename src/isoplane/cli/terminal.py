"""What every command shares: exit codes, errors told on one line, the output format."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

DONE, FINDING, BAD_INPUT = 0, 1, 2
PATIENCE, AGAIN = 2.0, 10.0
"""Seconds after which a wait is told, and between two words about it."""

PLAIN: dict[str, Any] = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
"""How help and errors are printed: as plain text. Loading rich takes longer than most commands do, and it eats brackets."""

DATA: Path | None = typer.Option(
    None, "--data", help="Data directory.", show_default="/var/lib/isoplane, or ~/.local/share"
)
"""The option of every command that works on a data directory; ``default_data_dir`` is what its absence means."""


def command_line(help: str | None = None, *, group: bool = False) -> typer.Typer:
    """The app of a command, or of a group of them."""
    return typer.Typer(cls=Group, help=help, no_args_is_help=group, add_completion=False, **PLAIN)


class Group(TyperGroup):
    """Its help tells of each command the whole first sentence, where the library cuts it off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in found if command])


class Output(StrEnum):
    """``--output``."""

    TABLE = "table"
    JSON = "json"


def fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    """Say what went wrong on stderr and exit."""
    typer.echo(f"isoplane: {message}", err=True)
    raise typer.Exit(code)


def say(what: str) -> None:
    """A remark that is no answer: on stderr."""
    typer.echo(what, err=True)


def find_kubeconfig(named: Path | None) -> Path:
    """The kubeconfig to use: the one named, $KUBECONFIG's first, the data directory's, ~/.kube/config.

    Where none of them is there, says what was looked for and exits.
    """
    if named is not None:
        return named
    listed = [entry for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep) if entry]
    if listed:
        return Path(listed[0])
    own, user = default_data_dir() / "kubeconfig", Path.home() / ".kube" / "config"
    for path in (own, user):
        if path.exists():
            return path
    fail(
        f"no kubeconfig: $KUBECONFIG is not set, and neither {own} nor {user} is there; "
        "name one with --kubeconfig, or start a plane with `isoplane up`"
    )


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is being waited for once that takes more than ``PATIENCE`` seconds, and again now and then; on stderr."""
    ended = threading.Event()

    def tell() -> None:
        began = time.monotonic()
        pause = PATIENCE
        while not ended.wait(pause):
            typer.echo(f"{what} … {time.monotonic() - began:.0f} s", err=True)
            pause = AGAIN

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def default_data_dir() -> Path:
    """/var/lib/isoplane for root; ~/.local/share/isoplane (or XDG_DATA_HOME) for everyone else; ISOPLANE_DATA wins."""
    if told := os.environ.get("ISOPLANE_DATA"):
        return Path(told)
    if os.geteuid() == 0:
        return Path("/var/lib/isoplane")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "isoplane"
