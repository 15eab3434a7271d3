"""CONTRACT: how anyone reads the store, whether inside a transaction or at the last committed revision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from isoplane.objects.kinds import Resource
from isoplane.objects.reader import ObjectReader
from isoplane.store.record import Record

T = TypeVar("T")


class RowReader(Protocol):
    """The rows of side tables: what is kept beside objects and changes with them."""

    def row(self, table: str, key: str) -> bytes | None: ...

    def rows(self, table: str) -> Mapping[str, bytes]:
        """Every row of a side table, by key."""
        ...

    def decoded(self, table: str, key: str, decode: Callable[[bytes], T]) -> T | None:
        """A row through ``decode``, which runs once per written row; treat the value as immutable."""
        ...


class ReadView(ObjectReader, RowReader, Protocol):
    """A consistent view of both. Returned records are shared and immutable; ``record.object()`` gives a copy to change."""

    revision: int
    """The newest revision it shows."""

    def get(self, resource: Resource, namespace: str, name: str) -> Record | None:
        """The object, or None. ``namespace`` is '' for cluster-scoped resources."""
        ...

    def list(self, resource: Resource, namespace: str | None = None) -> Iterable[Record]:
        """All objects of a resource, in one namespace or (None) everywhere, in no promised order."""
        ...

    def by_uid(self, uid: str) -> Record | None: ...

    def owned_by(self, uid: str) -> Iterable[Record]:
        """Every object that names ``uid`` in its ownerReferences."""
        ...

    def by_field(self, resource: Resource, path: str, value: str) -> Iterable[Record]:
        """Objects by an indexed field (``Selectable.indexed``). Raises LookupError for a path without an index."""
        ...
