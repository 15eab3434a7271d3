"""Events grow old: what happened more than an hour ago is removed, so that telling never fills the store.

Source: kube-apiserver's ``--event-ttl``, one hour.  Reads pages rather than keeping every Event in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.objects import metadata
from isoplane.objects.errors import Conflict, NotFound
from isoplane.objects.kinds import EVENTS
from isoplane.objects.metadata import Object

TTL_SECONDS = 3600.0
SWEEP_SECONDS = 300.0
MOST = 25_000
"""How many Events are kept at all; beyond that the oldest go before their time."""
PAGE = 500
AT_ONCE = 64
SWEEP = "sweep"


def last_seen(event: Mapping[str, Any]) -> float:
    """POSIX seconds at which an Event happened last; 0 when it does not say."""
    series = event.get("series") or {}
    stamps = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    created = (event.get("metadata") or {}).get("creationTimestamp")
    for stamp in (*stamps, created):
        try:
            moment = metadata.posix(stamp)
        except (ValueError, TypeError, AttributeError):
            continue
        if moment is not None:
            return moment
    return 0.0


class EventExpiry(Controller):
    """One key, looked at every few minutes."""

    name = "eventexpiry"

    def __init__(self, api: Api, *, clock: Callable[[], float] = time.time, most: int = MOST) -> None:
        super().__init__(workers=1)
        self._api = api
        self._clock = clock
        self._most = most

    async def started(self) -> None:
        self.enqueue(SWEEP)

    async def reconcile(self, key: str) -> float | None:
        oldest = self._clock() - TTL_SECONDS
        kept: list[tuple[float, str, str, str]] = []
        page = await self._api.list(EVENTS, limit=PAGE)
        while True:
            await self._delete([_identity(event) for event in page.items if last_seen(event) < oldest])
            kept += [(seen, *_identity(event)) for event in page.items if (seen := last_seen(event)) >= oldest]
            if not page.continue_token:
                break
            page = await self._api.list(EVENTS, limit=PAGE, continue_token=page.continue_token)
        if len(kept) > self._most:
            kept.sort()
            await self._delete([identity[1:] for identity in kept[: len(kept) - self._most]])
        return SWEEP_SECONDS

    async def _delete(self, identities: list[tuple[str, str, str]]) -> None:
        for start in range(0, len(identities), AT_ONCE):
            await asyncio.gather(*(self._one(*identity) for identity in identities[start : start + AT_ONCE]))

    async def _one(self, namespace: str, name: str, uid: str) -> None:
        try:
            await self._api.delete(EVENTS, name, namespace, uid=uid)
        except (NotFound, Conflict):
            return


def _identity(event: Object) -> tuple[str, str, str]:
    return metadata.namespace(event), metadata.name(event), metadata.uid(event)
