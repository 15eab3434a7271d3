"""Computed kinds: objects derived from stored ones on every read, never stored themselves.

    Derived      one object for each source object (a Workload for every Pod and VMI)
    Summary      objects of a namespace from everything in it (a QuotaUsage)

Register them with :class:`Registry`; get, list and watch then work as for any other kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass

from isoplane.http import apierrors
from isoplane.http.items import Listing
from isoplane.http.request_options import ListOptions
from isoplane.http.watch import Bookmark
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import NAMESPACES, Resource
from isoplane.objects.metadata import Object
from isoplane.server.strategy import Clock
from isoplane.server.watching import BOOKMARK_SECONDS, Step
from isoplane.store import ReadView, Record, Store
from isoplane.store.filters import Filter, compile_filter
from isoplane.store.hub import seen_through
from isoplane.store.record import snapshot
from isoplane.store.transaction import Change


@dataclass(frozen=True, slots=True)
class Derived:
    """``project`` makes the computed object of one source record; None: it has none."""

    resource: Resource
    sources: tuple[Resource, ...]
    project: Callable[[Record], Object | None]


@dataclass(frozen=True, slots=True)
class Summary:
    """``project`` makes the computed objects of one namespace; a change of any source in it makes them anew."""

    resource: Resource
    sources: tuple[Resource, ...]
    project: Callable[[ReadView, str], Iterable[Object]]


Projection = Derived | Summary


class Registry:
    """The computed kinds of a server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._projections: dict[Resource, Projection] = {}

    def register(self, projection: Projection) -> None:
        self._projections[projection.resource] = projection

    def records(self, resource: Resource, namespace: str | None) -> list[Record]:
        """All computed objects of a scope, sorted by (namespace, name). Raises NotFound for an unregistered kind."""
        projection = self._projections.get(resource)
        if projection is None:
            raise NotFound(f"{resource.qualified} are not computed by this server")
        found: list[Record] = []
        if isinstance(projection, Derived):
            for source in projection.sources:
                for record in self._store.state.list(source, namespace):
                    derived = _derive(projection, record)
                    if derived is not None:
                        found.append(derived)
        else:
            for space in self._namespaces(namespace):
                found.extend(self._summaries(projection, space))
        found.sort(key=lambda record: (record.namespace, record.name))
        return found

    def _namespaces(self, namespace: str | None) -> Iterable[str]:
        if namespace is not None:
            return (namespace,)
        return [record.name for record in self._store.state.list(NAMESPACES)]

    def _summaries(self, projection: Summary, namespace: str) -> list[Record]:
        view = self._store.state
        return [snapshot(projection.resource, obj, self._store.revision) for obj in projection.project(view, namespace)]

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        """By its name; a derived one also by its source's name, where that is unambiguous. Raises NotFound."""
        records = self.records(resource, namespace)
        for record in records:
            if record.name == name:
                return record
        # PREFIX.NAME of the kind's short name and the object's: a name without its prefix is what people type.
        meant = [record for record in records if record.name.partition(".")[2] == name]
        if len(meant) == 1 and isinstance(self._projections.get(resource), Derived):
            return meant[0]
        missing = apierrors.not_found(resource, name)
        if len(meant) > 1:
            raise NotFound(f"{missing}: did you mean {' or '.join(record.name for record in meant)}?")
        raise missing

    def list(self, resource: Resource, namespace: str | None, options: ListOptions) -> Listing[Record]:
        """Always the present state in one page: computed kinds have no past to page through."""
        filter_ = compile_filter(resource, options.label_selector, options.field_selector)
        return Listing([r for r in self.records(resource, namespace) if filter_.matches(r)], self._store.revision)

    def watch(
        self, resource: Resource, namespace: str | None, options: ListOptions, monotonic: Clock
    ) -> AsyncGenerator[Sequence[Step], None]:
        """The present state, then what changes. A resourceVersion is taken as "from now on", the past is not kept."""
        filter_ = compile_filter(resource, options.label_selector, options.field_selector)
        projection = self._projections.get(resource)
        if projection is None:
            raise NotFound(f"{resource.qualified} are not computed by this server")
        known = {(r.namespace, r.name): r for r in self.records(resource, namespace)}
        initial = options.resource_version in ("", "0") or bool(options.send_initial_events)
        return self._steps(projection, namespace, filter_, known, initial, options, monotonic)

    async def _steps(
        self,
        projection: Projection,
        namespace: str | None,
        filter_: Filter,
        known: dict[tuple[str, str], Record],
        initial: bool,
        options: ListOptions,
        monotonic: Clock,
    ) -> AsyncGenerator[Sequence[Step], None]:
        subscriptions = [self._store.watch(source, namespace) for source in projection.sources]
        ready = asyncio.Event()
        pumps: list[asyncio.Task[None]] = []
        arrived: list[Change] = []

        async def pump(index: int) -> None:
            while True:
                arrived.extend(await subscriptions[index].next(3600))
                ready.set()

        try:
            pumps.extend(asyncio.ensure_future(pump(index)) for index in range(len(subscriptions)))
            if initial:
                first: list[Step] = [Change("ADDED", r.revision, r, None) for r in known.values() if filter_.matches(r)]
                if options.send_initial_events and options.bookmarks:
                    first.append(Bookmark(self._store.revision, initial=True))
                if first:
                    yield first
            end = monotonic() + (options.timeout_seconds or 3600)
            while (left := end - monotonic()) > 0:
                try:
                    async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                        await ready.wait()
                except TimeoutError:
                    if options.bookmarks:
                        yield (Bookmark(self._store.revision),)
                    continue
                ready.clear()
                changes, arrived[:] = list(arrived), []
                steps = [
                    seen
                    for change in self._differences(projection, changes, known)
                    if (seen := seen_through(change, filter_)) is not None
                ]
                if steps:
                    yield steps
                for task in pumps:
                    if task.done():
                        task.result()
        finally:
            for task in pumps:
                task.cancel()
            for subscription in subscriptions:
                subscription.close()

    def _differences(
        self, projection: Projection, changes: Sequence[Change], known: dict[tuple[str, str], Record]
    ) -> Iterable[Change]:
        """What the source changes mean for the computed objects; ``known`` is brought up to date."""
        if isinstance(projection, Derived):
            for change in changes:
                yield from _derived_change(projection, change, known)
            return
        for namespace in dict.fromkeys(change.record.namespace for change in changes):
            fresh = {(r.namespace, r.name): r for r in self._summaries(projection, namespace)}
            for key in [key for key in known if key[0] == namespace and key not in fresh]:
                gone = known.pop(key)
                yield Change("DELETED", self._store.revision, gone, gone)
            for key, record in fresh.items():
                yield from _replace(known, key, record)


def _derive(projection: Derived, record: Record) -> Record | None:
    obj = projection.project(record)
    return None if obj is None else snapshot(projection.resource, obj, record.revision)


def _derived_change(projection: Derived, change: Change, known: dict[tuple[str, str], Record]) -> Iterable[Change]:
    record = _derive(projection, change.record)
    if record is None:
        return
    key = (record.namespace, record.name)
    if change.type != "DELETED":
        yield from _replace(known, key, record)
    elif known.pop(key, None) is not None:
        yield Change("DELETED", change.revision, record, record)


def _replace(known: dict[tuple[str, str], Record], key: tuple[str, str], record: Record) -> Iterable[Change]:
    """ADDED or MODIFIED, unless nothing but the revision differs."""
    before = known.get(key)
    if before is not None and _content(before) == _content(record):
        return
    known[key] = record
    yield Change("ADDED" if before is None else "MODIFIED", record.revision, record, before)


def _content(record: Record) -> Object:
    obj = record.object()
    obj["metadata"].pop("resourceVersion", None)
    return obj
