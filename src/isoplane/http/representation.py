"""How objects look to a client: as they are, as a Table, or metadata only; alone, in a list, in a watch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from isoplane.http.items import Item, Listing
from isoplane.http.negotiation import PLAIN, Media
from isoplane.http.watch import Bookmark, Event, Step
from isoplane.objects.errors import BadRequest
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.objects.tables import IncludeObject, partial_metadata, table

_lines: deque[Event] = deque(maxlen=512)
"""The changes that keep their encoded line: enough for every watcher of a few commits, not a second history."""


class Representation:
    """One negotiated form for one resource. ``include`` is the Table's includeObject parameter."""

    def __init__(self, resource: Resource, media: Media, include: str, clock: Callable[[], float] = time.time) -> None:
        self._resource = resource
        self._media = media
        self._include = _include(include)
        self._headed = False
        """Whether this watch has sent its column definitions; they come with the first event only."""
        self._clock = clock

    def one(self, record: Item) -> bytes:
        match self._media.shape:
            case "Table":
                return orjson.dumps(self._table([record], {"resourceVersion": str(record.revision)}))
            case "PartialObjectMetadata":
                return orjson.dumps(_partial(record))
        return record.data

    def many(self, listing: Listing[Item]) -> bytes:
        """A list with its metadata; plain lists are the records' own bytes, joined."""
        meta: dict[str, Any] = {"resourceVersion": str(listing.revision)}
        if listing.continue_token:
            meta["continue"] = listing.continue_token
            if listing.remaining:
                meta["remainingItemCount"] = listing.remaining
        match self._media.shape:
            case "Table":
                return orjson.dumps(self._table(listing.records, meta))
            case "PartialObjectMetadata" | "PartialObjectMetadataList":
                return orjson.dumps(
                    {
                        "kind": "PartialObjectMetadataList",
                        "apiVersion": "meta.k8s.io/v1",
                        "metadata": meta,
                        "items": [_partial(record) for record in listing.records],
                    }
                )
        head = b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[' % (
            self._resource.list_kind.encode(),
            self._resource.api_version.encode(),
            orjson.dumps(meta),
        )
        items = [record.data for record in listing.records]
        if not items:
            return head + b"]}"
        # Joined once: a list has megabytes, and a second copy of them costs more than everything else here.
        items[0] = head + items[0]
        items[-1] += b"]}"
        return b",".join(items)

    def _table(self, records: Sequence[Item], meta: dict[str, Any], *, headers: bool = True) -> dict[str, Any]:
        made = table(
            self._resource,
            (record.object() for record in records),
            now=self._clock(),
            include_object=self._include,
            headers=headers,
            api_version=f"meta.k8s.io/{self._media.version}",
        )
        made["metadata"] = meta
        return made

    # watches

    def lines(self, steps: Sequence[Step]) -> bytes:
        """The steps as newline-delimited watch events."""
        return b"".join([self._line(step) for step in steps])

    def _line(self, step: Step) -> bytes:
        if isinstance(step, Bookmark):
            return self._bookmark(step)
        if self._media is PLAIN:
            return step.line or _remember(step, b'{"type":"%s","object":%s}\n' % (step.type.encode(), step.record.data))
        record = step.record
        if self._media.shape != "Table":
            return _event(step.type, _partial(record))
        headers, self._headed = not self._headed, True
        return _event(step.type, self._table([record], {"resourceVersion": str(record.revision)}, headers=headers))

    def _bookmark(self, mark: Bookmark) -> bytes:
        meta: dict[str, Any] = {"resourceVersion": str(mark.revision), "creationTimestamp": None}
        if mark.initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj: Object = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": meta}
        match self._media.shape:
            case "Table":
                # A bookmark's Table has no columns to print; its one row carries the revision.
                row = {"cells": [], "object": {**obj, "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}}
                obj = {
                    "kind": "Table",
                    "apiVersion": f"meta.k8s.io/{self._media.version}",
                    "metadata": {"resourceVersion": str(mark.revision)},
                    "columnDefinitions": None,
                    "rows": [row],
                }
            case "PartialObjectMetadata" | "PartialObjectMetadataList":
                obj = {**obj, "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        return _event("BOOKMARK", obj)


def _remember(change: Event, line: bytes) -> bytes:
    """Keep the line for the other watchers of this change, until enough newer ones are kept."""
    if len(_lines) == _lines.maxlen:
        _lines[0].line = None
    _lines.append(change)
    change.line = line
    return line


def _include(text: str) -> IncludeObject:
    if text in ("", "Metadata"):
        return "Metadata"
    if text == "None":
        return "None"
    if text == "Object":
        return "Object"
    raise BadRequest(f"includeObject: {text!r} is not one of None, Metadata, Object")


def _event(kind: str, obj: Object) -> bytes:
    return orjson.dumps({"type": kind, "object": obj}) + b"\n"


def _partial(record: Item) -> Object:
    return partial_metadata(record.object())
