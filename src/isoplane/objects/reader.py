"""CONTRACT: how anyone reads stored objects, wherever they are kept: a store's transaction, an informer's cache, manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object


class Stored(Protocol):
    """An object that is there. Shared and immutable; ``object()`` gives a copy to change."""

    @property
    def resource(self) -> Resource: ...

    @property
    def namespace(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def uid(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...

    @property
    def deleting(self) -> bool: ...

    def object(self) -> Object: ...


class ObjectReader(Protocol):
    """A consistent view of objects."""

    def get(self, resource: Resource, namespace: str, name: str) -> Stored | None:
        """The object, or None. ``namespace`` is '' for cluster-scoped resources."""
        ...

    def list(self, resource: Resource, namespace: str | None = None) -> Iterable[Stored]:
        """All objects of a resource, in one namespace or (None) everywhere, in no promised order."""
        ...
