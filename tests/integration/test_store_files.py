"""The data directory: what survives, what is refused, and that a refusal damages nothing."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC251  (mounts and kills are meant to block)
from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import Expired, InsufficientStorage
from isoplane.objects.kinds import CONFIGMAPS, Resource
from isoplane.store import Store, Transaction
from isoplane.store.errors import StoreCorrupt, StoreLocked, StoreUnwritable
from isoplane.store.history import Retention
from isoplane.store.layout import FORMAT
from isoplane.store.lock import DirectoryLock
from support import require


def config(name: str, **data: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def stored(directory: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(directory / "isoplane.db")) as db:
        return db.execute(query).fetchall()


async def put(store: Store, name: str, **data: str) -> None:
    await store.transact(lambda txn: txn.put(CONFIGMAPS, config(name, **data)))


async def test_objects_rows_revision_and_watches_survive_a_restart(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for name in "abc":
        await put(store, name)

    def more(txn: Transaction) -> None:
        found = txn.get(CONFIGMAPS, "default", "b")
        assert found is not None
        txn.delete(found)
        txn.put(CONFIGMAPS, config("a", changed="yes"))
        txn.put_row("ledger", "k", b"v")

    await store.transact(more)
    await store.close()
    store = Store.open(tmp_path)
    assert store.revision == 5
    assert [r.name for r in store.list(CONFIGMAPS, None)] == ["a", "c"]
    assert store.state.row("ledger", "k") == b"v"
    watch = store.watch(CONFIGMAPS, None, since=2)
    seen = [(c.type, c.record.name, c.revision) for c in await watch.next(0)]
    assert seen == [("ADDED", "c", 3), ("DELETED", "b", 4), ("MODIFIED", "a", 5)]
    await put(store, "d")
    assert store.revision == 6
    await store.close()


async def test_compaction_frees_the_file_and_is_remembered(tmp_path: Path) -> None:
    store = Store.open(tmp_path, Retention(changes=5, size=1 << 30, seconds=1e9))
    for number in range(200):
        await put(store, "a", n=str(number))
    await store.close()
    assert len(stored(tmp_path, "SELECT revision FROM log")) < 20
    store = Store.open(tmp_path)
    with pytest.raises(Expired):
        store.watch(CONFIGMAPS, None, since=100)
    assert store.state.get(CONFIGMAPS, "default", "a").object()["data"] == {"n": "199"}  # type: ignore[union-attr]
    await store.close()


async def test_a_deleted_object_leaves_no_row_after_compaction(tmp_path: Path) -> None:
    store = Store.open(tmp_path, Retention(changes=1, size=1 << 30, seconds=1e9))
    await put(store, "a")
    await store.transact(lambda txn: txn.delete(store.state.get(CONFIGMAPS, "default", "a")))  # type: ignore[arg-type]
    for _ in range(3):
        await put(store, "b")
    await store.close()
    assert stored(tmp_path, "SELECT DISTINCT name FROM log") == [("b",)]


async def test_objects_of_a_kind_that_is_not_served_for_a_while_are_kept(tmp_path: Path) -> None:
    """A plane that starts without a custom kind loads none of its objects, compacts the others, and loses none."""
    widgets = Resource("example.com", "v1", "widgets", "Widget", custom=True)
    few = Retention(changes=1, size=1 << 30, seconds=1e9)
    store = Store.open(tmp_path, few, served=(CONFIGMAPS, widgets))
    for turn in range(3):
        obj = {"metadata": {"name": "w", "namespace": "default", "uid": "uid-w"}, "spec": {"turn": turn}}
        await store.transact(lambda txn, obj=obj: txn.put(widgets, obj))  # type: ignore[misc]
    await store.close()
    store = Store.open(tmp_path, few)
    assert list(store.state.list(widgets)) == []
    assert store.state.by_uid("uid-w") is None
    for number in range(20):
        await put(store, "a", n=str(number))
    await store.close()
    store = Store.open(tmp_path, few, served=(CONFIGMAPS, widgets))
    (kept,) = store.state.list(widgets)
    assert (kept.object()["spec"], kept.resource) == ({"turn": 2}, widgets)
    await store.close()


async def test_a_second_instance_is_told_who_has_the_directory(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}") as caught:
        Store.open(tmp_path)
    assert caught.value.pid == os.getpid()
    await store.close()
    await Store.open(tmp_path).close()


@pytest.mark.parametrize("damage", ["header", "page", "foreign", "value"])
async def test_a_corrupt_database_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    store = Store.open(tmp_path)
    for number in range(300):
        await put(store, f"c{number}", text="x" * 500)
    await store.close()
    path = tmp_path / "isoplane.db"
    if damage == "header":
        path.write_bytes(b"not a database at all" + path.read_bytes()[21:])
    elif damage == "page":
        raw = bytearray(path.read_bytes())
        for page in range(2, len(raw) // 4096):
            raw[page * 4096 : page * 4096 + 64] = b"\xff" * 64
        path.write_bytes(raw)
    else:
        db = sqlite3.connect(path)
        if damage == "foreign":
            db.executescript("DROP TABLE log")
        else:
            db.execute("UPDATE log SET data = '{not json' WHERE revision = 7")
        db.commit()
        db.close()
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"isoplane\.db is damaged"):
        Store.open(tmp_path)
    assert path.read_bytes() == before
    # The directory is not left locked either.
    with pytest.raises(StoreCorrupt):
        Store.open(tmp_path)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnwritable, match="choose another with --data"):
        Store.open(tmp_path / "file" / "data")


@pytest.mark.root
async def test_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    require("mount", "umount", root=True)
    await Store.open(tmp_path).close()
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
        with pytest.raises(StoreUnwritable, match="Read-only file system"):
            Store.open(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.root
async def test_a_full_disk_refuses_writes_keeps_reads_and_recovers(tmp_path: Path) -> None:
    require("mount", "umount", root=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path], check=True)
    try:
        store = Store.open(tmp_path)
        written: list[str] = []
        with pytest.raises(InsufficientStorage, match="full"):
            for number in range(1000):
                await put(store, f"c{number}", text="x" * 20_000)
                written.append(f"c{number}")
        assert len(written) > 10
        assert sorted(r.name for r in store.list(CONFIGMAPS, None)) == sorted(written)
        with pytest.raises(InsufficientStorage):
            await put(store, "more", text="x" * 50_000)
        subprocess.run(["mount", "-o", "remount,size=30m", tmp_path], check=True)
        await put(store, "after", text="x" * 20_000)
        await store.close()
        store = Store.open(tmp_path)
        assert sorted(r.name for r in store.list(CONFIGMAPS, None)) == sorted([*written, "after"])
        await store.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


_CHILD = """
import asyncio, sys
from pathlib import Path
from isoplane.objects.kinds import CONFIGMAPS
from isoplane.store import Store
from isoplane.store.history import Retention
from isoplane.store.layout import FORMAT

