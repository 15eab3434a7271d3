"""A data directory whose disk somebody filled: deletions go on, creates are refused, and room brings everything back."""

# ruff: noqa: ASYNC221  (mounts are meant to block)
from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import InsufficientStorage
from isoplane.objects.kinds import CONFIGMAPS
from isoplane.store import Store, Transaction
from isoplane.store.history import Retention
from support import require

SIZE = 32 << 20


def config(name: str, text: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"text": text}}


async def put(store: Store, name: str, size: int = 20_000) -> None:
    await store.transact(lambda txn: txn.put(CONFIGMAPS, config(name, "x" * size)))


async def remove(store: Store, name: str) -> None:
    def evaluate(txn: Transaction) -> None:
        record = txn.get(CONFIGMAPS, "default", name)
        assert record is not None
        txn.delete(record)

    await store.transact(evaluate)


def fill(directory: Path) -> None:
    """As a workload does that writes until nothing is left."""
    with open(directory / "filling", "ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


@pytest.mark.root
async def test_deletions_work_on_a_full_disk(tmp_path: Path) -> None:
    require("mount", "umount", root=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", tmp_path], check=True)
    reserve = tmp_path / "reserve"
    retention = Retention(changes=50, size=1 << 20, seconds=1e9)
    try:
        store = Store.open(tmp_path, retention, reserve=SIZE)
        whole = reserve.stat().st_size
        assert whole == (80 << 20) // 16
        for number in range(200):
            await put(store, f"c{number}")
        fill(tmp_path)
        refused = 0
        for number in range(400):
            try:
                await put(store, f"new{number}")
            except InsufficientStorage:
                refused += 1
            fill(tmp_path)
        assert refused > 300
        assert 0 < reserve.stat().st_size < whole
        for number in range(150):
            await remove(store, f"c{number}")
        await store.close()

        # A plane that starts on the full disk goes on where this one ended.
        store = Store.open(tmp_path, retention, reserve=SIZE)
        with pytest.raises(InsufficientStorage):
            await put(store, "newer")
        for number in range(150, 200):
            await remove(store, f"c{number}")
        assert not [r for r in store.list(CONFIGMAPS, None) if r.name.startswith("c")]

        os.unlink(tmp_path / "filling")
        store._maintain()
        for _ in range(500):  # compaction has its turns before
            if reserve.stat().st_size == whole:
                break
            await asyncio.sleep(0.01)
            store._maintain()
        assert reserve.stat().st_size == whole
        await store.close()
        store = Store.open(tmp_path, retention, reserve=SIZE)
        await put(store, "after")
        await store.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
