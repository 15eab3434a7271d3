"""One capacity domain: its books, its ledger, and the batch that decides. One batch at a time; the leader runs it.

    changes of the caches ─► events ─► Engine over the books ─► plan ─► compare-and-swap of the ledger ─► acts
                                          (undone where the swap fails)

Chooses nothing: who is admitted, preempted, or waits is the engine's.  The acts are :mod:`acts`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Set

from isoplane.objects import metadata
from isoplane.objects.errors import Conflict, NotFound
from isoplane.objects.metadata import Object
from isoplane.objects.phase import has_ended
from isoplane.operator import ledger as book
from isoplane.operator.acts import Acts
from isoplane.operator.books import ClusterBooks
from isoplane.operator.cluster import (
    BY_NAMESPACE,
    Cluster,
    demand_of,
    grace_of,
    is_gated,
    version_of,
)
from isoplane.operator.ledger import InFlight, Ledger, Move, Reservation
from isoplane.operator.plan import Plan, ended, landed, plan_of
from isoplane.operator.shelf import Shelf
from isoplane.quota import events
from isoplane.quota.census import Observed
from isoplane.quota.charge import charge_of
from isoplane.quota.effects import Effect, Refuse
from isoplane.quota.engine import Engine
from isoplane.quota.model import NEVER, Charge, Waiting
from isoplane.workload.accounting import Accounting
from isoplane.workload.shape import Claim, Stage

_log = logging.getLogger(__name__)


class Domain:
    """Books and ledger of one domain. ``ledger`` is as stored; ``lead`` before the first :meth:`batch`."""

    def __init__(self, ledger: Ledger, cluster: Cluster, shelf: Shelf, acts: Acts, clock: Callable[[], float]) -> None:
        self.ledger = ledger
        self.books = ClusterBooks(cluster)
        self._cluster = cluster
        self._shelf = shelf
        self._acts = acts
        self._clock = clock
        self._changed: dict[str, None] = {}
        """Keys of Pods to look at."""
        self._uids: dict[str, str] = {}
        """Key of a Pod in the books → its uid."""
        self._seen: dict[str, int] = {}
        """uid → the version that the books know."""
        self._reconfigure: dict[str, None] = dict.fromkeys(ledger.namespaces)
        self._cohorts = True

    # what the engine asks

    def grace(self, charge: Charge) -> int | None:
        pod = self._pod(charge)
        return None if pod is None else grace_of(pod)

    def workloads(self, tenant: str, accounting: Accounting) -> Iterator[Observed]:
        for pod in self._cluster.pods.find(BY_NAMESPACE, tenant):
            uid = metadata.uid(pod)
            if is_gated(pod) and uid not in self.ledger.in_flight and uid not in self.ledger.reservations:
                continue  # asks for the first time, by an event of its own
            self._remember(pod)
            demand = demand_of(pod, accounting)
            yield Observed(demand, _created(pod), _began(pod), uid in self.ledger.in_flight, self._place(demand, pod))

    def counts(self, tenant: str, names: Set[str]) -> Mapping[str, int]:
        return {}  # object counts stay with ResourceQuota

    def closing(self, tenant: str) -> bool:
        return self._cluster.is_closing(tenant)

    def _place(self, demand: Claim, pod: Object) -> Waiting | None:
        """The reservation that a former leader left for a Pod."""
        kept = self.ledger.reservations.get(metadata.uid(pod))
        if kept is None:
            return None
        charge = charge_of(demand, created=_created(pod), since=_created(pod))
        return Waiting(
            charge, held=True, victims=tuple(v.id for v in kept.victims), since=kept.since, expires=kept.expires,
            plans=kept.plans, preempts=demand.preemption_policy != NEVER,
        )  # fmt: skip

    def _pod(self, charge: Charge) -> Object | None:
        namespace, _, name = charge.id.partition("/")[2].partition("/")
        pod = self._cluster.pods.get(namespace, name)
        return pod if pod is not None and metadata.uid(pod) == charge.uid else None

    # what is heard

    def pod_changed(self, key: str) -> None:
        self._changed[key] = None

    def configured(self, tenant: str) -> None:
        """A TenantQuota, a policy or a budget of a namespace changed."""
        self._reconfigure[tenant] = None

    def capacity_changed(self) -> None:
        """A Cohort or a Node changed."""
        self._cohorts = True

    def place(self, namespace: str, uid: str) -> int:
        """Where a waiting workload stands in its namespace's queue, from 1 on; 0: in none."""
        return self.books.line(namespace).place(uid)

    @property
    def due(self) -> bool:
        """Whether there is something to look at."""
        return bool(self._changed or self._reconfigure or self._cohorts)

    # a batch

    async def batch(self, epoch: int, leader: str) -> bool:
        """Decide about all that changed. Returns False where the cache must catch up first. Raises Deposed, ApiError."""
        if not book.may_decide(self.ledger, epoch, leader, self._cluster.pods.revision):
            return False
        changed, reconfigure, cohorts = self._changed, self._reconfigure, self._cohorts
        self._changed, self._reconfigure, self._cohorts = {}, {}, False
        seen, uids = dict(self._seen), dict(self._uids)
        try:
            with self.books.attempt():
                plan = self._decide(changed, reconfigure, cohorts)
                if plan.ledger != self.ledger:
                    self.ledger = await self._shelf.swap(plan.ledger)
        except BaseException:
            self._seen, self._uids = seen, uids
            self._changed, self._reconfigure = {**changed, **self._changed}, {**reconfigure, **self._reconfigure}
            self._cohorts = cohorts or self._cohorts
            raise
        await self._carry_out(plan)
        return True

    async def refresh(self) -> None:
        """Read the ledger again after a swap that failed."""
        self.ledger = await self._shelf.read(self.ledger.name)

    def _decide(self, changed: Iterable[str], reconfigure: Iterable[str], cohorts: bool) -> Plan:
        ledger = self._landed()
        for tenant in reconfigure:
            if tenant in ledger.namespaces:
                others = [limit for limit in ledger.limits if limit.namespace != tenant]
                ledger = book.set_limits(ledger, [*others, *self._cluster.wanted_limits(tenant)])
        self.books.renew()
        engine = Engine(self.books, self, self._clock())
        wanted: list[Effect] = []
        for tenant in reconfigure:
            if tenant in ledger.namespaces:
                limits = self._cluster.limits(tenant, ledger.hard(tenant))
                wanted += engine.handle(events.LimitsChanged(tenant, limits))
        if cohorts:
            names = {self.books.policy(tenant).cohort for tenant in ledger.namespaces} - {""}
            members = ledger.namespaces
            found = [c for name in sorted(names) if (c := self._cluster.cohort(name, members)) is not None]
            wanted += engine.handle(events.CohortsChanged(tuple(found)))
        keys = {**dict.fromkeys(changed), **dict.fromkeys(self._unasked(reconfigure))}
        for key in sorted(keys, key=self._age):
            wanted += self._follow(engine, key)
        for tenant in ledger.namespaces:
            if next(iter(self.books.line(tenant).held()), None) is not None:
                wanted += engine.handle(events.TimePassed(tenant))
        for tenant in engine.waking():
            wanted += engine.wake(tenant)
        wanted += engine.finish()
        return plan_of(wanted, ledger, self.books, self._pod)

    def _unasked(self, reconfigured: Iterable[str]) -> Iterator[str]:
        """Those that wait and were never asked about, or were refused, in namespaces whose limits are new."""
        for tenant in reconfigured:
            for pod in self._cluster.pods.find(BY_NAMESPACE, tenant):
                if metadata.uid(pod) not in self._seen:
                    yield metadata.key(pod)

    def _age(self, key: str) -> tuple[int, float, str]:
        """The order in which Pods are looked at: who leaves first, then by priority and age."""
        pod = self._cluster.pods.by_key(key)
        if pod is None:
            return (-(1 << 40), 0.0, key)
        return (-int((pod.get("spec") or {}).get("priority") or 0), _created(pod), key)

    def _landed(self) -> Ledger:
        pods: dict[str, Object] = {}
        for uid, entry in self.ledger.in_flight.items():
            pod = self._cluster.pods.get(entry.namespace, entry.name)
            if pod is not None and metadata.uid(pod) == uid:
                pods[uid] = pod
        return book.landed(self.ledger, landed(self.ledger, pods, self._cluster.pods.revision, is_gated))

    def _follow(self, engine: Engine, key: str) -> list[Effect]:
        """One Pod, as it is now, against what the books know of it."""
        pod, uid = self._cluster.pods.by_key(key), self._uids.get(key)
        tenant = key.partition("/")[0]
        found: list[Effect] = []
        if uid is not None and (pod is None or metadata.uid(pod) != uid):
            found += engine.handle(events.Removed(tenant, uid))
            self._forget(key, uid)
        if pod is None or tenant not in self.ledger.namespaces:
            return found
        uid, accounting = metadata.uid(pod), engine.accounting(tenant)
        if self._seen.get(uid) == version_of(pod):
            return found
        demand = demand_of(pod, accounting)
        known = self.books.charge(tenant, uid), self.books.waiter(tenant, uid)
        self._remember(pod)
        if known == (None, None):
            return found + self._first_seen(engine, pod, demand)
        if metadata.is_deleting(pod) and not (known[0] is not None and known[0].evicting):
            return found + engine.handle(events.Terminating(tenant, uid))
        if known[1] is not None and not is_gated(pod):
            self.books.leave(known[1])
            return found + self._first_seen(engine, pod, demand)
        began = demand.stage is Stage.RUNNING and known[0] is not None and known[0].since < (_began(pod) or 0)
        return found + engine.handle(events.Changed(demand, began=began))

    def _first_seen(self, engine: Engine, pod: Object, demand: Claim) -> list[Effect]:
        uid = demand.uid
        if has_ended(pod) or (metadata.is_deleting(pod) and is_gated(pod)):
            return []
        if is_gated(pod) and uid not in self.ledger.in_flight:
            asked = engine.handle(events.Requested(demand, queues=True, created=_created(pod)))
            if refused := next((effect for effect in asked if isinstance(effect, Refuse)), None):
                self._acts.waits(pod, refused.message)
                self._seen.pop(uid, None)
            return asked
        since = _began(pod) or _created(pod)
        self.books.add(charge_of(demand, created=_created(pod), since=since))
        return []

    def _remember(self, pod: Object) -> None:
        self._uids[metadata.key(pod)] = metadata.uid(pod)
        self._seen[metadata.uid(pod)] = version_of(pod)

    def _forget(self, key: str, uid: str) -> None:
        self._uids.pop(key, None)
        self._seen.pop(uid, None)

    # which namespaces are decided here

    async def close(self, namespace: str, to: str) -> None:
        """Decide a namespace here no longer: it is on its way to the ledger ``to``. Raises Conflict, ApiError."""
        self.ledger = await self._shelf.swap(book.close(self.ledger, namespace, to))
        self._gone(namespace)

    async def open(self, move: Move) -> None:
        """Decide a namespace here from now on. Raises Conflict, ApiError."""
        opened = book.open_moved(self.ledger, move)
        if opened is not self.ledger:
            self.ledger = await self._shelf.swap(opened)
        self._reconfigure[move.namespace] = None
        self._cohorts = True

    async def arrived(self, move: Move) -> None:
        """Forget a move that the other ledger has taken in. Raises Conflict, ApiError."""
        self.ledger = await self._shelf.swap(book.moved(self.ledger, move))

    async def drop(self, namespace: str) -> None:
        """Forget a namespace that is under quota no longer. Raises Conflict, ApiError."""
        self.ledger = await self._shelf.swap(book.dropped(self.ledger, namespace))
        self._gone(namespace)

    async def store(self, ledger: Ledger) -> None:
        """Put a changed ledger in force. Raises Conflict, ApiError."""
        self.ledger = await self._shelf.swap(ledger)

    def _gone(self, namespace: str) -> None:
        """The books know a namespace no more."""
        for place in list(self.books.waiting(namespace)):
            self.books.leave(place)
        self.books.forget(namespace)
        for key in [key for key in self._uids if key.partition("/")[0] == namespace]:
            self._forget(key, self._uids[key])
        self._reconfigure.pop(namespace, None)
        self._cohorts = True

    # acts

    async def _carry_out(self, plan: Plan) -> None:
        """Everything here may fail and is tried again: what binds is stored."""
        for charge, message in plan.messages.values():
            if (pod := self._pod(charge)) is not None:
                self._acts.waits(pod, message)
        for notice in plan.notices:
            if (pod := self._pod(notice.charge)) is not None:
                self._acts.event(pod, notice.reason, notice.message, warning=notice.warning)
        for usage in plan.usage:
            self._acts.usage(usage)
        await self._acts.admit(plan.admissions)
        versions = {v.id: v.version for r in self.ledger.reservations.values() for v in r.victims}
        for preempt in plan.preemptions:
            if (pod := self._pod(preempt.charge)) is not None and preempt.charge.id in versions:
                await self._acts.preempt(pod, versions[preempt.charge.id], preempt)

    async def again(self) -> None:
        """Take up what is in flight and did not arrive, and end the reservations that ended in the books."""
        await self._end_reservations()
        late: list[InFlight] = []
        ledger = self.ledger
        for uid, entry in self.ledger.in_flight.items():
            pod = self._cluster.pods.get(entry.namespace, entry.name)
            if pod is None or metadata.uid(pod) != uid or not is_gated(pod):
                self._changed.setdefault(f"{entry.namespace}/{entry.name}")
                continue
            if version_of(pod) > entry.version:
                ledger = book.retried(ledger, uid, version_of(pod))
            late.append(ledger.in_flight[uid])
        if ledger != self.ledger:
            self.ledger = await self._shelf.swap(ledger)
        await self._acts.admit(late)

    async def _end_reservations(self) -> None:
        ledger = self.ledger
        for reservation in ended(ledger, self.books):
            try:
                written = await self._give_up(reservation)
            except Conflict:
                continue  # the cache is behind: later
            ledger = book.unreserve(ledger, reservation.uid, written)
        if ledger != self.ledger:
            self.ledger = await self._shelf.swap(ledger)

    async def _give_up(self, reservation: Reservation) -> dict[str, int]:
        """Write the victims that were not deleted yet, so that no deletion under way can still reach them."""
        written = {}
        for victim in reservation.victims:
            namespace, _, name = victim.id.partition("/")[2].partition("/")
            pod = self._cluster.pods.get(namespace, name)
            if pod is None or metadata.uid(pod) != victim.uid or metadata.is_deleting(pod):
                continue
            try:
                written[victim.uid] = await self._acts.touch(pod)
            except NotFound:
                continue
        return written


def _created(pod: Object) -> float:
    return metadata.posix(pod["metadata"].get("creationTimestamp")) or 0.0


def _began(pod: Object) -> float | None:
    return metadata.posix((pod.get("status") or {}).get("startTime"))
