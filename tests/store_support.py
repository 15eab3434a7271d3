"""What the store's tests share: small objects, a committer that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isoplane.objects.errors import ApiError
from isoplane.objects.kinds import CONFIGMAPS, Resource
from isoplane.store import Record, Store, Transaction
from isoplane.store.database import Write
from isoplane.store.history import History, Retention
from isoplane.store.state import State

KEEP_ALL = Retention(changes=1_000_000, size=1 << 40, seconds=1e9)


def config(name: str, namespace: str = "default", **data: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


class FlakyCommitter:
    """Commits to nowhere; raises what is in ``failures`` first. ``gate`` set to an Event makes it wait."""

    def __init__(self) -> None:
        self.failures: list[ApiError] = []
        self.writes: list[Write] = []
        self.gate: Any = None
        self.short = False

    def commit(self, write: Write) -> None:
        if self.gate is not None:
            self.gate.wait(5)
        if self.failures:
            raise self.failures.pop(0)
        self.writes.append(write)

    def maintain(self) -> None: ...

    def copy(self, target: Path, between: Callable[[], None]) -> None: ...


def in_memory(committer: FlakyCommitter | None = None, retention: Retention = KEEP_ALL) -> Store:
    return Store(State(), History(0, retention), committer or FlakyCommitter())


async def put(store: Store, obj: dict[str, Any], resource: Resource = CONFIGMAPS) -> Record:
    return await store.transact(lambda txn: txn.put(resource, obj))


async def remove(store: Store, name: str, namespace: str = "default", resource: Resource = CONFIGMAPS) -> None:
    def evaluate(txn: Transaction) -> None:
        record = txn.get(resource, namespace, name)
        assert record is not None
        txn.delete(record)

    await store.transact(evaluate)


async def settle() -> None:
    """Let the writer thread report."""
    await asyncio.sleep(0.02)
