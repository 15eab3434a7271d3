"""The verbs as ``client.local`` wants them: for controllers and the node in the same process, as the system user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson

from isoplane.client.api import PatchKind, Propagation
from isoplane.http.request_options import Call, DeleteOptions, ListOptions
from isoplane.http.watch import Bookmark
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.server.verbs import Verbs


class LocalVerbs:
    """Implements ``isoplane.client.local.Backend``."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        return self._verbs.get(resource, namespace, name).data

    def list(
        self,
        resource: Resource,
        namespace: str,
        label_selector: str,
        field_selector: str,
        limit: int,
        continue_token: str,
    ) -> tuple[Sequence[bytes], int, str]:
        options = ListOptions(label_selector, field_selector, limit, continue_token)
        listing = self._verbs.list(resource, _scope(resource, namespace), options)
        return [record.data for record in listing.records], listing.revision, listing.continue_token

    async def create(self, resource: Resource, namespace: str, obj: Object, dry_run: bool) -> bytes:
        return (await self._verbs.create(resource, namespace, obj, Call(dry_run=dry_run))).data

    async def update(self, resource: Resource, namespace: str, name: str, obj: Object, subresource: str) -> bytes:
        return (await self._verbs.update(resource, namespace, name, obj, Call(), subresource)).data

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Any, kind: PatchKind, subresource: str
    ) -> bytes:
        call = Call(force=kind == "apply")
        return (await self._verbs.patch(resource, namespace, name, patch, kind, call, subresource)).data

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        grace_seconds: int | None,
        uid: str | None,
        propagation: Propagation | None,
    ) -> None:
        options = DeleteOptions(grace_seconds, uid, None, propagation)
        await self._verbs.delete(resource, namespace, name, options, Call())

    async def act(
        self, resource: Resource, namespace: str, name: str, subresource: str, body: Mapping[str, Any]
    ) -> bytes:
        return (await self._verbs.act(resource, namespace, name, subresource, body, Call())).data

    async def watch(
        self, resource: Resource, namespace: str, resource_version: str, field_selector: str
    ) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        options = ListOptions(field_selector=field_selector, resource_version=resource_version, bookmarks=True)
        steps = self._verbs.watch(resource, _scope(resource, namespace), options)
        try:
            async for group in steps:
                yield [
                    ("BOOKMARK", _bookmark(resource, step))
                    if isinstance(step, Bookmark)
                    else (step.type, step.record.data)
                    for step in group
                ]
        finally:
            close = getattr(steps, "aclose", None)
            if close is not None:
                await close()


def _scope(resource: Resource, namespace: str) -> str | None:
    return (namespace or None) if resource.namespaced else ""


def _bookmark(resource: Resource, mark: Bookmark) -> bytes:
    meta = {"resourceVersion": str(mark.revision)}
    return orjson.dumps({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta})
