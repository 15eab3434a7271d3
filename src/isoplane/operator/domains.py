"""All domains of one leader: which namespace is decided in which ledger, and how it comes from one into another.

A namespace is closed in one ledger before it is opened in another; after a crash between, the next leader goes on.
A namespace that comes under quota gets a ledger of its own first, and moves into its cohort's from there: creating that one
object is what two operators cannot both do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

from isoplane.objects.errors import ApiError, Conflict, NotFound
from isoplane.operator import ledger as book
from isoplane.operator.acts import Acts
from isoplane.operator.cluster import OWN, Cluster
from isoplane.operator.domain import Domain
from isoplane.operator.ledger import Ledger
from isoplane.operator.shelf import Shelf

_log = logging.getLogger(__name__)


class Domains:
    """The domains of one term. ``epoch`` and ``leader`` are what every ledger bears by now."""

    def __init__(
        self,
        ledgers: Iterable[Ledger],
        cluster: Cluster,
        shelf: Shelf,
        acts: Acts,
        clock: Callable[[], float],
        epoch: int,
        leader: str,
        patience: float,
    ) -> None:
        """``patience``: seconds after which no request of a former leader can be under way any more."""
        self._cluster, self._shelf, self._acts, self._clock = cluster, shelf, acts, clock
        self.epoch, self.leader = epoch, leader
        found = list(ledgers)
        self._all = {ledger.name: self._domain(ledger) for ledger in found}
        self._patience = patience
        began = clock()
        # A ledger that is not there may have been lost, unless there never was one or its namespace comes only now.
        self._missing = dict.fromkeys(cluster.managed(), began) if found or epoch > 1 else {}

    def __iter__(self) -> Iterator[Domain]:
        return iter(list(self._all.values()))

    def of(self, namespace: str) -> Domain | None:
        """The domain that decides a namespace; None: none does at the moment."""
        return next((domain for domain in self._all.values() if namespace in domain.ledger.namespaces), None)

    async def arrange(self) -> None:
        """Bring every namespace to where it belongs. What fails is tried again by the next call."""
        managed = dict.fromkeys(name for name in self._cluster.managed() if not self._cluster.is_closing(name))
        await self._let_go(managed)
        await self._open_new(managed)
        for domain in self:
            for namespace in list(domain.ledger.namespaces):
                to = self._cluster.domain_of(namespace)
                if namespace in managed and to != domain.ledger.name:
                    await self._try(domain, domain.close(namespace, to))
        for domain in self:
            for move in list(domain.ledger.moves.values()):
                target = await self._existing(move.to)
                if await self._try(target, target.open(move)):
                    await self._try(domain, domain.arrived(move))

    async def reread(self, domain: Domain) -> None:
        """Read a ledger again after a write that failed. One that is gone is made again after a while. Raises ApiError."""
        try:
            await domain.refresh()
        except NotFound:
            self._lost(domain)

    def _lost(self, domain: Domain) -> None:
        _log.warning("QuotaLedger %s was deleted: it is made again in %.0f s", domain.ledger.name, self._patience)
        del self._all[domain.ledger.name]
        for namespace in domain.ledger.namespaces:
            self._missing[namespace] = self._clock()

    async def _open_new(self, managed: Iterable[str]) -> None:
        known = {name for domain in self for name in (*domain.ledger.namespaces, *domain.ledger.moves)}
        for namespace in managed:
            if namespace in known or self._clock() - self._missing.get(namespace, 0) < self._patience:
                continue
            home = self._all.get(f"{OWN}{namespace}")
            if home is not None:
                # Its cohort's ledger was lost while it was decided there: its own knows nothing of it any more.
                ledger = book.reopened(home.ledger, namespace)
                if not await self._try(home, home.store(ledger)):
                    continue
            else:
                fresh = Ledger(f"{OWN}{namespace}", epoch=self.epoch, leader=self.leader)
                stored = await self._shelf.swap(book.first_open(fresh, namespace))
                self._all[stored.name] = self._domain(stored)
            self._missing.pop(namespace, None)
            self._all[f"{OWN}{namespace}"].configured(namespace)

    async def _let_go(self, managed: Collection[str]) -> None:
        """Namespaces that are no longer under quota: who waits there is released, then nobody decides about them."""
        for domain in self:
            for namespace in list(domain.ledger.namespaces):
                if namespace in managed:
                    continue
                if not self._cluster.is_closing(namespace):
                    await self._acts.release_all(self._cluster, namespace)
                await self._try(domain, domain.drop(namespace))
            ledger = domain.ledger
            if ledger.name.startswith(OWN) and not (ledger.namespaces or ledger.moves):
                namespace = ledger.name.removeprefix(OWN)
                if namespace not in managed and self.of(namespace) is None:
                    await self._shelf.remove(ledger)
                    del self._all[ledger.name]

    async def _existing(self, name: str) -> Domain:
        """The domain of a ledger, which is made if need be."""
        if name not in self._all:
            try:
                stored = await self._shelf.swap(Ledger(name, epoch=self.epoch, leader=self.leader))
            except Conflict:
                stored = await self._shelf.swap(book.take_over(await self._shelf.read(name), self.epoch, self.leader))
            self._all[name] = self._domain(stored)
        return self._all[name]

    async def _try(self, domain: Domain, step: Awaitable[None]) -> bool:
        """Whether a change of a ledger was stored; where it was not, the ledger is read again."""
        try:
            await step
        except ApiError as error:
            _log.info("ledger %s: %s", domain.ledger.name, error)
            await self.reread(domain)
            return False
        return True

    def _domain(self, ledger: Ledger) -> Domain:
        return Domain(ledger, self._cluster, self._shelf, self._acts, self._clock)
