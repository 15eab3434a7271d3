"""A watched cache of one resource: list, then watch; bookmarks; a fresh list after 410; a deadline on silence.

Cached objects are shared and must not be changed.  One informer per resource serves a whole process (:class:`Informers`),
so that an object is decoded and kept once, however many controllers look at it.  It is kept without managedFields, which
no controller reads and which would double it; an update without them leaves them as they are.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from isoplane.client.api import Api
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Expired
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object

T = TypeVar("T")
_log = logging.getLogger(__name__)

Change = Callable[[str, Mapping[str, Any] | None, Mapping[str, Any] | None], None]
"""(key, old, new): old None when added, new None when deleted."""
Index = Callable[[Mapping[str, Any]], Iterable[str]]

SILENCE = 120.0
"""Seconds without an event or a bookmark after which a watch is taken for dead."""
RETRY_SECONDS = (0.2, 10.0)
PAGE = 500
TURN = 128
"""Objects of a list after which others on the event loop get their turn."""


class Informer:
    """Keeps ``resource`` in memory, keyed ``namespace/name``. Belongs to one event loop."""

    def __init__(self, api: Api, resource: Resource, *, silence: float = SILENCE) -> None:
        self.resource = resource
        self.revision = 0
        """The resourceVersion that the cache has reached."""
        self.changes = 0
        """How many changes of objects it has seen."""
        self._api = api
        self._silence = silence
        self._objects: dict[str, Object] = {}
        self._handlers: list[Change] = []
        self._indexes: dict[str, tuple[Index, dict[str, set[str]]]] = {}
        self._derived: dict[Callable[[Any], Any], dict[str, deque[tuple[str, Any]]]] = {}
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def get(self, namespace: str, name: str) -> Object | None:
        """The cached object (do not change it), or None."""
        return self._objects.get(f"{namespace}/{name}" if namespace else name)

    def by_key(self, key: str) -> Object | None:
        """The cached object of a key (do not change it), or None."""
        return self._objects.get(key)

    def derived(self, function: Callable[[Mapping[str, Any]], T], obj: Mapping[str, Any]) -> T:
        """``function(obj)``, remembered for the object's two last versions, whoever asks.

        For pure functions of objects that came from the server: a version of an object never changes.
        """
        meta = obj["metadata"]
        version = f"{meta.get('uid')}@{meta.get('resourceVersion')}"
        versions = self._derived.setdefault(function, {}).setdefault(metadata.key(obj), deque(maxlen=2))
        for known, value in versions:
            if known == version:
                found: T = value
                return found
        value = function(obj)
        versions.append((version, value))
        return value

    def items(self) -> Iterable[Object]:
        """Every cached object (do not change them)."""
        return self._objects.values()

    def __len__(self) -> int:
        return len(self._objects)

    def on_change(self, handler: Change) -> None:
        """Hear of every change from now on, and of what is cached already."""
        self._handlers.append(handler)
        for key, obj in list(self._objects.items()):
            handler(key, None, obj)

    def index(self, name: str, function: Index) -> None:
        """Keep an index: ``function`` gives the values an object is found under. Defining one again changes nothing."""
        if name in self._indexes:
            return
        self._indexes[name] = (function, {})
        for key, obj in self._objects.items():
            self._reindex(key, None, obj)

    def find(self, index: str, value: str) -> list[Object]:
        """The cached objects under one value of an index."""
        return [self._objects[key] for key in self._indexes[index][1].get(value, ())]

    def start(self) -> None:
        """List and watch in the background."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    async def synced(self) -> None:
        """Wait until the first list is in."""
        await self._synced.wait()

    async def refresh(self) -> None:
        """List anew, consistently, and wait until that is in: the cache has then seen everything of before the call."""
        await self.stop()
        self._synced.clear()
        self.start()
        await self.synced()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def forget(self) -> None:
        """Take everything cached for deleted, and hear of nothing more."""
        if self._task is not None:
            self._task.cancel()
        for key in list(self._objects):
            self._apply(key, None)

    async def _run(self) -> None:
        delay = RETRY_SECONDS[0]
        while True:
            try:
                revision = await self._list()
                self.revision = _number(revision)
                self._synced.set()
                delay = RETRY_SECONDS[0]
                await self._watch(revision)
            except Expired:
                continue
            except (ApiError, OSError, TimeoutError) as error:
                _log.warning(
                    "watching %s: %s; listing again in %.1f s", self.resource.qualified, error or "silence", delay
                )
                await asyncio.sleep(delay * (1 + 0.2 * random.random()))
                delay = min(delay * 2, RETRY_SECONDS[1])

    async def _list(self) -> str:
        found: dict[str, Object] = {}
        token = ""
        while True:
            page = await self._api.list(self.resource, limit=PAGE, continue_token=token)
            found.update((metadata.key(obj), _kept(obj)) for obj in page.items)
            token = page.continue_token
            if not token:
                break
        for key in [key for key in self._objects if key not in found]:
            self._apply(key, None)
        for number, (key, obj) in enumerate(found.items(), 1):
            self._apply(key, obj)
            if number % TURN == 0:
                await asyncio.sleep(0)
        return page.resource_version

    async def _watch(self, revision: str) -> None:
        """Follow until the server ends the watch; then go on from the last revision seen."""
        while True:
            events = self._api.watch(self.resource, resource_version=revision)
            try:
                while True:
                    async with asyncio.timeout(self._silence):
                        event = await anext(events, None)
                    if event is None:
                        break
                    revision = str(event.object["metadata"]["resourceVersion"])
                    if event.type != "BOOKMARK":
                        new = None if event.type == "DELETED" else _kept(event.object)
                        self._apply(metadata.key(event.object), new)
                    self.revision = _number(revision)
            finally:
                close = getattr(events, "aclose", None)
                if close is not None:
                    await close()

    def _apply(self, key: str, new: Object | None) -> None:
        old = self._objects.get(key)
        if new is None:
            if old is None:
                return
            del self._objects[key]
        else:
            if old is not None and old["metadata"].get("resourceVersion") == new["metadata"].get("resourceVersion"):
                return
            self._objects[key] = new
        self.changes += 1
        self._reindex(key, old, new)
        for handler in self._handlers:
            try:
                handler(key, old, new)
            except Exception:
                _log.exception("a handler of %s failed on %s", self.resource.qualified, key)
        if new is None:
            for values in self._derived.values():
                values.pop(key, None)

    def _reindex(self, key: str, old: Object | None, new: Object | None) -> None:
        for function, values in self._indexes.values():
            before = set(function(old)) if old is not None else set()
            after = set(function(new)) if new is not None else set()
            for value in before - after:
                values[value].discard(key)
                if not values[value]:
                    del values[value]
            for value in after - before:
                values.setdefault(value, set()).add(key)


