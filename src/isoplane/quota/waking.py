"""The engine's half that serves those who wait: whom to wake, what ends with time, and what is told of it.

Called in the very batch that made the room, so that no newcomer gets in between.  A part of :mod:`isoplane.quota.engine`, whose
docstring is the interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Protocol

from isoplane.quota import effects, places
from isoplane.quota.accounts import Accounts
from isoplane.quota.audit import Act, Entry, entries
from isoplane.quota.census import Observed
from isoplane.quota.effects import Effect
from isoplane.quota.explain import RULES, waits_for
from isoplane.quota.model import Admit, Ask, Charge, Decision, Wait, Waiting, counts_stored
from isoplane.quota.release import release
from isoplane.quota.scopes import counts
from isoplane.workload.accounting import Accounting

RESERVATION_SLACK = 120.0
"""Seconds beyond the victims' grace period after which a reservation that was not converted ends."""
WOKEN = 64
"""How many other tenants of a cohort one wake-up looks at."""

Guard = Callable[[str], AbstractContextManager[object]]
"""Around what is done for others than the event's own tenant, with what it is, in words: a shell may contain a fault there."""


class Inventory(Protocol):
    """What the engine asks about the objects behind the books. Reads only."""

    def grace(self, charge: Charge) -> int | None:
        """Seconds that the workload takes to end at most, by its own wish; None: its object is not there (any more)."""
        ...

    def workloads(self, tenant: str, accounting: Accounting) -> Iterable[Observed]:
        """Everyone of a tenant who is there, counted in that mode."""
        ...

    def counts(self, tenant: str, names: Set[str]) -> Mapping[str, int]:
        """How many objects that are no workloads a tenant has, by the names (``count/configmaps``) that are asked for."""
        ...

    def closing(self, tenant: str) -> bool:
        """Whether the whole namespace is being deleted: nobody begins to run there."""
        ...


