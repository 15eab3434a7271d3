"""The Api protocol served in the same process: no socket, no TLS, the same verbs, the same admission.

It talks to a :class:`Backend` that the server provides, so that clients never import the server.  Objects cross as
bytes, so neither side can change what the other holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import orjson

from isoplane.client.api import Page, PatchKind, Propagation, WatchEvent
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object


class Backend(Protocol):
    """What the server offers in process. ``namespace`` '' means cluster-scoped or, in lists, everywhere."""

    def get(self, resource: Resource, namespace: str, name: str) -> bytes: ...

    def list(
        self,
        resource: Resource,
        namespace: str,
        label_selector: str,
        field_selector: str,
        limit: int,
        continue_token: str,
    ) -> tuple[Sequence[bytes], int, str]:
        """The items, the revision, the token of the next page."""
        ...

    async def create(self, resource: Resource, namespace: str, obj: Object, dry_run: bool) -> bytes: ...

    async def update(self, resource: Resource, namespace: str, name: str, obj: Object, subresource: str) -> bytes: ...

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Any, kind: PatchKind, subresource: str
    ) -> bytes: ...

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        grace_seconds: int | None,
        uid: str | None,
        propagation: Propagation | None,
    ) -> None: ...

    async def act(
        self, resource: Resource, namespace: str, name: str, subresource: str, body: Mapping[str, Any]
    ) -> bytes: ...

    def watch(
        self, resource: Resource, namespace: str, resource_version: str, field_selector: str
    ) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """Groups of (event type, object)."""
        ...


def _load(data: bytes) -> Object:
    obj: Object = orjson.loads(data)
    return obj


def _own(obj: Object) -> Object:
    """A copy that the server may change while the caller keeps his."""
    return _load(orjson.dumps(obj))


class LocalApi:
    """Implements :class:`isoplane.client.api.Api` on a Backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        return _load(self._backend.get(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Page:
        items, revision, token = self._backend.list(
            resource, namespace, label_selector, field_selector, limit, continue_token
        )
        return Page([_load(item) for item in items], str(revision), token)

    async def create(self, resource: Resource, obj: Object, *, namespace: str = "", dry_run: bool = False) -> Object:
        where = namespace or str((obj.get("metadata") or {}).get("namespace") or "")
        return _load(await self._backend.create(resource, where, _own(obj), dry_run))

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        meta = obj["metadata"]
        where = str(meta.get("namespace") or "")
        return _load(await self._backend.update(resource, where, str(meta["name"]), _own(obj), subresource))

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Any,
        *,
        kind: PatchKind = "merge",
        subresource: str = "",
    ) -> Object:
        return _load(await self._backend.patch(resource, namespace, name, patch, kind, subresource))

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        uid: str | None = None,
        propagation: Propagation | None = None,
    ) -> None:
        await self._backend.delete(resource, namespace, name, grace_seconds, uid, propagation)

    async def subresource(
        self, resource: Resource, name: str, namespace: str, subresource: str, body: Mapping[str, Any]
    ) -> Object:
        return _load(await self._backend.act(resource, namespace, name, subresource, body))

    async def watch(
        self, resource: Resource, namespace: str = "", *, resource_version: str, field_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        async for group in self._backend.watch(resource, namespace, resource_version, field_selector):
            for kind, data in group:
                yield WatchEvent(kind, _load(data))
