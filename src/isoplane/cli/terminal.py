"""What every command shares: exit codes, errors told on one line, the output format."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

import typer

DONE, FINDING, BAD_INPUT = 0, 1, 2


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


def default_data_dir() -> Path:
    """/var/lib/isoplane for root; ~/.local/share/isoplane (or XDG_DATA_HOME) for everyone else; ISOPLANE_DATA wins."""
    if told := os.environ.get("ISOPLANE_DATA"):
        return Path(told)
    if os.geteuid() == 0:
        return Path("/var/lib/isoplane")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "isoplane"