class Waking:
    """The books of one moment, and who waits in them."""

    def __init__(self, accounts: Accounts, inventory: Inventory, now: float, guard: Guard = nullcontext) -> None:
        """``now`` in POSIX seconds."""
        self.accounts = accounts
        self.now = now
        self._inventory = inventory
        self._guard = guard
        self._effects: list[Effect] = []
        self._room: dict[str, None] = {}
        """Tenants in which room may have come free."""
        self._woken: set[str] = set()
        self._abandoned: set[str] = set()
        self._unwritable: set[str] = set()
        """uids of those who could not be released in this batch."""
        self._may_forget: dict[str, None] = {}
        """Tenants in which perhaps nothing concerns quota any more."""
        self._publish: dict[str, None] = {}
        """Tenants whose quotas' use is published, changed or not."""

    def _take(self) -> list[Effect]:
        found, self._effects = self._effects, []
        return found

    # waking

    def room(self, tenant: str) -> None:
        """Room may have come free in a tenant: who waits there is woken before the batch ends."""
        self._room[tenant] = None

    def _freed(self, tenant: str) -> None:
        """Room came free while others were being woken: whoever was woken before it is woken again."""
        self.room(tenant)
        self._woken.discard(tenant)
        if cohort := self.accounts.policy(tenant).cohort:
            self._woken -= self.accounts.busy(cohort)

    def abandon(self, tenant: str) -> None:
        """Waking failed there, and was undone: it is not tried again in this batch."""
        self._abandoned.add(tenant)

    def waking(self) -> Iterator[str]:
        """Whom to wake, one tenant after the other; what happens meanwhile may add more."""
        while todo := [t for t in self._order() if t not in self._woken and t not in self._abandoned]:
            for tenant in todo:
                self._woken.add(tenant)
                yield tenant

    def _order(self) -> list[str]:
        """The tenants with new room, then those who share a cohort with them and have someone waiting."""
        found = dict(self._room)
        for tenant in self._room:
            cohort = self.accounts.policy(tenant).cohort
            if not cohort:
                continue
            others: list[tuple[float, str]] = []
            for other in self.accounts.busy(cohort) - found.keys():
                with self._guard(f"the share of {other}"):
                    others.append((self._share(other), other))
            # Whoever is furthest below its guarantee first.
            found.update(dict.fromkeys(other for _, other in sorted(others)[:WOKEN]))
        return list(found)

    def _share(self, tenant: str) -> float:
        whole, guaranteed = self.accounts.whole(tenant), self.accounts.policy(tenant).guaranteed
        return max((whole.soft(name) / value for name, value in guaranteed.items() if value), default=1.0)

    def wake(self, tenant: str) -> list[Effect]:
        """Let in who waits in a tenant and fits now."""
        self._effects = []
        if not self.accounts.pending(tenant):
            self.accounts.idle(tenant)
            return []
        self._expire(tenant)
        if not self._inventory.closing(tenant):  # else everybody goes, and perhaps the quota first
            release(self.accounts, tenant, self.now, RESERVATION_SLACK, self._let_in, self._unwritable)
        return self._take()

    def _let_in(self, pending: Waiting, decision: Decision) -> None:
        """Somebody who waits was charged, or got a reservation of what is being given back."""
        charge = pending.charge
        if self._inventory.grace(charge) is None:
            self._lost(charge)
        elif isinstance(decision, Admit):
            entry = self._entry("release", charge, decision.rule)
            self._effects.append(effects.Release(pending, "its quota is charged", entry))
        elif isinstance(decision, Wait):
            reserved = self.accounts.waiter(charge.tenant, charge.uid) or pending
            entry = self._entry("wait", charge, decision.rule)
            self._effects.append(effects.Gate(reserved, waits_for(decision, charge), entry))

    def _lost(self, charge: Charge) -> None:
        """The books know somebody whose object is not there: what it takes is free."""
        if pending := self.accounts.waiter(charge.tenant, charge.uid):
            self.accounts.leave(pending)
        self.accounts.remove(charge.tenant, charge.uid)
        self._note("repair", charge, "lost")
        self._freed(charge.tenant)

    def _not_written(self, pending: Waiting) -> None:
        """Back to its place. Its room is offered to the others, and itself is not tried again in this batch."""
        charge = pending.charge
        if self.accounts.remove(charge.tenant, charge.uid) is None:
            pending = replace(pending, held=False, victims=(), expires=0)
        self.accounts.wait(pending)
        self._note("repair", charge, "not-written")
        self._unwritable.add(charge.uid)
        self._freed(charge.tenant)

    # time

    def _expire(self, tenant: str) -> None:
        """End the reservations that were not converted in time; whoever had one keeps its place in the queue."""
        for charge in places.expire(self.accounts, tenant, self.now):
            self._note("expire", charge, "not-restarted")
            self._freed(tenant)
        for pending in self.accounts.line(tenant).held():
            if 0 < pending.expires <= self.now:
                self._lose_reservation(pending, "hold-expired")
                for victim in pending.victims:
                    self._give_up_on(victim, pending.charge)

    def _expire_others(self, tenant: str) -> bool:
        """Likewise in the others of its cohort; returns whether anything ended."""
        ended = False
        cohort = self.accounts.policy(tenant).cohort
        for other in sorted(self.accounts.busy(cohort) - {tenant}) if cohort else ():
            with self._guard(f"the reservations of {other}"), self._attempt():
                if any(0 < pending.expires <= self.now for pending in self.accounts.line(other).held()):
                    self._expire(other)
                    ended = True
        return ended

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        """Undo what is done inside when it raises, in the books and in what is to be done."""
        before = len(self._effects)
        try:
            with self.accounts.attempt():
                yield
        except BaseException:
            del self._effects[before:]
            raise

    def _lose_reservation(self, pending: Waiting, rule: str) -> None:
        """Back to a mere place in the queue, and its object says so."""
        charge = pending.charge
        self._freed(charge.tenant)
        if self._inventory.grace(charge) is None:
            self._lost(charge)
            return
        place = replace(pending, held=False, victims=(), expires=0)
        self.accounts.wait(place)
        self._effects.append(effects.Gate(place, RULES[rule], self._entry("expire", charge, rule)))

    def _give_up_on(self, victim: str, preemptor: Charge) -> None:
        """A victim that is still here after its grace period and then some: nobody counts on it any more, and it is reported."""
        tenant = victim.split("/", 2)[1]
        charge = next((c for c in self.accounts.charges(tenant) if c.id == victim and c.evicting and not c.stuck), None)
        if charge is None:
            return
        self.accounts.change(replace(charge, stuck=True))
        self._note("expire", charge, "stuck")
        whom = preemptor.id if preemptor.tenant == tenant else f"namespace {preemptor.tenant}"
        message = f"did not end in time for {whom}: its reservation is given up; is a finalizer or its node in the way?"
        self._effects.append(effects.Notify(charge, "PreemptionStuck", message, warning=True))
        while losers := [*self._uncovered(charge)]:
            self._lose_reservation(max(losers, key=lambda pending: pending.order), "uncovered")

    def _uncovered(self, stuck: Charge) -> Iterator[Waiting]:
        """Who has a reservation on a limit where more is reserved than is free or leaving, now that one does not leave."""
        tenant, accounts = stuck.tenant, self.accounts
        policy, whole = accounts.policy(tenant), accounts.whole(tenant)
        own = accounts.line(tenant).held()
        for quota in accounts.quotas(tenant):
            totals = accounts.totals(tenant, quota.name)
            over = {r for r, limit in quota.hard.items() if stuck.amounts.get(r) and totals.soft(r) > limit}
            yield from (pending for pending in own if counts(quota, pending.charge) and _takes(pending, over))
        if not policy.cohort:
            return
        ceiling = {r: policy.guaranteed.get(r, 0) + more for r, more in policy.borrowing.items()}
        over = {r for r, limit in ceiling.items() if stuck.amounts.get(r) and whole.soft(r) > limit}
        yield from (pending for pending in own if _takes(pending, over))
        cohort, claimed = accounts.cohort(policy.cohort), accounts.cohort_totals(policy.cohort).claimed
        capacity = cohort.capacity if cohort is not None else {}
        over = {r for r, limit in capacity.items() if stuck.amounts.get(r) and claimed.get(r, 0) > limit}
        for member in accounts.members(policy.cohort) if over else ():
            with self._guard(f"the reservations of {member}"):
                yield from (pending for pending in accounts.line(member).held() if _takes(pending, over))

    # telling

    def finish(self) -> list[Effect]:
        """The last of a batch: the usage to publish, of the quotas whose use changed."""
        changed = {(tenant, name): None for tenant, names in self.accounts.flush().items() for name in names}
        for tenant in self._publish:
            changed |= {(tenant, quota.name): None for quota in self.accounts.quotas(tenant)}
        for tenant, name in changed:
            if quota := next((q for q in self.accounts.quotas(tenant) if q.name == name), None):
                used = self.accounts.totals(tenant, name).used
                shown = {resource: used.get(resource, 0) for resource in quota.hard}
                self._effects.append(effects.SetUsage(tenant, name, shown, quota.hard))
        return self._take()

    def publish(self, tenant: str) -> None:
        """Publish the use of all of a tenant's quotas at the end, changed or not."""
        self._publish[tenant] = None

    def _entry(self, act: Act, charge: Charge, rule: str) -> Entry:
        return Entry(self.now, act, charge.id, charge.uid, charge.tenant, rule, charge.priority)

    def _note(self, act: Act, charge: Charge, rule: str) -> None:
        self._effects.append(effects.Audit(self._entry(act, charge, rule)))

    def _audit_decision(self, ask: Ask, decision: Decision) -> None:
        self._effects += map(effects.Audit, entries(ask, decision, self.now))


def _takes(pending: Waiting, resources: Set[str]) -> bool:
    """Whether a reservation keeps any of these."""
    return any(pending.charge.amounts.get(name) for name in resources if not counts_stored(name))
