"""What is written while the disk is short, and how the reserve is given up and made again."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import InsufficientStorage
from isoplane.objects.kinds import CONFIGMAPS
from isoplane.store.database import Database, Write
from isoplane.store.reserve import Reserve, goes_on, may_fill, size_for
from store_support import FlakyCommitter, config, in_memory, put, remove

MIB = 1 << 20


class Refusing:
    """A connection whose disk is full for the next ``times`` transactions."""

    def __init__(self, connection: Any, times: int) -> None:
        self._connection = connection
        self.times = times

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "COMMIT" and self.times:
            self.times -= 1
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return self._connection.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_its_size_and_when_it_may_be_made() -> None:
    assert [size_for(total, 32 * MIB) for total in (1 << 40, 160 * MIB, 16 * MIB, 15 * MIB)] == [
        32 * MIB, 10 * MIB, MIB, 0,
    ]  # fmt: skip
    assert may_fill(10, 0, 20)
    assert not may_fill(10, 0, 19)
    assert may_fill(10, 6, 14)
    assert not may_fill(10, 6, 13)


async def test_while_the_disk_is_short_only_what_frees_some_goes_on() -> None:
    committer = FlakyCommitter()
    store = in_memory(committer)
    for name in ("small", "large", "ending"):
        await put(store, config(name))
    committer.short = True
    with pytest.raises(InsufficientStorage, match="Delete something"):
        await put(store, config("new"))
    with pytest.raises(InsufficientStorage):
        await put(store, config("large", text="x" * 20_000))
    await put(store, config("small", text="status"))
    ending = config("ending", text="x" * 20_000)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await put(store, ending)
    await remove(store, "large")
    assert sorted(r.name for r in store.list(CONFIGMAPS, None)) == ["ending", "small"]
    committer.short = False
    await put(store, config("new"))
    await store.close()
    assert goes_on([])


def test_a_full_disk_takes_a_piece_and_the_write_stands(tmp_path: Path) -> None:
    database = Database(tmp_path, reserve=2 * MIB)
    connection: Any = database._db
    file = tmp_path / "reserve"
    whole = file.stat().st_blocks * 512
    assert file.stat().st_size == 2 * MIB <= whole
    assert not database.short
    database._db = Refusing(connection, 2)  # type: ignore[assignment]
    database.commit(Write(facts={"a": "1"}))
    assert database.facts()["a"] == "1"
    assert database.short
    assert file.stat().st_size == 2 * MIB * 14 // 16
    assert file.stat().st_blocks * 512 < whole
    with pytest.raises(InsufficientStorage):  # More than half a piece: it would eat what deletions need.
        database._db = Refusing(connection, 1)  # type: ignore[assignment]
        database.commit(Write(put_rows=[(1, "t", "k", b"x" * 70_000)]))
    with pytest.raises(InsufficientStorage):
        database._db = Refusing(connection, 100)  # type: ignore[assignment]
        database.commit(Write(facts={"a": "2"}))
    assert file.stat().st_size == 0
    assert database.facts()["a"] == "1"
    database._db = connection
    database.maintain()
    assert not database.short
    assert file.stat().st_size == 2 * MIB
    database.close()
    assert Database(tmp_path).short is False  # none is asked for


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    (tmp_path / "reserve").symlink_to("other")
    reserve = Reserve(tmp_path / "reserve", 2 * MIB)
    assert (tmp_path / "other").read_text() == "kept"
    assert not reserve.short
