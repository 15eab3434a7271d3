"""CONTRACT: one write transaction: reads see everything evaluated before it, writes are all made or none.

It runs synchronously on the event loop, so it never waits and never conflicts; the store commits it durably later and
only then shows it to readers and watchers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.store.fields import position
from isoplane.store.record import ObjectKey, Record, encode
from isoplane.store.state import Row, State, decode_row

T = TypeVar("T")
RowKey = tuple[str, str]


@dataclass(slots=True, eq=False)
class Change:
    """One committed step of one object: ADDED, MODIFIED or DELETED. A DELETED record is the last state, stamped with
    the revision of its deletion. ``line`` caches the encoded watch event that all plain watchers share."""

    type: str
    revision: int
    record: Record
    previous: Record | None
    line: bytes | None = None


@dataclass(slots=True)
class Pending:
    """What is evaluated and not yet committed, laid over the committed state. None marks a deletion."""

    objects: dict[ObjectKey, Record | None] = field(default_factory=dict)
    rows: dict[RowKey, Row | None] = field(default_factory=dict)


class Transaction:
    """Reads committed, pending and own writes; implements ReadView. Use it only inside the function it is given to."""

    __slots__ = ("_own", "_pending", "_rows", "_state", "callbacks", "changes", "revision")

    def __init__(self, state: State, pending: Pending, revision: int) -> None:
        self._state = state
        self._pending = pending
        self._own: dict[ObjectKey, Record | None] = {}
        self._rows: dict[RowKey, Row | None] = {}
        self.revision = revision
        """The last revision handed out; every put and delete takes the next one."""
        self.changes: list[Change] = []
        self.callbacks: list[Callable[[], None]] = []

    # objects

    def get(self, resource: Resource, namespace: str, name: str) -> Record | None:
        key: ObjectKey = ((resource.group, resource.plural), namespace, name)
        if key in self._own:
            return self._own[key]
        if key in self._pending.objects:
            return self._pending.objects[key]
        return self._state.get(resource, namespace, name)

    def list(self, resource: Resource, namespace: str | None = None) -> Iterable[Record]:
        kind = (resource.group, resource.plural)

        def wanted(key: ObjectKey) -> bool:
            return key[0] == kind and (namespace is None or key[1] == namespace)

        return self._merged(self._state.list(resource, namespace), wanted, lambda record: True)

    def by_uid(self, uid: str) -> Record | None:
        for layer in (self._own, self._pending.objects):
            for record in layer.values():
                if record is not None and record.uid == uid:
                    return self.get(record.resource, record.namespace, record.name)
        found = self._state.by_uid(uid)
        if found is None:
            return None
        current = self.get(found.resource, found.namespace, found.name)
        return current if current is not None and current.uid == uid else None

    def owned_by(self, uid: str) -> Iterable[Record]:
        return self._merged(self._state.owned_by(uid), lambda key: True, lambda record: uid in record.owners)

    def by_field(self, resource: Resource, path: str, value: str) -> Iterable[Record]:
        kind = (resource.group, resource.plural)
        base = self._state.by_field(resource, path, value)
        place = position(resource, path)
        assert place is not None  # it has an index, or the state had raised
        return self._merged(base, lambda key: key[0] == kind, lambda record: record.fields[place] == value)

    def _merged(
        self, base: Iterable[Record], wanted: Callable[[ObjectKey], bool], fits: Callable[[Record], bool]
    ) -> Iterable[Record]:
        changed = {key: record for key, record in self._pending.objects.items() if wanted(key)}
        changed.update((key, record) for key, record in self._own.items() if wanted(key))
        if not changed:
            return base
        kept = [record for record in base if record.key not in changed]
        kept.extend(record for record in changed.values() if record is not None and fits(record))
        return kept

    def put(self, resource: Resource, obj: Object) -> Record:
        """Write ``obj`` (identity in its metadata) at the next revision, which is stamped into it.

        Raises BadRequest when it has no JSON form. Checks no precondition: the server's verbs do.
        """
        record = encode(resource, obj, self.revision + 1)
        previous = self.get(resource, record.namespace, record.name)
        self.revision += 1
        self._own[record.key] = record
        self.changes.append(Change("ADDED" if previous is None else "MODIFIED", self.revision, record, previous))
        return record

    def delete(self, record: Record) -> Record:
        """Remove an object for good; returns its last state stamped with the revision of the deletion.

        Raises LookupError when it is not there.
        """
        previous = self.get(record.resource, record.namespace, record.name)
        if previous is None:
            raise LookupError(f"{record.resource.qualified} {record.namespace}/{record.name} is not stored")
        last = encode(record.resource, previous.object(), self.revision + 1)
        self.revision += 1
        self._own[previous.key] = None
        self.changes.append(Change("DELETED", self.revision, last, previous))
        return last

    # side tables

    def _row(self, table: str, key: str) -> Row | None:
        where = (table, key)
        if where in self._rows:
            return self._rows[where]
        if where in self._pending.rows:
            return self._pending.rows[where]
        return self._state.side.get(table, {}).get(key)

    def row(self, table: str, key: str) -> bytes | None:
        row = self._row(table, key)
        return None if row is None else row.data

    def decoded(self, table: str, key: str, decode: Callable[[bytes], T]) -> T | None:
        return decode_row(self._row(table, key), decode)

    def rows(self, table: str) -> Mapping[str, bytes]:
        merged = dict(self._state.side.get(table, {}))
        for layer in (self._pending.rows, self._rows):
            for (own, key), row in layer.items():
                if own != table:
                    continue
                if row is None:
                    merged.pop(key, None)
                else:
                    merged[key] = row
        return {key: row.data for key, row in merged.items()}

    def put_row(self, table: str, key: str, data: bytes, value: Any = None) -> None:
        """Write a row of a side table together with the objects of this transaction.

        ``value``: what ``decoded`` would make of it, where that is at hand and nobody changes it any more.
        """
        self._rows[(table, key)] = Row(data, value)

    def delete_row(self, table: str, key: str) -> None:
        """Delete a row; nothing happens when it is not there."""
        self._rows[(table, key)] = None

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` on the loop once this transaction is durable and visible; never when it fails."""
        self.callbacks.append(callback)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what is written inside when it raises, and pass the error on: the rest of the transaction stands."""
        own, rows, revision = dict(self._own), dict(self._rows), self.revision
        changes, callbacks = len(self.changes), len(self.callbacks)
        try:
            yield
        except BaseException:
            self._own, self._rows, self.revision = own, rows, revision
            del self.changes[changes:], self.callbacks[callbacks:]
            raise

    # for the store

    def merge_into(self, pending: Pending) -> None:
        pending.objects.update(self._own)
        pending.rows.update(self._rows)

    @property
    def written_rows(self) -> Mapping[RowKey, Row | None]:
        return self._rows
