"""Namespaces that end: everything in them is deleted, then the namespace lets go.

A deleted namespace is Terminating and holds the finalizer ``kubernetes`` until this controller finds nothing left in it.
Whatever has its own end to come to (a grace period, a finalizer) is waited for; the conditions say for what.
Source: Kubernetes' namespaced resources deleter.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, NotFound
from isoplane.objects.kinds import NAMESPACES, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.resources.namespace import FINALIZER
from isoplane.objects.scheme import Scheme

AGAIN_SECONDS = 5.0
"""Looked at again after this long at the latest; usually the last object's end calls sooner."""
AT_ONCE = 64
PAGE = 500


def content(scheme: Scheme) -> list[Resource]:
    """What may be in a namespace, in the order in which it is deleted: owners before what they own, so that nothing is
    asked twice; Events last, since the others' end makes some."""
    found = (r for r in scheme.stored() if r.namespaced and "delete" in r.verbs)
    return sorted(found, key=lambda r: (not r.collected, not r.makes_workloads))


@dataclass(slots=True)
class Remaining:
    """What a pass left behind."""

    objects: Counter[str] = field(default_factory=Counter)
    finalizers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.objects or self.failures)


def conditions(old: Iterable[Mapping[str, Any]], left: Remaining, now: str) -> list[dict[str, Any]]:
    """The namespace's conditions, in upstream's words. Pure."""

    def counted(counts: Counter[str], what: str) -> str:
        return ", ".join(f"{name} has {number} {what}" for name, number in sorted(counts.items()))

    rows = (
        (
            "NamespaceDeletionContentFailure",
            bool(left.failures),
            ("ContentDeletionFailed", "; ".join(left.failures)),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            bool(left.objects),
            ("SomeResourcesRemain", f"Some resources are remaining: {counted(left.objects, 'resource instances')}"),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            bool(left.finalizers),
            (
                "SomeFinalizersRemain",
                f"Some content in the namespace has finalizers remaining: "
                f"{counted(left.finalizers, 'in resource instances')}",
            ),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    )
    result = [dict(entry) for entry in old]
    for type_, holds, yes, no in rows:
        reason, message = yes if holds else no
        entry = {"type": type_, "status": "True" if holds else "False", "reason": reason, "message": message}
        result = metadata.set_condition(result, entry, now)
    return result


class NamespaceController(Controller):
    """Keys are names of namespaces."""

    name = "namespace"

    def __init__(
        self, api: Api, informers: Informers, scheme: Scheme, *, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(workers=2)
        self._api = api
        self._informers = informers
        self._scheme = scheme
        self._followed: set[Resource] = set()
        self._clock = clock
        self._namespaces = self.watch(informers.of(NAMESPACES))
        scheme.follow(self._follow)

    def _follow(self, resource: Resource, served: bool) -> None:
        if resource.computed or not resource.namespaced or not resource.collected:
            return
        if not served:
            self._followed.discard(resource)
            self._informers.drop(resource)
        elif resource not in self._followed:
            self._followed.add(resource)
            self._informers.of(resource).on_change(self._content_changed)

    def _content_changed(self, key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        """Something left a namespace: it may have been the last."""
        if new is None and old is not None:
            namespace = self._namespaces.by_key(metadata.namespace(old))
            if namespace is not None and metadata.is_deleting(namespace):
                self.enqueue(metadata.namespace(old))

    async def reconcile(self, key: str) -> float | None:
        namespace = self._namespaces.by_key(key)
        if namespace is None or not metadata.is_deleting(namespace):
            return None
        if FINALIZER not in ((namespace.get("spec") or {}).get("finalizers") or ()):
            return None
        left = await self._empty(key)
        if left:
            await self._tell(namespace, left)
            return AGAIN_SECONDS
        await self._let_go(key, metadata.uid(namespace))
        return None

    async def _empty(self, namespace: str) -> Remaining:
        """Ask for the deletion of everything, and count what is still there afterwards."""
        left = Remaining()
        for resource in content(self._scheme):
            try:
                await self._empty_of(resource, namespace)
                # Events of the last ones to go may have been written meanwhile; what counts is what is there now.
                page = await self._api.list(resource, namespace)
            except ApiError as error:
                left.failures.append(f"{resource.qualified}: {error.message}")
                continue
            if page.items:
                left.objects[resource.qualified] += len(page.items)
                left.finalizers.update(f for obj in page.items for f in obj["metadata"].get("finalizers") or ())
        return left

    async def _empty_of(self, resource: Resource, namespace: str) -> None:
        page = await self._api.list(resource, namespace, limit=PAGE)
        while True:
            waiting = [obj for obj in page.items if not metadata.is_deleting(obj)]
            for start in range(0, len(waiting), AT_ONCE):
                await asyncio.gather(*(self._delete(resource, obj) for obj in waiting[start : start + AT_ONCE]))
            if not page.continue_token:
                return
            page = await self._api.list(resource, namespace, limit=PAGE, continue_token=page.continue_token)

    async def _delete(self, resource: Resource, obj: Object) -> None:
        try:
            await self._api.delete(
                resource,
                metadata.name(obj),
                metadata.namespace(obj),
                uid=metadata.uid(obj),
                propagation="Background",
            )
        except NotFound:
            return

    async def _tell(self, namespace: Object, left: Remaining) -> None:
        status = dict(namespace.get("status") or {})
        status["conditions"] = conditions(status.get("conditions") or (), left, metadata.rfc3339(self._clock()))
        if status != namespace.get("status"):
            await self._api.update(NAMESPACES, {**namespace, "status": status}, subresource="status")

    async def _let_go(self, name: str, uid: str) -> None:
        """Nothing is left: take our finalizer away, whatever was written to the namespace meanwhile."""
        try:
            namespace = await self._api.get(NAMESPACES, name)
            if metadata.uid(namespace) != uid:
                return
            finalizers = [f for f in namespace["spec"].get("finalizers") or () if f != FINALIZER]
            namespace["spec"] = {**namespace["spec"], "finalizers": finalizers}
            await self._api.update(NAMESPACES, namespace, subresource="finalize")
        except NotFound:
            return
