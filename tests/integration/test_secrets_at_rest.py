"""Secrets in the files of a store: never as plain text, not after an upgrade, a deletion, a kill or a rotation either."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.kinds import CONFIGMAPS, SECRETS
from isoplane.store import Store, backup, rotation
from isoplane.store.database import Database
from isoplane.store.errors import KeyRefused, StoreCorrupt, StoreLocked
from isoplane.store.history import Retention
from isoplane.store.layout import examine
from store_support import config, put

EARLIER = sorted((Path(__file__).parents[1] / "golden" / "data_directories").glob("*.tar.gz"))
PLAIN = "cGxhaW4tdGV4dC1vZi1hLXNlY3JldA"


def secret(name: str, text: str = PLAIN) -> dict[str, Any]:
    return {**config(name, password=text), "kind": "Secret", "type": "Opaque"}


def holding(directory: Path, *texts: str) -> set[str]:
    """The files below that hold one of the texts."""
    return {
        path.name
        for path in directory.rglob("*")
        if path.is_file() and any(text.encode() in path.read_bytes() for text in texts)
    }


def value(store: Store, name: str) -> str:
    record = store.state.get(SECRETS, "default", name)
    assert record is not None
    return str(record.object()["data"]["password"])


async def one_secret(directory: Path) -> None:
    store = Store.open(directory)
    await put(store, secret("a"), SECRETS)
    await store.close()


async def test_no_file_ever_holds_a_secret(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = Store.open(data)
    await put(store, secret("a"), SECRETS)
    await put(store, secret("a", PLAIN + "2"), SECRETS)
    await put(store, config("seen", x="what is no secret"))
    record = await put(store, secret("gone"), SECRETS)
    await store.transact(lambda txn: txn.delete(record))
    made = await store.back_up(tmp_path / "copy")
    assert holding(tmp_path, PLAIN) == set()
    assert "copy" in holding(tmp_path, "what is no secret"), "the search finds what is there"
    assert "isoplane.db-wal" in holding(tmp_path, "what is no secret")
    await store.close()
    assert holding(tmp_path, PLAIN) == set()
    (line,) = (data / "keys").read_text().splitlines()
    assert stat.S_IMODE((data / "keys").stat().st_mode) == 0o600
    name, _, material = line.partition(" ")
    assert made.key == name
    assert holding(tmp_path, material) == {"keys"}

    store = Store.open(data)
    assert value(store, "a") == PLAIN + "2"
    changes = await store.watch(SECRETS, None, since=0).next(0)
    seen = [(c.type, c.record.object()["data"]["password"]) for c in changes]
    assert seen == [("ADDED", PLAIN), ("MODIFIED", PLAIN + "2"), ("ADDED", PLAIN), ("DELETED", PLAIN)]
    await store.close()


def unpacked(archive: Path, data: Path) -> list[str]:
    """What its Secrets hold, all revisions, those that were deleted included."""
    with tarfile.open(archive) as tar:
        tar.extractall(data, filter="data")
    with contextlib.closing(sqlite3.connect(data / "isoplane.db")) as db:
        rows = db.execute("SELECT data FROM log WHERE resource = 'secrets' AND data IS NOT NULL").fetchall()
        texts = [text for (raw,) in rows for text in (json.loads(raw).get("data") or {}).values()]
        # One that was deleted before: only free pages hold it.
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("INSERT INTO log VALUES (999999, 'secrets', 'default', 'gone', ?)", (PLAIN * 400,))
        db.commit()
        db.execute("DELETE FROM log WHERE revision = 999999")
        db.commit()
    assert texts
    assert all(holding(data, text) for text in [*texts, PLAIN])
    return [*texts, PLAIN]


@pytest.mark.parametrize("archive", EARLIER, ids=lambda path: path.name.partition(".")[0])
async def test_an_upgrade_leaves_no_plain_text(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    texts = unpacked(archive, data)
    await Store.open(data).close()
    assert holding(data, *texts) == set()
    assert examine(data / "isoplane.db").format == "3"

    again = tmp_path / "again"
    unpacked(archive, again)
    with monkeypatch.context() as patched:
        patched.setattr(Database, "_scrub", die)
        with pytest.raises(Killed):
            Store.open(again)
    assert holding(again, PLAIN), "cut off before what was replaced is gone"
    made = backup.back_up_stopped(again, tmp_path / "copy")
    assert made.key
    assert not any(text.encode() in (tmp_path / "copy").read_bytes() for text in texts)
    await Store.open(again).close()
    assert holding(again, *texts) == set()


class Killed(BaseException):
    pass


def die(*_: object) -> None:
    raise Killed


def deadly(function: Callable[..., Any], calls: int, *, after: bool) -> Callable[..., Any]:
    """The function, which dies in its n-th call, before or after its work."""
    left = calls

    def call(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Killed
        result = function(*arguments)
        if left == 0:
            raise Killed
        return result

    return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [(rotation, "write_keys", 1), (Database, "_seal_all", 1), (Database, "_scrub", 1), (rotation, "write_keys", 2)],
    ids=["new key", "seal", "scrub", "drop"],
)
@pytest.mark.parametrize("started", [False, True], ids=["", "started between"])
async def test_a_rotation_killed_anywhere_is_carried_through(
    owner: Any, name: str, calls: int, after: bool, started: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    await one_secret(data)
    old = (data / "keys").read_text()
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, deadly(vars(owner)[name], calls, after=after))
        with pytest.raises(Killed):
            rotation.rotate(data)
    if started:
        store = Store.open(data)
        assert value(store, "a") == PLAIN
        await put(store, secret("b"), SECRETS)
        await store.close()
    cut_off = len((data / "keys").read_text().splitlines()) == 2
    done = rotation.rotate(data)
    assert done.resumed == cut_off
    keys = (data / "keys").read_text()
    assert len(keys.splitlines()) == 1
    assert keys != old
    assert holding(data, old.split()[0]) == set(), "what the old key sealed is gone"
    store = Store.open(data)
    assert value(store, "a") == PLAIN
    await store.close()


async def test_a_key_that_is_missing_or_not_ours_stops_the_start_in_words(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await one_secret(data)
    keys = data / "keys"
    good = keys.read_bytes()
    name = good.split()[0].decode()
    before = (data / "isoplane.db").read_bytes()
    other = tmp_path / "other"
    await one_secret(other)
    for content, says in (
        (None, f"encrypted with key {name}, which .*keys does not hold"),
        ((other / "keys").read_bytes(), f"encrypted with key {name}"),
        (b"", "holds no encryption key"),
        (good[:-9], "line 1 is no encryption key"),
        (b"\xff" * 5000, "line 1 is no encryption key"),
    ):
        keys.unlink()
        if content is not None:
            keys.touch(mode=0o600)
            keys.write_bytes(content)
        with pytest.raises(KeyRefused, match=says):
            Store.open(data)
        with pytest.raises(KeyRefused, match=says):
            rotation.rotate(data)
        assert keys.exists() == (content is not None), "no new key is made for a store that has one"
        keys.touch(mode=0o600)
    keys.write_bytes(good)
    keys.chmod(0o640)
    with pytest.raises(KeyRefused, match=r"open to others .*chmod 0600"):
        Store.open(data)
    assert (data / "isoplane.db").read_bytes() == before
    keys.rename(tmp_path / "elsewhere")
    command = [sys.executable, "-m", "isoplane.cli.main", "up", "--runtime", "simulated", "--data", str(data)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "--encryption-key FILE" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "elsewhere").chmod(0o600)
    store = Store.open(data, None, tmp_path / "elsewhere")
    assert value(store, "a") == PLAIN
    with pytest.raises(StoreLocked):
        rotation.rotate(data, tmp_path / "elsewhere")
    await store.close()


async def test_a_value_opens_in_its_own_place_only(tmp_path: Path) -> None:
    await one_secret(tmp_path / "data")
    for statement in (
        "UPDATE log SET name = 'b' WHERE resource = 'secrets'",
        "UPDATE log SET namespace = 'other' WHERE resource = 'secrets'",
        "UPDATE log SET resource = 'configmaps' WHERE resource = 'secrets'",
        "UPDATE log SET data = CAST(substr(data, 1, length(data) - 1) AS BLOB) WHERE resource = 'secrets'",
        "UPDATE log SET data = CAST(substr(data, 1, 25) AS BLOB) WHERE resource = 'secrets'",
        # another object's uid in the head of the value
        "UPDATE log SET data = CAST(replace(data, 'uid-default-a', 'uid-default-b') AS BLOB)",
    ):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "data", copy)
        with contextlib.closing(sqlite3.connect(copy / "isoplane.db")) as db, db:
            db.execute(statement)
        with pytest.raises(StoreCorrupt, match="does not open with key"):
            Store.open(copy)
        shutil.rmtree(copy)


async def test_a_backup_needs_its_key(tmp_path: Path) -> None:
    await one_secret(tmp_path / "data")
    made = backup.back_up_stopped(tmp_path / "data", tmp_path / "copy")
    contents, _ = backup.restore(tmp_path / "copy", tmp_path / "new")
    assert contents.key == made.key
    with pytest.raises(KeyRefused, match=made.key):
        Store.open(tmp_path / "new")
    rotation.rotate(tmp_path / "data")
    # The old key beside the new one: what it sealed is read, and sealed by the first.
    fresh = rotation.rotate(tmp_path / "data").current
    await one_secret(tmp_path / "third")
    shutil.copy(tmp_path / "data" / "keys", tmp_path / "new" / "keys")
    with pytest.raises(KeyRefused, match=made.key):
        Store.open(tmp_path / "new")
    assert fresh != made.key


async def test_ordinary_kinds_are_stored_as_they_are(tmp_path: Path) -> None:
    store = Store.open(tmp_path, Retention(changes=5, size=1 << 30, seconds=1e9))
    await put(store, config("a", x="plain"))
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "isoplane.db")) as db:
        rows = db.execute("SELECT data FROM log WHERE resource = ?", (CONFIGMAPS.qualified,)).fetchall()
    assert rows[0][0].startswith(b"{")
