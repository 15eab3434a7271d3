"""The operator's main loop: campaign for the lease, take the ledgers over, then decide domain by domain.

Its place: ``isoplane operator run`` starts one; several may run, and one leads.  Left to others: what a batch is
(:mod:`domain`), what is installed in the cluster (:mod:`install`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from isoplane.client.http import HttpApi
from isoplane.client.informer import Informer, Informers
from isoplane.client.lease import LeaseLock
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Conflict
from isoplane.operator import ledger as book
from isoplane.operator.acts import Acts
from isoplane.operator.cluster import Cluster
from isoplane.operator.domain import Domain
from isoplane.operator.domains import Domains
from isoplane.operator.ledger import Deposed, Ledger
from isoplane.operator.names import NAMESPACE
from isoplane.operator.shelf import Shelf

_log = logging.getLogger(__name__)
LEASE = "isoplane-operator"
IDLE_SECONDS = 1.0
"""Between two looks at what only time changes: reservations that end, admissions that did not arrive."""
BATCH_SECONDS = 0.02
"""Waited for more changes before a batch, so that many admissions share one write."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The lease's durations, in seconds, as client-go names them."""

    duration: float = 10.0
    renew_deadline: float = 7.0
    retry: float = 1.0
    request: float = 10.0
    """After which a write is given up, by the server too."""


class Operator:
    """One candidate. :meth:`run` until cancelled."""

    def __init__(
        self, api: HttpApi, identity: str, *, terms: Terms = Terms(), clock: Callable[[], float] = time.time
    ) -> None:
        self._api = api
        self._identity = identity
        self._clock = clock
        self._lease = LeaseLock(
            api, NAMESPACE, LEASE, identity,
            duration=terms.duration, renew_deadline=terms.renew_deadline, retry=terms.retry,
        )  # fmt: skip
        self._leading: asyncio.Task[None] | None = None
        self.informers = Informers(api)
        self.cluster = Cluster(self.informers)
        self._domains: Domains | None = None
        self._terms = terms
        self._wake = asyncio.Event()
        self._synced = asyncio.Event()

    async def synced(self) -> None:
        """Wait until the caches are full."""
        await self._synced.wait()

    async def run(self) -> None:
        """Keep the caches, campaign and, while the lease is held, lead."""
        try:
            await self.informers.start()
            self._synced.set()
            self._listen(self.cluster)
            await self._lease.run(self._start, self._stop)
        finally:
            self._stop()
            await self.informers.stop()

    def _start(self) -> None:
        self._leading = asyncio.create_task(self._lead_again())

    def _stop(self) -> None:
        if self._leading is not None:
            self._leading.cancel()
            self._leading = None

    async def _lead_again(self) -> None:
        while True:
            try:
                await self._lead()
            except Deposed as error:
                _log.warning("%s: this operator stops deciding", error)
                return
            except (ApiError, OSError, ValueError) as error:
                _log.warning("leading begins anew: %s", error)
            except Exception:
                _log.exception("leading begins anew")
            await asyncio.sleep(0.5)

    async def _lead(self) -> None:
        """One term: first the epoch in every ledger, then the caches, then decisions."""
        shelf = Shelf(self._api)
        found = await shelf.all()
        # The lease counts its holders; one that was deleted counts from the beginning, and the ledgers remember.
        epoch = max([self._lease.transitions + 1, *(one.epoch + (one.leader != self._identity) for one in found)])
        ledgers = [await self._take_over(shelf, ledger, epoch) for ledger in found]
        acts = Acts(self._api, self._clock)
        patience = self._terms.duration + self._terms.request
        try:
            await self.informers.refresh()
            domains = Domains(ledgers, self.cluster, shelf, acts, self._clock, epoch, self._identity, patience)
            self._domains = domains
            while True:
                if self._lease.holding:
                    await domains.arrange()
                for domain in domains:
                    if self._lease.holding:
                        await self._decide(domains, domain)
                await self._pause(domains)
        finally:
            self._domains = None
            with suppress(asyncio.CancelledError):
                await acts.close()

    def place(self, namespace: str, uid: str) -> int:
        """Where a waiting workload stands in its namespace's queue, from 1 on; 0: in none, or another operator leads."""
        domain = self._domain_of(namespace)
        return domain.place(namespace, uid) if domain is not None else 0

    async def _take_over(self, shelf: Shelf, found: Ledger, epoch: int) -> Ledger:
        while True:
            try:
                return await shelf.swap(book.take_over(found, epoch, self._identity))
            except Conflict:
                found = await shelf.read(found.name)

    async def _decide(self, domains: Domains, domain: Domain) -> None:
        try:
            if domain.due:
                await domain.batch(domains.epoch, domains.leader)
            await domain.again()
        except ApiError as error:
            _log.log(
                logging.INFO if isinstance(error, Conflict) else logging.WARNING,
                "ledger %s: %s",
                domain.ledger.name,
                error,
            )
            await domains.reread(domain)

    async def _pause(self, domains: Domains) -> None:
        if not any(domain.due for domain in domains):
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._wake.wait()
        await asyncio.sleep(BATCH_SECONDS)

    # what is heard

    def _listen(self, cluster: Cluster) -> None:
        def pod(key: str, old: Any, new: Any) -> None:
            if (domain := self._domain_of(key.partition("/")[0])) is not None:
                domain.pod_changed(key)
                self._wake.set()

        def configured(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            if (domain := self._domain_of(key.partition("/")[0])) is not None and _differs(old, new):
                domain.configured(key.partition("/")[0])
                self._wake.set()

        def capacity(key: str, old: Any, new: Any) -> None:
            for domain in self._domains or ():
                domain.capacity_changed()
            self._wake.set()

        def namespace(key: str, old: Any, new: Any) -> None:
            self._wake.set()

        cluster.pods.on_change(pod)
        cluster.namespaces.on_change(namespace)
        informers: tuple[Informer, ...] = (cluster.quotas, cluster.policies)
        for informer in informers:
            informer.on_change(configured)
        for informer in (cluster.cohorts, cluster.nodes):
            informer.on_change(capacity)

    def _domain_of(self, namespace: str) -> Domain | None:
        return self._domains.of(namespace) if self._domains is not None else None


def _differs(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """Whether what somebody asked for changed, and not merely our own word in the status."""
    if old is None or new is None:
        return True
    return old.get("spec") != new.get("spec") or metadata.uid(old) != metadata.uid(new)
