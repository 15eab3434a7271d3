"""Backups of running and stopped planes, and restores: what was acknowledged is in them, a refusal changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isoplane.client.http import HttpApi
from isoplane.objects.errors import Expired
from isoplane.objects.kinds import CONFIGMAPS
from isoplane.store import Store, Transaction, backup, database
from isoplane.store.errors import BackupFailed, StoreError, StoreNewer, StoreOccupied
from plane_support import PlaneProcess
from store_support import config, put


@pytest.fixture
def planes(tmp_path: Path) -> Iterator[list[PlaneProcess]]:
    made = [PlaneProcess(tmp_path / name, "--runtime", "simulated") for name in ("first", "second")]
    yield made
    for plane in made:
        plane.close()


def isoplane(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isoplane.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def files(directory: Path) -> dict[str, str]:
    """Every regular file below, by what it holds. The lock file names the last holder."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


async def names(api: HttpApi) -> set[str]:
    return {obj["metadata"]["name"] for obj in (await api.list(CONFIGMAPS, "default")).items}


async def test_a_running_plane_is_backed_up_killed_and_restored(planes: list[PlaneProcess], tmp_path: Path) -> None:
    first, second = planes
    await asyncio.to_thread(first.start)
    acknowledged: set[str] = set()
    file = tmp_path / "copy.db"
    async with first.api() as api:

        async def write() -> None:
            for number in range(100_000):
                name = f"c{number}"
                obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "y" * 2000}}
                await api.create(CONFIGMAPS, obj, namespace="default")
                acknowledged.add(name)

        writing = asyncio.ensure_future(write())
        while len(acknowledged) < 200:
            await asyncio.sleep(0.01)
        before = set(acknowledged)
        done = await asyncio.to_thread(isoplane, "backup", "--data", first.data, file)
        assert done.returncode == 0, done.stderr
        assert "holds no certificates" in done.stdout
        assert len(acknowledged) > len(before), "writes went on"
        again = await asyncio.to_thread(isoplane, "backup", "--data", first.data, file)
        assert again.returncode == 1
        assert "exists already" in again.stderr
        control = first.data / "control.sock"
        assert stat.S_IMODE(control.stat().st_mode) == 0o600
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        after = set(acknowledged)
    in_use = isoplane("restore", "--data", first.data, file)
    assert in_use.returncode == 1
    assert f"in use by process {first.pid}" in in_use.stderr
    first.kill()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("copy.db?*")), "one file and nothing beside it"

    stopped = isoplane("backup", "--data", first.data, tmp_path / "later.db")
    assert stopped.returncode == 0, stopped.stderr
    for copy, least in ((file, before), (tmp_path / "later.db", after)):
        restored = isoplane("restore", "--data", second.data, *(["--force"] if second.data.exists() else []), copy)
        assert restored.returncode == 0, restored.stderr
        shutil.copy(first.data / "keys", second.data)
        await asyncio.to_thread(second.start)
        async with second.api() as api:
            assert least <= await names(api)
        second.kill()


async def test_writes_between_two_helpings_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_copy(source: sqlite3.Connection, target: Path, between: Callable[[], None]) -> None:
        def slow() -> None:
            time.sleep(0.002)  # a slow disk, so that writes meet the copy
            between()

        backup.copy(source, target, slow)

    monkeypatch.setattr(backup, "PAGES", 1)
    monkeypatch.setattr(database, "copy", slow_copy)
    store = Store.open(tmp_path / "data")
    for number in range(300):
        await put(store, config(f"c{number}", x="y" * 4000))
    copying = asyncio.ensure_future(store.back_up(tmp_path / "copy"))
    await asyncio.sleep(0)
    with pytest.raises(BackupFailed, match="another one is being made"):
        await store.back_up(tmp_path / "other")
    written = 0

    def put_pair(txn: Transaction) -> None:
        for name in ("pair-a", "pair-b"):
            txn.put(CONFIGMAPS, config(name, x=str(written)))

    while not copying.done():
        await store.transact(put_pair)
        written += 1
    made = await copying
    await store.close()
    backup.restore(tmp_path / "copy", tmp_path / "restored")
    shutil.copy(tmp_path / "data" / "keys", tmp_path / "restored")
    copy = Store.open(tmp_path / "restored")
    pair = [copy.state.get(CONFIGMAPS, "default", f"pair-{n}") for n in "ab"]
    assert pair[0] is not None
    assert pair[1] is not None
    assert pair[0].object()["data"] == pair[1].object()["data"], "half a transaction"
    assert made.objects == len(copy.list(CONFIGMAPS, None)) == 302
    assert written > 3, "the writer waited for the copy"
    await copy.close()


