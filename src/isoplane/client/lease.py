"""Leader election by a Lease: of several processes, at most one acts at a time.

Source of the behaviour: client-go's leaderelection.  A holder that cannot renew gives up *before* others may take over,
judged by its own clock only; clocks of different machines are never compared.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from isoplane.client.api import Api
from isoplane.objects.errors import AlreadyExists, ApiError, Conflict, NotFound
from isoplane.objects.kinds import LEASES
from isoplane.objects.metadata import Object, rfc3339

_log = logging.getLogger(__name__)


class LeaseLock:
    """One candidate. ``holding`` says whether it may act now; all durations are seconds."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not retry < renew_deadline < duration:
            raise ValueError("retry < renew_deadline < duration must hold, or two candidates could act at once")
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration = duration
        self._renew_deadline = renew_deadline
        self.retry = retry
        self._clock = clock
        self._monotonic = monotonic
        self.transitions = 0
        """How often the lease had changed hands when it was acquired: grows with every new holder."""
        self._renewed = -1e18
        self._seen: tuple[Any, Any] = (None, None)
        self._seen_at = -1e18

    @property
    def holding(self) -> bool:
        return self._monotonic() - self._renewed < self._renew_deadline

    async def attempt(self) -> bool:
        """Acquire or renew once. Returns ``holding`` afterwards; errors only mean that this attempt failed."""
        began = self._monotonic()
        try:
            if await self._write():
                # From the start of the attempt: the server may have written at any moment since.
                self._renewed = began
        except ApiError as error:
            _log.debug("lease %s/%s: %s", self._namespace, self._name, error)
        return self.holding

    async def _write(self) -> bool:
        now = rfc3339(self._clock(), micro=True)
        spec = {"holderIdentity": self._identity, "leaseDurationSeconds": int(self._duration), "renewTime": now}
        try:
            lease = await self._api.get(LEASES, self._name, self._namespace)
        except NotFound:
            fresh: Object = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": {**spec, "acquireTime": now, "leaseTransitions": 0},
            }
            try:
                await self._api.create(LEASES, fresh, namespace=self._namespace)
            except AlreadyExists:
                return False
            self.transitions = 0
            return True
        old = lease.get("spec") or {}
        holder = old.get("holderIdentity") or ""
        state = (holder, old.get("renewTime"))
        if state != self._seen:
            self._seen, self._seen_at = state, self._monotonic()
        lasts = float(old.get("leaseDurationSeconds") or self._duration)
        if holder not in ("", self._identity) and self._monotonic() - self._seen_at < lasts:
            return False
        if holder != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": int(old.get("leaseTransitions") or 0) + 1}
        lease["spec"] = {**old, **spec}
        try:
            await self._api.update(LEASES, lease)
        except Conflict:
            return False
        self.transitions = int(lease["spec"].get("leaseTransitions") or 0)
        return True

    async def release(self) -> None:
        """Give the lease up, so that the next candidate need not wait for its end."""
        if not self.holding:
            return
        self._renewed = -1e18
        try:
            lease = await self._api.get(LEASES, self._name, self._namespace)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"] = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.update(LEASES, lease)
        except ApiError as error:
            _log.debug("lease %s/%s was not released: %s", self._namespace, self._name, error)

    async def run(self, acquired: Callable[[], None], lost: Callable[[], None]) -> None:
        """Campaign until cancelled: ``acquired`` and ``lost`` are called at each change of ``holding``."""
        was = False
        try:
            while True:
                holds = await self.attempt()
                if holds != was:
                    (acquired if holds else lost)()
                    was = holds
                await asyncio.sleep(self.retry)
        finally:
            if was:
                lost()
            await self.release()
