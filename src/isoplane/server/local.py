"""The Api protocol served in the same process: no socket, no TLS, the same verbs, the same admission, as the system user.

For the controllers and the node beside the server.  Objects cross as bytes, so neither side can change what the other holds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import orjson

from isoplane.client.api import Page, PatchKind, Propagation, WatchEvent
from isoplane.http.request_options import Call, DeleteOptions, ListOptions
from isoplane.http.watch import Bookmark
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.server.verbs import Verbs


class LocalApi:
    """Implements :class:`isoplane.client.api.Api` on the verbs."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        return self._verbs.get(resource, namespace, name).object()

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
        options = ListOptions(label_selector, field_selector, limit, continue_token)
        listing = self._verbs.list(resource, _scope(resource, namespace), options)
        items = [record.object() for record in listing.records]
        return Page(items, str(listing.revision), listing.continue_token)

    async def create(self, resource: Resource, obj: Object, *, namespace: str = "", dry_run: bool = False) -> Object:
        where = namespace or str((obj.get("metadata") or {}).get("namespace") or "")
        return (await self._verbs.create(resource, where, _own(obj), Call(dry_run=dry_run))).object()

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        meta = obj["metadata"]
        name, where = str(meta["name"]), str(meta.get("namespace") or "")
        return (await self._verbs.update(resource, where, name, _own(obj), Call(), subresource)).object()

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
        call = Call(force=kind == "apply")
        return (await self._verbs.patch(resource, namespace, name, patch, kind, call, subresource)).object()

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
    ) -> None:
        options = DeleteOptions(grace_seconds, uid, resource_version, propagation)
        await self._verbs.delete(resource, namespace, name, options, Call())

    async def subresource(
        self, resource: Resource, name: str, namespace: str, subresource: str, body: Mapping[str, Any]
    ) -> Object:
        return (await self._verbs.act(resource, namespace, name, subresource, body, Call())).object()

    async def watch(
        self, resource: Resource, namespace: str = "", *, resource_version: str, field_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        options = ListOptions(field_selector=field_selector, resource_version=resource_version, bookmarks=True)
        async with aclosing(self._verbs.watch(resource, _scope(resource, namespace), options)) as steps:
            async for group in steps:
                for step in group:
                    if isinstance(step, Bookmark):
                        yield WatchEvent("BOOKMARK", _bookmark(resource, step))
                    else:
                        yield WatchEvent(step.type, step.record.object())


def _own(obj: Object) -> Object:
    """A copy that the server may change while the caller keeps his."""
    copy: Object = orjson.loads(orjson.dumps(obj))
    return copy


def _scope(resource: Resource, namespace: str) -> str | None:
    return (namespace or None) if resource.namespaced else ""


def _bookmark(resource: Resource, mark: Bookmark) -> Object:
    meta = {"resourceVersion": str(mark.revision)}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