class Informers:
    """The informers of one process: one per resource, started together, and what is added later at once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._started = False
        self._dropped: set[asyncio.Task[None]] = set()
        self._informers: dict[Resource, Informer] = {}

    def of(self, resource: Resource) -> Informer:
        """The informer of a resource, made on first use."""
        if resource not in self._informers:
            self._informers[resource] = Informer(self._api, resource)
            if self._started:
                self._informers[resource].start()
        return self._informers[resource]

    def drop(self, resource: Resource) -> None:
        """The resource is served no longer: what was cached of it counts as deleted."""
        informer = self._informers.pop(resource, None)
        if informer is not None:
            informer.forget()
            task = asyncio.ensure_future(informer.stop())
            self._dropped.add(task)
            task.add_done_callback(self._dropped.discard)

    def changes(self) -> int:
        """How many changes of objects all of them have seen: stands still while nothing happens."""
        return sum(informer.changes for informer in self._informers.values())

    async def start(self) -> None:
        """Start every informer made so far and wait until all are in sync."""
        self._started = True
        informers = list(self._informers.values())
        for informer in informers:
            informer.start()
        await asyncio.gather(*(informer.synced() for informer in informers))

    async def refresh(self) -> None:
        """List everything anew, consistently."""
        await asyncio.gather(*(informer.refresh() for informer in self._informers.values()))

    async def stop(self) -> None:
        self._started = False
        await asyncio.gather(*(informer.stop() for informer in self._informers.values()), *self._dropped)


def _number(revision: str) -> int:
    return int(revision) if revision.isdigit() else 0


def _kept(obj: Object) -> Object:
    obj["metadata"].pop("managedFields", None)
    return obj