async def test_revisions_after_a_restore_were_never_handed_out(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    await put(store, config("a"))
    await store.back_up(tmp_path / "copy")
    await put(store, config("b"))
    last = store.revision
    await store.close()
    backup.restore(tmp_path / "copy", tmp_path / "data", force=True)
    store = Store.open(tmp_path / "data")
    assert [r.name for r in store.list(CONFIGMAPS, None)] == ["a"]
    with pytest.raises(Expired):
        store.watch(CONFIGMAPS, None, since=last)
    assert (await put(store, config("c"))).revision > last
    await store.close()


async def _two_stores(tmp_path: Path) -> tuple[Path, Path]:
    """A backup with the object ``new``, and a directory with the object ``old``, in its log, cut off."""
    store = Store.open(tmp_path / "source")
    await put(store, config("new"))
    await store.back_up(tmp_path / "copy")
    await store.close()
    (tmp_path / "data").mkdir(mode=0o700)
    shutil.copy(tmp_path / "source" / "keys", tmp_path / "data")
    store = Store.open(tmp_path / "data")
    await put(store, config("old"))
    wal = (tmp_path / "data" / "isoplane.db-wal").read_bytes()
    await store.close()
    (tmp_path / "data" / "isoplane.db-wal").write_bytes(wal)
    return tmp_path / "copy", tmp_path / "data"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("deaths", [(n,) for n in range(9)] + [(1, 0), (1, 1), (2, 1), (3, 0)], ids=str)
async def test_a_restore_killed_anywhere_is_all_or_nothing(
    deaths: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number: how many steps that change names or make them durable are made before the process dies."""
    copy, data = await _two_stores(tmp_path)
    left = 0
    rename, sync = Path.rename, os.fsync

    def step() -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    def dying_rename(self: Path, target: Path) -> Path:
        step()
        return rename(self, target)

    def dying_sync(fd: int) -> None:
        step()
        sync(fd)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dying_rename)
        patched.setattr(os, "fsync", dying_sync)
        with contextlib.suppress(Killed):
            left = deaths[0]
            backup.restore(copy, data, force=True)
        for left in deaths[1:]:  # noqa: B007 (read by the steps)
            with contextlib.suppress(Killed):
                await Store.open(data).close()
    store = Store.open(data)
    found = [record.name for record in store.list(CONFIGMAPS, None)]
    await store.close()
    decided = deaths[0] >= 2
    assert found == (["new"] if decided else ["old"])
    if decided:
        (kept,) = data.glob("replaced-*")
        replaced = Store.open(kept, None, data / "keys")
        assert [record.name for record in replaced.list(CONFIGMAPS, None)] == ["old"], "with its log"
        await replaced.close()


async def test_a_refusal_changes_nothing(tmp_path: Path) -> None:
    copy, data = await _two_stores(tmp_path)
    before = files(data)
    with pytest.raises(StoreOccupied, match=r"isoplane\.db.*--force"):
        backup.restore(copy, data)
    whole = copy.read_bytes()
    for name, content in (("nothing", b""), ("text", b"no database" * 1000), ("cut", whole[: len(whole) // 2])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(StoreError, match=name):
            backup.restore(tmp_path / name, data, force=True)
    with contextlib.closing(sqlite3.connect(copy)) as db, db:
        db.execute("UPDATE fact SET value = '99' WHERE name = 'format'")
    with pytest.raises(StoreNewer, match="format 99"):
        backup.restore(copy, data, force=True)
    with pytest.raises(BackupFailed, match="no directory"):
        backup.back_up_stopped(data, tmp_path / "nowhere" / "copy")
    with pytest.raises(BackupFailed, match="holds no store"):
        backup.back_up_stopped(tmp_path / "nowhere", tmp_path / "copy-2")
    assert files(data) == before
    assert not (tmp_path / "nowhere").exists()
