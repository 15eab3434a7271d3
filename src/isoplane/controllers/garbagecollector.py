"""Garbage collection: what an owner leaves behind goes with it, in the background, in the foreground, or is set free.

The thin half of :mod:`~isoplane.controllers.ownership`: feeds the graph from informers, asks the server whether an unknown
owner exists, carries decisions out.  Keys are uids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from isoplane.client.api import Api, Propagation
from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.controllers.ownership import (
    FOREGROUND,
    ORPHAN,
    Ask,
    Delete,
    Disown,
    Graph,
    Item,
    LetGo,
    SetFree,
    item_of,
)
from isoplane.objects import metadata
from isoplane.objects.errors import Conflict, NotFound
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.objects.scheme import Scheme


class GarbageCollector(Controller):
    """Deletes what nobody owns any more, of every kind that ``scheme`` serves meanwhile."""

    name = "garbagecollector"

    def __init__(self, api: Api, informers: Informers, scheme: Scheme, *, workers: int = 4) -> None:
        super().__init__(workers=workers)
        self._api = api
        self._informers = informers
        self._scheme = scheme
        self._followed: set[Resource] = set()
        self.graph = Graph()
        scheme.follow(self._follow)

    def _follow(self, resource: Resource, served: bool) -> None:
        if resource.computed or not resource.collected:
            return
        if not served:
            self._followed.discard(resource)
            self._informers.drop(resource)
        elif resource not in self._followed:
            self._followed.add(resource)
            self._informers.of(resource).on_change(self._feed(resource))

    def _feed(self, resource: Resource) -> Callable[[str, Any, Any], None]:
        def changed(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            look: list[str] = []
            if old is not None and (new is None or metadata.uid(new) != metadata.uid(old)):
                look += self.graph.drop(metadata.uid(old))
            if new is not None:
                look += self.graph.put(item_of(self._scheme, resource, new))
            for uid in look:
                self.enqueue(uid)

        return changed

    async def reconcile(self, key: str) -> float | None:
        decision = self.graph.decide(key)
        item = self.graph.items.get(key)
        if isinstance(decision, Ask) and item is not None:
            absent, present = await self._ask(item, decision)
            decision = self.graph.decide(key, absent, present)
        if item is None:
            return None
        match decision:
            case SetFree(dependents):
                for dependent in dependents:
                    await self._disown(dependent, frozenset((item.uid,)))
                await self._drop_finalizer(item, ORPHAN)
            case LetGo():
                await self._drop_finalizer(item, FOREGROUND)
            case Disown(owners):
                await self._disown(item, owners)
            case Delete(propagation):
                await self._delete(item, propagation)
        return None

    async def _ask(self, item: Item, question: Ask) -> tuple[set[str], set[str]]:
        """(uids that do not exist, uids that do)."""
        absent: set[str] = set()
        present: set[str] = set()
        for owner in question.owners:
            assert owner.resource is not None
            try:
                found = await self._api.get(owner.resource, owner.name, item.owner_namespace(owner))
            except NotFound:
                absent.add(owner.uid)
                continue
            (present if metadata.uid(found) == owner.uid else absent).add(owner.uid)
        return absent, present

    async def _delete(self, item: Item, propagation: str) -> None:
        try:
            await self._api.delete(
                item.resource, item.name, item.namespace, uid=item.uid, propagation=cast(Propagation, propagation)
            )
        except NotFound:
            return
        except Conflict:
            # Another object has the name by now; the one that was meant is gone.
            return

    async def _disown(self, item: Item, owners: frozenset[str]) -> None:
        found = await self._live(item)
        if found is None:
            return
        references = found["metadata"].get("ownerReferences") or []
        kept = [reference for reference in references if reference.get("uid") not in owners]
        if kept != references:
            await self._patch(item, found, {"ownerReferences": kept or None})

    async def _drop_finalizer(self, item: Item, finalizer: str) -> None:
        found = await self._live(item)
        if found is None:
            return
        finalizers = found["metadata"].get("finalizers") or []
        if finalizer in finalizers:
            await self._patch(item, found, {"finalizers": [f for f in finalizers if f != finalizer] or None})

    async def _live(self, item: Item) -> Object | None:
        """The object as the server has it, if it is still the same one."""
        try:
            found = await self._api.get(item.resource, item.name, item.namespace)
        except NotFound:
            return None
        return found if metadata.uid(found) == item.uid else None

    async def _patch(self, item: Item, found: Object, change: Mapping[str, Any]) -> None:
        meta = {**change, "resourceVersion": found["metadata"]["resourceVersion"]}
        try:
            await self._api.patch(item.resource, item.name, item.namespace, {"metadata": meta}, kind="merge")
        except NotFound:
            return
