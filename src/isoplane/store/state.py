"""The committed read model: every object by key, with the indexes that answer questions without a scan."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from isoplane.objects.kinds import Resource
from isoplane.store.fields import ResourceKey, resource_key
from isoplane.store.record import ObjectKey, Record

T = TypeVar("T")


NEAR = 16
"""Rows written within the last so many places move along with the end of the file."""


class Row:
    """A side-table row: its bytes, and the decoded form once somebody asked for it. ``place``: in the file; 0 before."""

    __slots__ = ("data", "place", "value")

    def __init__(self, data: bytes, value: Any = None) -> None:
        self.data = data
        self.value = value
        self.place = 0


def decode_row(row: Row | None, decode: Callable[[bytes], T]) -> T | None:
    if row is None:
        return None
    if row.value is None:
        row.value = decode(row.data)
    value: T = row.value
    return value


class Table:
    """The objects of one resource. ``order`` answers lists in (namespace, name) order, sorted again only after a
    key came or went."""

    __slots__ = ("_indexed", "_order", "fields", "namespaces")

    def __init__(self, resource: Resource) -> None:
        self.namespaces: dict[str, dict[str, Record]] = {}
        self._order: dict[str | None, list[tuple[str, str]]] = {}
        self._indexed = [(field.path, place) for place, field in enumerate(resource.selectable) if field.indexed]
        self.fields: dict[str, dict[str, dict[tuple[str, str], Record]]] = {path: {} for path, _ in self._indexed}

    def put(self, record: Record) -> None:
        names = self.namespaces.setdefault(record.namespace, {})
        old = names.get(record.name)
        names[record.name] = record
        if old is None:
            self._forget_order(record.namespace)
        for path, place in self._indexed:
            index, where = self.fields[path], (record.namespace, record.name)
            if old is not None and old.fields[place] != record.fields[place]:
                self._drop(index, old.fields[place], where)
            index.setdefault(record.fields[place], {})[where] = record

    def remove(self, record: Record) -> None:
        names = self.namespaces[record.namespace]
        del names[record.name]
        if not names:
            del self.namespaces[record.namespace]
        self._forget_order(record.namespace)
        for path, place in self._indexed:
            self._drop(self.fields[path], record.fields[place], (record.namespace, record.name))

    @staticmethod
    def _drop(index: dict[str, dict[tuple[str, str], Record]], value: str, where: tuple[str, str]) -> None:
        entries = index.get(value)
        if entries is not None:
            entries.pop(where, None)
            if not entries:
                del index[value]

    def _forget_order(self, namespace: str) -> None:
        self._order.pop(namespace, None)
        self._order.pop(None, None)

    def order(self, namespace: str | None) -> list[tuple[str, str]]:
        """(namespace, name) of every object in the scope, sorted; shared, so not to be changed."""
        known = self._order.get(namespace)
        if known is None:
            if namespace is None:
                known = sorted((space, name) for space, names in self.namespaces.items() for name in names)
            else:
                known = sorted((namespace, name) for name in self.namespaces.get(namespace, ()))
            self._order[namespace] = known
        return known

    def records(self, namespace: str | None) -> Iterable[Record]:
        if namespace is not None:
            return self.namespaces.get(namespace, {}).values()
        return (record for names in self.namespaces.values() for record in names.values())


class State:
    """All committed objects and rows, at ``revision``. Implements ReadView."""

    def __init__(self) -> None:
        self.revision = 0
        self.tables: dict[ResourceKey, Table] = {}
        self.uids: dict[str, Record] = {}
        self.dependents: dict[str, dict[ObjectKey, Record]] = {}
        self.side: dict[str, dict[str, Row]] = {}
        self.places = 0
        """The last place that a side row was given."""

    def table(self, resource: Resource) -> Table:
        key = resource_key(resource)
        table = self.tables.get(key)
        if table is None:
            table = self.tables[key] = Table(resource)
        return table

    def put(self, record: Record, previous: Record | None) -> None:
        self.table(record.resource).put(record)
        if previous is not None:
            if previous.uid != record.uid:
                self.uids.pop(previous.uid, None)
            if previous.owners != record.owners:
                self._unlink(previous)
        if record.uid:
            self.uids[record.uid] = record
        for owner in record.owners:
            self.dependents.setdefault(owner, {})[record.key] = record

    def remove(self, record: Record) -> None:
        self.table(record.resource).remove(record)
        self.uids.pop(record.uid, None)
        self._unlink(record)

    def _unlink(self, record: Record) -> None:
        for owner in record.owners:
            entries = self.dependents.get(owner)
            if entries is not None:
                entries.pop(record.key, None)
                if not entries:
                    del self.dependents[owner]

    def placed(self, table: str, key: str, row: Row) -> int:
        """Give a row its place in the file; returns the place that the one before it had, 0 for none.

        Behind all others, so that a commit touches one page; only what was last written long ago is written where it lies.
        """
        old = self.side.get(table, {}).get(key)
        if old is not None and self.places - old.place >= NEAR:
            row.place = old.place
            return old.place
        self.places += 1
        row.place = self.places
        return 0 if old is None else old.place

    def put_row(self, table: str, key: str, row: Row | None) -> None:
        rows = self.side.setdefault(table, {})
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row

    # ReadView

    def get(self, resource: Resource, namespace: str, name: str) -> Record | None:
        table = self.tables.get((resource.group, resource.plural))
        if table is None:
            return None
        names = table.namespaces.get(namespace)
        return None if names is None else names.get(name)

    def list(self, resource: Resource, namespace: str | None = None) -> Iterable[Record]:
        return self.table(resource).records(namespace)

    def ordered(
        self, resource: Resource, namespace: str | None, after: tuple[str, str] | None = None
    ) -> Sequence[Record]:
        """Records sorted by (namespace, name), from the first key greater than ``after``."""
        table = self.table(resource)
        keys = table.order(namespace)
        start = 0 if after is None else bisect_right(keys, after)
        spaces = table.namespaces
        return [spaces[space][name] for space, name in (keys[start:] if start else keys)]

    def by_uid(self, uid: str) -> Record | None:
        return self.uids.get(uid)

    def owned_by(self, uid: str) -> Iterable[Record]:
        return self.dependents.get(uid, {}).values()

    def by_field(self, resource: Resource, path: str, value: str) -> Iterable[Record]:
        index = self.table(resource).fields.get(path)
        if index is None:
            raise LookupError(f"{resource.plural} has no index on {path}")
        return index.get(value, {}).values()

    def row(self, table: str, key: str) -> bytes | None:
        row = self.side.get(table, {}).get(key)
        return None if row is None else row.data

    def rows(self, table: str) -> Mapping[str, bytes]:
        return {key: row.data for key, row in self.side.get(table, {}).items()}

    def decoded(self, table: str, key: str, decode: Callable[[bytes], T]) -> T | None:
        return decode_row(self.side.get(table, {}).get(key), decode)