async def worker(store, number):
    count = 0
    while True:
        name = f"w{number}-{count % 7}"
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"n": str(count), "pad": "x" * 2000},
               "metadata": {"name": name, "namespace": "default", "uid": name}}
        def write(txn):
            txn.put_row("last", f"w{number}", str(count).encode())
            return txn.put(CONFIGMAPS, obj)
        record = await store.transact(write)
        sys.stdout.write(f"{number} {name} {count} {record.revision}\\n")
        sys.stdout.flush()
        count += 1

async def main():
    store = Store.open(Path(sys.argv[1]), Retention(changes=50, size=1 << 30, seconds=1e9))
    sys.stdout.write("open\\n"); sys.stdout.flush()
    await asyncio.gather(*(worker(store, n) for n in range(8)))

asyncio.run(main())
"""


async def test_acknowledged_writes_survive_kill_at_any_point(tmp_path: Path) -> None:
    """Twelve kills at random points on one directory: what was acknowledged is there, revisions never go back."""
    import random
    import time

    newest: dict[str, tuple[int, int]] = {}
    last_revision = 0
    for attempt in range(12):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        time.sleep(random.uniform(0.01, 0.25))
        child.kill()
        acknowledged, _ = child.communicate()
        for line in acknowledged.splitlines():
            if line.count(" ") == 3:
                _, name, count, revision = line.split()
                newest[name] = (int(count), int(revision))
                last_revision = max(last_revision, int(revision))
        store = Store.open(tmp_path)
        assert store.revision >= last_revision, attempt
        for name, (count, revision) in newest.items():
            found = store.state.get(CONFIGMAPS, "default", name)
            assert found is not None, (attempt, name)
            assert found.revision >= revision
            if found.revision == revision:
                assert found.object()["data"]["n"] == str(count)
        for number in range(8):
            # The side row and the object of one transaction are both there or both not.
            row = store.state.row("last", f"w{number}")
            if row is not None:
                obj = store.state.get(CONFIGMAPS, "default", f"w{number}-{int(row) % 7}")
                assert obj is not None
                assert obj.object()["data"]["n"] == row.decode()
        newest = {}
        last_revision = store.revision
        await store.close()


async def test_side_rows_keep_their_value_wherever_they_lie(tmp_path: Path) -> None:
    """One row is written with every new one and moves along; others are written again late, or deleted; each time read back."""
    wanted: dict[str, bytes] = {}
    for start in (0, 40, 80):
        store = Store.open(tmp_path)
        for number in range(start, start + 40):
            new = {f"r{number}": b"new", "hot": b"%d" % number}
            if number % 7 == 0:
                new[f"r{number // 2}"] = b"again"
            gone = f"r{number - 3}" if number % 5 == 0 else ""

            def change(txn: Transaction, new: dict[str, bytes] = new, gone: str = gone) -> None:
                for key, value in new.items():
                    txn.put_row("ledger", key, value)
                txn.delete_row("ledger", gone)

            await store.transact(change)
            wanted |= new
            wanted.pop(gone, None)
        await store.close()
        assert dict(stored(tmp_path, "SELECT key, data FROM side")) == wanted
    places = [place for (place,) in stored(tmp_path, "SELECT place FROM side WHERE key = 'hot'")]
    assert len(places) == 1
    assert places[0] > 100, "it lies at the end, where the next row will"


_FORMAT_1 = """
CREATE TABLE old (tbl TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (tbl, key)) WITHOUT ROWID;
INSERT INTO old SELECT tbl, key, data FROM side;
DROP TABLE side;
ALTER TABLE old RENAME TO side;
UPDATE fact SET value = '1' WHERE name = 'format';
"""


async def test_side_rows_of_format_1_are_carried_over(tmp_path: Path) -> None:
    async def write(store: Store, **rows: str) -> None:
        def change(txn: Transaction) -> None:
            for key, value in rows.items():
                txn.put_row("ledger", key, value.encode()) if value else txn.delete_row("ledger", key)

        await store.transact(change)

    store = Store.open(tmp_path)
    await write(store, z="1", a="2", m="3")
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "isoplane.db")) as db:
        db.executescript(_FORMAT_1)
    for _ in range(2):
        store = Store.open(tmp_path)
        assert {key: bytes(row) for key, row in store.state.rows("ledger").items()} == {"z": b"1", "a": b"2", "m": b"3"}
        await store.close()
    store = Store.open(tmp_path)
    await write(store, z="", a="4", new="5")
    await write(store, new="6", more="7")
    await store.close()
    assert stored(tmp_path, "SELECT value FROM fact WHERE name = 'format'") == [(str(FORMAT),)]
    rows = stored(tmp_path, "SELECT key, data FROM side ORDER BY key")
    assert rows == [("a", b"4"), ("m", b"3"), ("more", b"7"), ("new", b"6")]


@pytest.mark.parametrize("used_before", [False, True])
async def test_a_directory_with_foreign_files_is_refused_untouched(used_before: bool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    if used_before:
        await Store.open(data).close()
    data.mkdir(exist_ok=True)
    data.chmod(0o755)
    (data / "diary.txt").write_text("somebody's own")
    before = sorted(path.name for path in data.iterdir())
    with pytest.raises(StoreUnwritable, match=r"not isoplane's \(diary\.txt\).*--data"):
        Store.open(data)
    assert sorted(path.name for path in data.iterdir()) == before
    assert data.stat().st_mode & 0o777 == 0o755
    if used_before:
        data.chmod(0o700)  # its owner says that this is meant
        await Store.open(data).close()


async def test_a_data_directory_is_closed_to_others(tmp_path: Path) -> None:
    for made in (False, True):
        data = tmp_path / str(made)
        if made:
            data.mkdir(mode=0o755)
        await Store.open(data).close()
        assert data.stat().st_mode & 0o777 == 0o700
        data.chmod(0o755)
        await Store.open(data).close()
        assert data.stat().st_mode & 0o777 == 0o700


def test_what_image_commands_leave_is_no_foreign_file(tmp_path: Path) -> None:
    """`isoplane image build-demo` comes before the first `isoplane up`: it makes the image store and keeps the kernel."""
    data = tmp_path / "data"
    for name in ("images", "cache"):
        (data / name).mkdir(parents=True)
    DirectoryLock(data).release()
