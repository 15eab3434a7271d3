"""The formats of a node's records on disk: each record tells its number, older ones are brought up to date as they are read.

A record without a number is of a version that gave none; what that version wrote is told by what is in it.  Records are only
read here: whoever owns one writes it again in his own time.  :func:`inspect` reads every record of a data directory before
anybody converts any, and refuses what a newer isoplane wrote.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Fields = dict[str, Any]
NUMBER = "format"
_MOST_TOLD = 5


class RecordsRefused(Exception):
    """Records that this version cannot read. The message names them and says what to do; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of record. ``steps[n]`` turns format n + 1 into n + 2, and changes nothing that is already newer."""

    what: str
    steps: tuple[Callable[[Fields], Fields], ...] = ()

    @property
    def number(self) -> int:
        return 1 + len(self.steps)

    def stamp(self, fields: Mapping[str, Any]) -> Fields:
        """What is written: the fields and the number of their format."""
        return {**fields, NUMBER: self.number}

    def read(self, found: Mapping[str, Any]) -> Fields:
        """The fields of a record in their present form. Raises RecordsRefused when it is of a newer format."""
        fields = dict(found)
        number = fields.pop(NUMBER, 1)
        if not isinstance(number, int) or not 1 <= number <= self.number:
            raise RecordsRefused(f"it has format {number}, this version reads {self.what} up to format {self.number}")
        for step in self.steps[number - 1 :]:
            fields = step(fields)
        return fields


def _several_addresses(fields: Fields) -> Fields:
    """Before IPv6 there was one address, '' for none."""
    if "addresses" in fields:
        return fields
    only = fields.pop("address", "")
    return {**fields, "addresses": [only] if only else []}


def _state_in_memory(fields: Fields) -> Fields:
    """Before this format the low-level runtime's state lay on the disk: a version that looks there would find no container."""
    return fields


CONTAINER_SANDBOX = Format("a Pod's sandbox", (_several_addresses,))
CONTAINER_START = Format("the start of a container", (_state_in_memory,))
MACHINE_SANDBOX = Format("a machine's sandbox", (_several_addresses,))
MACHINE_RUN = Format("the run of a machine")
MACHINE_END = Format("the end of a machine")
SIMULATED_SANDBOX = Format("a simulated sandbox", (_several_addresses,))
IMAGE_NAME = Format("the name of an image")
HOST_SETTINGS = Format("the host's settings from before")

ADDRESSES_NUMBER = 2
"""``PRAGMA user_version`` of the record of addresses; 0 stands for formats 1 (IPv4 only) and 2, told apart by their columns."""

_RECORDS: tuple[tuple[str, Format], ...] = (
    ("oci/pods/*/sandbox.json", CONTAINER_SANDBOX),
    ("oci/pods/*/units/*/*/record.json", CONTAINER_START),
    ("qemu/machines/*/sandbox.json", MACHINE_SANDBOX),
    ("qemu/machines/*/run.json", MACHINE_RUN),
    ("qemu/machines/*/end.json", MACHINE_END),
    ("network/sysctl.json", HOST_SETTINGS),
    ("images/names/*", IMAGE_NAME),
)
_JOURNALS = "simulated/*.jsonl"
_ADDRESSES = ("network/ipam.sqlite", "simulated/network/ipam.sqlite")


def inspect(data_dir: Path) -> None:
    """Read every record; convert none. Raises RecordsRefused naming those that this version cannot read."""
    refused = [f"{path}: {why}" for path, why in _problems(data_dir)]
    if refused:
        more = f"\n  and {len(refused) - _MOST_TOLD} more" if len(refused) > _MOST_TOLD else ""
        raise RecordsRefused(
            f"{data_dir} holds records that this version cannot read; nothing was changed. "
            "Run the version that wrote them, or `isoplane down` of that version first:\n  "
            + "\n  ".join(refused[:_MOST_TOLD])
            + more
        )


def _problems(data_dir: Path) -> Iterator[tuple[Path, str]]:
    for pattern, format_ in _RECORDS:
        for path in sorted(data_dir.glob(pattern)):
            with contextlib.suppress(OSError):  # removed meanwhile
                yield from _of(path, format_, path.read_bytes())
    for path in sorted(data_dir.glob(_JOURNALS)):
        for line in path.read_bytes().splitlines():
            yield from _of(path, SIMULATED_SANDBOX, line, "sandbox")
    for place in _ADDRESSES:
        path = data_dir / place
        if path.exists() and (number := _user_version(path)) > ADDRESSES_NUMBER:
            yield path, f"it has format {number}, this version reads the record of addresses up to {ADDRESSES_NUMBER}"


def _of(path: Path, format_: Format, raw: bytes, member: str = "") -> Iterator[tuple[Path, str]]:
    """What stands against one record. One that is not whole says nothing: its owner knows what that means."""
    try:
        found = json.loads(raw)
    except ValueError:
        return
    record = found.get(member) if member and isinstance(found, dict) else found
    if not isinstance(record, dict):
        return
    try:
        format_.read(record)
    except RecordsRefused as refused:
        yield path, str(refused)


def _user_version(path: Path) -> int:
    """0 for a file that cannot be read as it lies: whoever opens it says why."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            (number,) = db.execute("PRAGMA user_version").fetchone()
            return int(number)
    except sqlite3.Error:
        return 0
