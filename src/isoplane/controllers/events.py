"""Events: telling people what happened to an object, once, with a count when it happens again.

A :class:`Recorder` takes what controllers and the node say without making them wait, and writes it in the background.  It
never fails its caller: an event that cannot be written is dropped, counted and logged.
Source of the behaviour: client-go's event correlator (one object a distinct message; a budget for each involved object).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.client.api import Api
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, NotFound
from isoplane.objects.event import event_of, shortened
from isoplane.objects.kinds import EVENTS
from isoplane.objects.metadata import Object

_log = logging.getLogger(__name__)

Events = Callable[[Mapping[str, Any], str, str, str], None]
"""(the object, Normal or Warning, a CamelCase reason, a sentence)."""

SAME_WITHIN = 600.0
"""Seconds in which an equal event counts up instead of becoming another object."""
REMEMBERED = 4096
QUEUED = 20_000
BURST = 25
"""Distinct events that one object may have at once; afterwards one in REFILL seconds."""
REFILL = 300.0
AT_ONCE = 32
"""Writes under way at a time: they share the store's commits."""
CALM_BURST = 1000
CALM_RATE = 50.0
"""Normal events of all objects together: so many at once, then so many a second; thousands of starts are no news.
Warnings are never held back by this."""

Fingerprint = tuple[str, str, str, str, str, str]


@dataclass(slots=True)
class _Known:
    name: str
    namespace: str
    count: int
    last: float
    written: bool = False
    dirty: bool = False


class Recorder:
    """Writes Events as ``component``. ``clock`` in POSIX seconds. Belongs to one event loop."""

    def __init__(self, api: Api, component: str, *, instance: str = "", clock: Callable[[], float] = time.time) -> None:
        self._api = api
        self._component = component
        self._instance = instance
        self._clock = clock
        self._known: OrderedDict[Fingerprint, _Known] = OrderedDict()
        self._budget: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._calm = (float(CALM_BURST), clock())
        self._queue: deque[tuple[Fingerprint, Object]] = deque()
        self._more = asyncio.Event()
        self._serial = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self._writing = 0
        self.dropped = 0

    def __call__(self, obj: Mapping[str, Any], type_: str, reason: str, message: str, field_path: str = "") -> None:
        """Tell that something happened to ``obj``, or to the part of it at ``field_path``. Returns at once."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write(), name=f"events-{self._component}")
        now = self._clock()
        fingerprint = (metadata.uid(obj), metadata.key(obj), field_path, type_, reason, shortened(message))
        known = self._known.get(fingerprint)
        if known is not None and now - known.last < SAME_WITHIN:
            known.count += 1
            known.last = now
            self._known.move_to_end(fingerprint)
            if known.written and not known.dirty:
                known.dirty = True
                self._put(fingerprint, {})
            return
        affordable = self._affordable(metadata.uid(obj) or metadata.key(obj), now)
        if not affordable or (type_ == "Normal" and not self._is_calm(now)) or len(self._queue) >= QUEUED:
            self.dropped += 1
            return
        event = event_of(
            obj, type_, reason, message, now=now, suffix=f"{int(now * 1e6):x}{next(self._serial) % 4096:03x}",
            component=self._component, host=self._instance, field_path=field_path,
        )  # fmt: skip
        self._known[fingerprint] = _Known(metadata.name(event), metadata.namespace(event), 1, now)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        self._put(fingerprint, event)

    def _affordable(self, key: str, now: float) -> bool:
        """A token bucket per object, so that one crash loop cannot fill the store."""
        tokens, at = self._budget.pop(key, (float(BURST), now))
        tokens = min(float(BURST), tokens + max(0.0, now - at) / REFILL)
        self._budget[key] = (max(tokens - 1, 0.0), now)
        if len(self._budget) > REMEMBERED:
            self._budget.popitem(last=False)
        return tokens >= 1

    def _is_calm(self, now: float) -> bool:
        tokens = min(float(CALM_BURST), self._calm[0] + max(0.0, now - self._calm[1]) * CALM_RATE)
        self._calm = (max(tokens - 1, 0.0), now)
        return tokens >= 1

    def _put(self, fingerprint: Fingerprint, event: Object) -> None:
        self._queue.append((fingerprint, event))
        self._more.set()

    async def _write(self) -> None:
        while True:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(AT_ONCE, len(self._queue)))]
                self._writing = len(batch)
                await asyncio.gather(*(self._one(fingerprint, event) for fingerprint, event in batch))
                self._writing = 0
            self._more.clear()
            await self._more.wait()

    async def _one(self, fingerprint: Fingerprint, event: Object) -> None:
        known = self._known.get(fingerprint)
        try:
            if event:
                if known is not None:
                    event["count"], known.written = known.count, True
                await self._api.create(EVENTS, event, namespace=event["metadata"]["namespace"])
            elif known is not None:
                known.dirty = False
                patch = {"count": known.count, "lastTimestamp": metadata.rfc3339(known.last)}
                await self._api.patch(EVENTS, known.name, known.namespace, patch, kind="merge")
        except NotFound:
            # The namespace, or the counted event, is gone: say it anew the next time.
            self._known.pop(fingerprint, None)
        except (ApiError, OSError) as error:
            self.dropped += 1
            self._known.pop(fingerprint, None)
            _log.debug("an event of %s was not written: %s", fingerprint[1], error)

    async def flush(self) -> None:
        """Wait until everything said so far is written or dropped."""
        while self._queue or self._writing:
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        """Stop writing; what is still queued is dropped."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
