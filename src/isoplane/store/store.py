"""The store: evaluates write transactions on the event loop, commits them in groups, publishes them in order.

A transaction is evaluated at once against committed and pending state, so nothing ever waits inside one; its caller
waits for the disk.  When a commit fails, its batch and everything evaluated on top of it fails together and the pending
state is dropped: nobody has seen any of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from isoplane.objects.errors import ApiError, Expired, InsufficientStorage, Unavailable
from isoplane.objects.kinds import BUILT_IN, Resource
from isoplane.store.backup import Backup, finish, partial_of
from isoplane.store.database import Database, LogRow, Write
from isoplane.store.errors import BackupFailed
from isoplane.store.fields import resource_key
from isoplane.store.filters import ALL, Filter
from isoplane.store.history import History, Retention
from isoplane.store.hub import Hub, Subscription, seen_through
from isoplane.store.loading import load
from isoplane.store.lock import DirectoryLock
from isoplane.store.mirror import Mirror
from isoplane.store.record import ObjectKey, Record
from isoplane.store.reserve import goes_on
from isoplane.store.sealing import RESOURCES, Keys
from isoplane.store.state import Row, State
from isoplane.store.stats import Stats
from isoplane.store.transaction import Change, Pending, RowKey, Transaction
from isoplane.store.writer import Committer, Writer

T = TypeVar("T")
_log = logging.getLogger(__name__)

_MAINTENANCE_SECONDS = 5.0
_DEAD_PER_BATCH = 512
"""Compaction rides on ordinary commits in small helpings."""


@dataclass(slots=True)
class _Batch:
    """Transactions that become durable together, in evaluation order."""

    changes: list[Change] = field(default_factory=list)
    rows: dict[RowKey, Row | None] = field(default_factory=dict)
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    waiting: list[tuple[asyncio.Future[Any], Any, ApiError | None]] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    revision: int = 0

    @property
    def empty(self) -> bool:
        return not (self.changes or self.rows)


class Store:
    """Open it with :meth:`open` on a running loop; every method belongs to that loop's thread."""

    def __init__(
        self,
        state: State,
        history: History,
        committer: Committer,
        close: Callable[[], None] = lambda: None,
        keys: Keys | None = None,
    ) -> None:
        """``keys`` seal what is written; None for a committer that writes nothing down."""
        self.state = state
        """The committed read model (a ReadView)."""
        self.stats = Stats()
        """How the commits went, for metrics."""
        self._history = history
        self._hub = Hub()
        self._loop = asyncio.get_running_loop()
        self._committer = committer
        self._writer = Writer(committer, self._loop)
        self._close = close
        self._keys = keys
        self._pending = Pending()
        self._evaluated = state.revision
        self._current = _Batch()
        self._flying: _Batch | None = None
        self._scheduled = False
        self._closed = False
        self._copying = False
        self._maintenance = self._loop.call_later(_MAINTENANCE_SECONDS, self._maintain)

    @classmethod
    def open(
        cls,
        directory: Path,
        retention: Retention | None = None,
        key_file: Path | None = None,
        reserve: int = 0,
        served: Iterable[Resource] = BUILT_IN,
    ) -> Store:
        """Lock, check and load a data directory; made when absent. ``key_file`` None: the one in the directory.

        ``reserve``: bytes of the disk kept so that deletions work when it is full.  ``served``: the kinds to load.

        Raises StoreLocked, StoreUnwritable, KeyRefused or StoreCorrupt, each with what to do; then nothing was changed.
        """
        lock = DirectoryLock(directory)
        try:
            database = Database(directory, key_file, reserve)
            try:
                state, history = load(database, retention or Retention(), served)
            except BaseException:
                database.close()
                raise
        except BaseException:
            lock.release()
            raise

        def close() -> None:
            database.close()
            lock.release()

        return cls(state, history, database, close, database.keys)

    @property
    def revision(self) -> int:
        """The newest revision that readers see."""
        return self.state.revision

    @property
    def compacted(self) -> int:
        return self._history.compacted

    @property
    def watches(self) -> int:
        return self._hub.watches

    @property
    def queued(self) -> int:
        """Changes that are evaluated and not durable yet."""
        return len(self._current.changes) + (len(self._flying.changes) if self._flying is not None else 0)

    # writing

    def transact(self, fn: Callable[[Transaction], T], *, dry_run: bool = False) -> asyncio.Future[T]:
        """Evaluate ``fn`` now; the awaitable yields its result once everything it saw and wrote is durable.

        What ``fn`` raises is raised to the caller and none of its writes happen; likewise with ``dry_run``, where its
        result is returned.  Raises InsufficientStorage or Unavailable (nothing was written) when the disk refuses.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(Unavailable("the store is closed"))
            return future
        txn = Transaction(self.state, self._pending, self._evaluated)
        result: T | None = None
        error: ApiError | None = None
        try:
            result = fn(txn)
        except ApiError as problem:
            error = problem
        except Exception as problem:
            future.set_exception(problem)
            return future
        if error is None and not dry_run and (txn.changes or txn.written_rows):
            if self._committer.short and not goes_on(txn.changes):
                error = InsufficientStorage(
                    "the disk of the plane is full; nothing was written. Delete something or free some space and try again"
                )
            else:
                self._accept(txn)
        if self._flying is None and self._current.empty:
            # Nothing uncommitted was seen, so there is nothing to wait for.
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]
            return future
        self._current.waiting.append((future, result, error))
        self._schedule()
        return future

    def _accept(self, txn: Transaction) -> None:
        batch = self._current
        batch.changes.extend(txn.changes)
        batch.rows.update(txn.written_rows)
        batch.callbacks.extend(txn.callbacks)
        batch.revision = self._evaluated = txn.revision
        txn.merge_into(self._pending)

    def _schedule(self) -> None:
        # One turn of the loop later, so that requests which arrived together share a commit.
        if not self._scheduled and self._flying is None:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._flying is not None:
            return
        batch, self._current = self._current, _Batch()
        self._flying = batch
        batch.dead = self._history.dead(_DEAD_PER_BATCH)
        if batch.empty and not batch.dead:
            self._settle(batch)  # Only readers that waited for the batch before, which is durable.
            return
        self.stats.began = time.monotonic()
        self._writer.submit(_write(batch, self.state, self._history.compacted, self._keys), self._done)

    def _done(self, error: ApiError | None) -> None:
        batch = self._flying
        assert batch is not None
        if error is not None:
            self.stats.failures += 1
            self._fail(batch, error)
            return
        self.stats.committed(len(batch.changes), time.monotonic())
        self._apply(batch)
        self._settle(batch)

    def _apply(self, batch: _Batch) -> None:
        state, pending = self.state, self._pending
        for change in batch.changes:
            if change.type == "DELETED":
                if change.previous is not None:
                    state.remove(change.previous)
            else:
                state.put(change.record, change.previous)
            self._history.append(change)
            self._forget_pending(pending, change)
        for (table, key), row in batch.rows.items():
            state.put_row(table, key, row)
            if pending.rows.get((table, key), _ABSENT) is row:
                del pending.rows[(table, key)]
        if batch.revision:
            state.revision = batch.revision
        self._history.stamp(time.monotonic())
        try:
            self._hub.publish(batch.changes)
        except Exception:
            # The write stands; watchers that may have missed it must list again rather than go on without knowing.
            _log.exception("publishing a commit failed; all watches end")
            self._hub.end_all(Expired("the watch was interrupted; list again"))

    @staticmethod
    def _forget_pending(pending: Pending, change: Change) -> None:
        """Drop the overlay's entry when it is the one just committed; a newer one stays."""
        key: ObjectKey = change.record.key
        if key in pending.objects:
            newest = pending.objects[key]
            if newest is None if change.type == "DELETED" else newest is change.record:
                del pending.objects[key]

    def _settle(self, batch: _Batch) -> None:
        self._flying = None
        for callback in batch.callbacks:
            try:
                callback()
            except Exception:
                _log.exception("a commit callback failed; the write itself is durable")
        for future, result, error in batch.waiting:
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
        if self._current.waiting or not self._current.empty:
            self._schedule()

    def _fail(self, batch: _Batch, error: ApiError) -> None:
        """Drop the failed batch and what was evaluated on top of it; readers keep the last committed state."""
        _log.error("store: %s", error.message)
        self._history.give_back(batch.dead)
        self._flying = None
        waiting = batch.waiting + self._current.waiting
        self._current = _Batch()
        self._pending.objects.clear()
        self._pending.rows.clear()
        self._evaluated = self.state.revision
        for future, _, _ in waiting:
            if not future.done():
                future.set_exception(type(error)(error.message))

    # reading

    def list(
        self,
        resource: Resource,
        namespace: str | None,
        filter_: Filter = ALL,
        *,
        after: tuple[str, str] | None = None,
        revision: int | None = None,
    ) -> Sequence[Record]:
        """Matching records in (namespace, name) order after a key, as of now or of an earlier ``revision``.

        Raises Expired when that revision is compacted.
        """
        records = self.state.ordered(resource, namespace, after)
        if revision is not None and revision < self.state.revision:
            records = self._as_of(records, resource, namespace, after, revision)
        if filter_.everything:
            return records
        matches = filter_.matches
        return [record for record in records if matches(record)]

    def _as_of(
        self,
        records: Sequence[Record],
        resource: Resource,
        namespace: str | None,
        after: tuple[str, str] | None,
        revision: int,
    ) -> Sequence[Record]:
        past = self._history.undo(resource, namespace, revision)
        if not past:
            return records
        kept = {(r.namespace, r.name): r for r in records if (r.namespace, r.name) not in past}
        kept.update((key, r) for key, r in past.items() if r is not None and (after is None or key > after))
        return [kept[key] for key in sorted(kept)]

    def watch(
        self,
        resource: Resource,
        namespace: str | None,
        filter_: Filter = ALL,
        *,
        since: int | None = None,
        pace: float = 0.0,
        mirror: Mirror | None = None,
    ) -> Subscription:
        """Changes after revision ``since`` (None: after now), and those of what ``mirror`` shows among the resource's objects.

        Raises Expired when they are partly compacted.
        """
        backlog: list[Change] = []
        if since is not None and since < self.state.revision:
            key = resource_key(resource)
            for change in self._history.since(since):
                own = resource_key(change.record.resource)
                if namespace is not None and change.record.namespace != namespace:
                    continue
                meant = change if own == key else mirror.change(change) if mirror and mirror.shows(own) else None
                seen = None if meant is None else seen_through(meant, filter_)
                if seen is not None:
                    backlog.append(seen)
        return self._hub.subscribe(resource, namespace, filter_, backlog, pace, mirror)

    # keeping house

    async def back_up(self, target: Path) -> Backup:
        """Write a backup to the new file ``target`` while writes go on; it is a state from during this call.

        Raises BackupFailed: it exists, cannot be written, or another backup is being made.
        """
        if self._closed or self._copying:
            why = "the store is closed" if self._closed else "another one is being made; try again when it is done"
            raise BackupFailed(f"the backup {target} was not made: {why}")
        self._copying = True
        copied: asyncio.Future[ApiError | None] = self._loop.create_future()
        try:
            partial = partial_of(target)
            self._writer.copy(partial, copied.set_result)
            # The copy ends in any case: a caller that goes away must not let a second one begin beside it.
            if (error := await asyncio.shield(copied)) is not None:
                raise BackupFailed(error.message)
            return await asyncio.shield(self._loop.run_in_executor(None, finish, partial, target))
        except OSError as error:
            raise BackupFailed(f"the backup {target} was not made: {error}") from error
        finally:
            if copied.done():
                self._copying = False
            else:
                copied.add_done_callback(self._copied)

    def _copied(self, _: object) -> None:
        self._copying = False

    def _maintain(self) -> None:
        self._maintenance = self._loop.call_later(_MAINTENANCE_SECONDS, self._maintain)
        self._history.stamp(time.monotonic())
        if self._flying is not None:
            return
        if self._history.has_dead():
            self._schedule()
        else:
            self._writer.maintain(lambda error: None)

    def end_watches(self, resource: Resource) -> None:
        """The resource is served no longer; who watches it finds that out by listing again."""
        self._hub.end(resource_key(resource), Expired(f"{resource.qualified} are not served any more"))

    async def close(self) -> None:
        """Commit what is evaluated, end all watches, release the directory. Safe to call twice."""
        if self._closed:
            return
        while self._flying is not None or not self._current.empty or self._current.waiting:
            barrier = self.transact(lambda txn: None)
            await asyncio.wait([barrier])
        self._closed = True
        self._maintenance.cancel()
        self._hub.end_all(Unavailable("the server is shutting down"))
        await self._loop.run_in_executor(None, self._writer.close)
        self._close()


_ABSENT = object()


def _write(batch: _Batch, state: State, compacted: int, keys: Keys | None) -> Write:
    """The SQLite form of a batch. No other is in flight, so ``state`` knows every row that the file has."""
    rows: list[LogRow] = []
    for change in batch.changes:
        record = change.record
        data = None if change.type == "DELETED" else record.data
        resource = record.resource.qualified
        if data is not None and keys is not None and resource in RESOURCES:
            data = keys.seal(resource, record.namespace, record.name, record.uid, data)
        rows.append((change.revision, resource, record.namespace, record.name, data))
    write = Write(log=rows, dead=batch.dead)
    for (table, key), row in batch.rows.items():
        if row is not None:
            before = state.placed(table, key, row)
            if before and before != row.place:
                write.moved_rows.append((row.place, row.data, before))
            else:
                write.put_rows.append((row.place, table, key, row.data))
        elif (old := state.side.get(table, {}).get(key)) is not None:
            write.deleted_rows.append((old.place,))
    if batch.revision:
        write.facts["revision"] = str(batch.revision)
    if batch.dead:
        write.facts["compacted"] = str(compacted)
    return write
