"""``view.isoplane.io`` on a cluster: the list of workloads, computed from the caches and served as an aggregated API.

Who asks is the front proxy's to say, and whether they may, the cluster's (:mod:`isoplane.http.delegated`).  An object carries the
resourceVersion of its source; a watch from an unknown one is answered 410, and the client lists again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import orjson

from isoplane.client.informer import Informer
from isoplane.http import streaming
from isoplane.http.apierrors import not_found
from isoplane.http.app import Handle, Service
from isoplane.http.items import EncodedObject, Listing
from isoplane.http.query import boolean, number
from isoplane.http.representation import Representation
from isoplane.http.request import Request
from isoplane.http.request_info import RequestInfo
from isoplane.http.watch import Bookmark, ObjectEvent, Step
from isoplane.objects import metadata
from isoplane.objects.errors import BadRequest, Expired, TooManyRequests
from isoplane.objects.kinds import WORKLOADS
from isoplane.objects.metadata import Object
from isoplane.objects.selectors import EVERYTHING, FieldSelector, Selector, parse, parse_fields
from isoplane.workload.bodies import machine_of
from isoplane.workload.registry import adapter_for
from isoplane.workload.view import Place, nowhere, workload_object

BASE = f"/apis/{WORKLOADS.api_version}"
BOOKMARK_SECONDS = 60.0
MAX_WATCHES = 500
KEPT = 10_000
"""Changes that are kept for watches that begin a little in the past, and that one watch may be behind."""
BY_UID = "uid"
_FIELDS = frozenset({"metadata.name", "metadata.namespace"})


class WorkloadView(Service):
    """The workloads of a cluster's caches, which are in sync. Belongs to one event loop."""

    def __init__(self, pods: Informer, machines: Informer | None, place: Place = nowhere) -> None:
        self._sources = [pods] if machines is None else [pods, machines]
        self._machines = machines
        if machines is not None:
            machines.index(BY_UID, lambda machine: (metadata.uid(machine),))
        self._place = place
        self._watches: set[_Watch] = set()
        self._past: deque[tuple[int, str, Object]] = deque(maxlen=KEPT)
        self._since = max(source.revision for source in self._sources)
        """Every change after this revision is kept."""
        self._listens = False
        for source in self._sources:
            source.on_change(lambda key, old, new, source=source: self._changed(source, old, new))  # type: ignore[misc]
        self._listens = True  # what is cached already is no change

    @property
    def revision(self) -> int:
        """The revision that every cache has reached."""
        return min(source.revision for source in self._sources)

    # what is served

    def find(self, info: RequestInfo) -> Handle | None:
        if info.path in (BASE, f"{BASE}/"):
            return self._resources
        if info.path in (f"/apis/{WORKLOADS.group}", f"/apis/{WORKLOADS.group}/"):
            return self._versions
        verbs: dict[str, Handle] = {"get": self._get, "list": self._list, "watch": self._watch}
        served = (info.group, info.version, info.resource) == (WORKLOADS.group, WORKLOADS.version, WORKLOADS.plural)
        return verbs.get(info.verb) if served and not info.subresource else None

    async def _resources(self, request: Request) -> None:
        resource = {
            "name": WORKLOADS.plural, "singularName": WORKLOADS.singular, "namespaced": True, "kind": WORKLOADS.kind,
            "shortNames": list(WORKLOADS.short_names), "verbs": list(WORKLOADS.verbs),
        }  # fmt: skip
        found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": WORKLOADS.api_version}
        await request.answer(200, orjson.dumps({**found, "resources": [resource]}))

    async def _versions(self, request: Request) -> None:
        version = {"groupVersion": WORKLOADS.api_version, "version": WORKLOADS.version}
        found = {"kind": "APIGroup", "apiVersion": "v1", "name": WORKLOADS.group, "preferredVersion": version}
        await request.answer(200, orjson.dumps({**found, "versions": [version]}))

    async def _get(self, request: Request) -> None:
        """By its name; also by its source's name, where that is unambiguous: that is what people type."""
        info = request.info
        prefix, dot, rest = info.name.partition(".")
        named = [(source, rest) for source in self._sources if dot and _prefix(source) == prefix]
        for candidates in (named, [(source, info.name) for source in self._sources]):
            found = [
                workload
                for source, name in candidates
                if (obj := source.get(info.namespace, name)) is not None
                and (workload := self._workload(source, obj)) is not None
            ]
            if len(found) == 1:
                await request.answer(200, self._form(request).one(EncodedObject.of(found[0])))
                return
        raise not_found(WORKLOADS, info.name)

    async def _list(self, request: Request) -> None:
        wanted = _Wanted.of(request)
        found = [EncodedObject.of(obj) for obj in self._workloads(request.info.namespace) if wanted.matches(obj)]
        await request.answer(200, self._form(request).many(Listing(found, self.revision)))

    async def _watch(self, request: Request) -> None:
        if len(self._watches) >= MAX_WATCHES:
            raise TooManyRequests(f"{MAX_WATCHES} watches are open: try again later")
        await streaming.watch(request, self._form(request), self._steps(request))

    def _form(self, request: Request) -> Representation:
        return Representation(WORKLOADS, request.media(), request.query.get("includeObject", ""))

    # objects

    def _workloads(self, namespace: str) -> list[Object]:
        found = [
            workload
            for source in self._sources
            for obj in source.items()
            if not namespace or metadata.namespace(obj) == namespace
            if (workload := self._workload(source, obj)) is not None
        ]
        return sorted(found, key=metadata.key)

    def _workload(self, source: Informer, obj: Mapping[str, Any]) -> Object | None:
        """The Workload of an object; None for the body of a machine, which the machine itself stands for."""
        if source is not self._machines and self._machines is not None and self._machines.find(BY_UID, machine_of(obj)):
            return None
        adapter = adapter_for(source.resource)
        assert adapter is not None
        typed = {"apiVersion": source.resource.api_version, "kind": source.resource.kind, **obj}
        try:
            return workload_object(adapter, typed, self._place)
        except ValueError as error:
            return _unreadable(source, obj, str(error))

    # watches

    def _changed(self, source: Informer, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        obj = new if new is not None else old
        if obj is None or not self._listens:
            return
        workload = self._workload(source, obj)
        if workload is None:
            return
        type_ = "ADDED" if old is None else "MODIFIED" if new is not None else "DELETED"
        if len(self._past) == KEPT:
            self._since = self._past[0][0]
        self._past.append((int(workload["metadata"]["resourceVersion"]), type_, workload))
        for watch in list(self._watches):
            watch.put(type_, workload)

    async def _steps(self, request: Request) -> AsyncGenerator[Sequence[Step], None]:
        query = request.query
        since = number(query, "resourceVersion") or 0
        initial = not since or boolean(query, "sendInitialEvents")
        if not initial and not self._since <= since <= self.revision:
            raise Expired(f"resourceVersion {since} is not kept here: list again")
        watch = _Watch(_Wanted.of(request), request.info.namespace)
        self._watches.add(watch)
        try:
            if initial:
                for obj in self._workloads(request.info.namespace):
                    watch.put("ADDED", obj)
                if boolean(query, "sendInitialEvents"):
                    watch.mark(Bookmark(self.revision, initial=True))
            else:
                for revision, type_, obj in list(self._past):
                    if revision > since:
                        watch.put(type_, obj)
            loop = asyncio.get_running_loop()
            end = loop.time() + (number(query, "timeoutSeconds") or 1800)
            while (left := end - loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                        steps = await watch.next()
                except TimeoutError:
                    steps = [Bookmark(self.revision)] if boolean(query, "allowWatchBookmarks") else []
                if steps:
                    yield steps
        finally:
            self._watches.discard(watch)


class _Wanted:
    """The selectors of a request."""

    def __init__(self, labels: Selector, fields: FieldSelector) -> None:
        self._labels = labels
        self._fields = fields

    @classmethod
    def of(cls, request: Request) -> _Wanted:
        """Raises BadRequest."""
        text = request.query.get("labelSelector", "")
        try:
            fields = parse_fields(request.query.get("fieldSelector", ""))
            labels = parse(text) if text else EVERYTHING
        except ValueError as error:
            raise BadRequest(str(error)) from error
        if unknown := set(fields.paths()) - _FIELDS:
            raise BadRequest(f"field label not supported: {', '.join(sorted(unknown))}")
        return cls(labels, fields)

    def matches(self, obj: Object) -> bool:
        return self._labels.matches(metadata.labels(obj)) and self._fields.matches(obj)


class _Watch:
    """What one client has still to hear."""

    def __init__(self, wanted: _Wanted, namespace: str) -> None:
        self._wanted = wanted
        self._namespace = namespace
        self._queue: list[Step] = []
        self._behind = False
        self._ready = asyncio.Event()

    def put(self, type_: str, obj: Object) -> None:
        """A change. Whoever is too far behind hears no more than that."""
        if self._behind or (self._namespace and metadata.namespace(obj) != self._namespace):
            return
        if not self._wanted.matches(obj):
            return
        if len(self._queue) >= KEPT:
            self._queue, self._behind = [], True
        else:
            self._queue.append(ObjectEvent(type_, EncodedObject.of(obj)))
        self._ready.set()

    def mark(self, bookmark: Bookmark) -> None:
        self._queue.append(bookmark)
        self._ready.set()

    async def next(self) -> list[Step]:
        """Raises Expired for who is too far behind."""
        await self._ready.wait()
        self._ready.clear()
        if self._behind:
            raise Expired("this watch fell behind: list again")
        steps, self._queue = self._queue, []
        return steps


def _prefix(source: Informer) -> str:
    """Of the names of its workloads, as the shape gives them."""
    resource = source.resource
    return resource.short_names[0] if resource.custom else resource.singular


def _unreadable(source: Informer, obj: Mapping[str, Any], why: str) -> Object:
    """An object that cannot be projected is listed with what is wrong, and hides nobody else."""
    meta = obj["metadata"]
    return {
        "apiVersion": WORKLOADS.api_version, "kind": WORKLOADS.kind,
        "metadata": {
            "name": f"{_prefix(source)}.{meta['name']}", "namespace": meta.get("namespace", ""), "uid": meta.get("uid", ""),
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta.get("creationTimestamp"),
        },
        "spec": {"kind": source.resource.kind, "name": meta["name"], "uid": meta.get("uid", "")},
        "status": {"stage": "Unknown", "ready": False, "reachable": True, "reason": "Unreadable", "message": why},
    }  # fmt: skip
