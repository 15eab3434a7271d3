"""Events about objects, told once: a repetition counts up the Event that is there already.

Source of the behaviour: client-go's EventRecorder and its correlator.  Recording never fails the caller: an Event that
cannot be written is logged and dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.client.api import Api
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, NotFound
from isoplane.objects.kinds import EVENTS
from isoplane.objects.metadata import Object, rfc3339

_log = logging.getLogger(__name__)
_REMEMBERED = 4096
_WINDOW_SECONDS = 600.0
"""A repetition after this long is a new Event."""
_MESSAGE_BYTES = 1024


@dataclass(slots=True)
class _Told:
    name: str
    namespace: str
    count: int
    first: float
    last: float


class Recorder:
    """``component`` names who tells; ``clock`` gives POSIX seconds."""

    def __init__(self, api: Api, component: str, host: str = "", clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._component = component
        self._host = host
        self._clock = clock
        self._told: OrderedDict[tuple[str, ...], _Told] = OrderedDict()
        self._locks: dict[tuple[str, ...], asyncio.Lock] = {}

    async def event(self, obj: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        """Tell of ``obj``; ``kind`` is Normal or Warning, ``reason`` a CamelCase word for programs."""
        key = (metadata.uid(obj) or metadata.key(obj), str(obj.get("kind")), kind, reason, message)
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                await self._tell(key, obj, kind, reason, message)
        except ApiError as error:
            _log.warning("the event %s %s of %s could not be written: %s", kind, reason, metadata.key(obj), error)
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    async def _tell(self, key: tuple[str, ...], obj: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        now = self._clock()
        told = self._told.get(key)
        if told is not None and now - told.last <= _WINDOW_SECONDS:
            told.count += 1
            told.last = now
            self._told.move_to_end(key)
            patch = {"count": told.count, "lastTimestamp": rfc3339(now)}
            try:
                await self._api.patch(EVENTS, told.name, told.namespace, patch)
                return
            except NotFound:
                del self._told[key]  # It has expired; tell it anew.
        event = self._event(key, obj, kind, reason, message, now)
        made = event["metadata"]
        await self._api.create(EVENTS, event, namespace=made["namespace"])
        self._told[key] = _Told(made["name"], made["namespace"], 1, now, now)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def _event(
        self, key: tuple[str, ...], obj: Mapping[str, Any], kind: str, reason: str, message: str, now: float
    ) -> Object:
        namespace = metadata.namespace(obj) or "default"
        digest = hashlib.sha256("\0".join((*key, repr(now))).encode()).hexdigest()[:16]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata.name(obj)}.{digest}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": str(obj.get("apiVersion") or ""),
                "kind": str(obj.get("kind") or ""),
                "name": metadata.name(obj),
                "namespace": metadata.namespace(obj),
                "uid": metadata.uid(obj),
                "resourceVersion": str((obj.get("metadata") or {}).get("resourceVersion") or ""),
            },
            "type": kind,
            "reason": reason,
            "message": message.encode()[:_MESSAGE_BYTES].decode("utf-8", "ignore"),
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": rfc3339(now),
            "lastTimestamp": rfc3339(now),
            "count": 1,
        }
