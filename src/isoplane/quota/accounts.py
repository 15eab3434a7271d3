"""The bookkeeping of quota: who is charged, who waits, and the sums over them.

Every operation moves an entry and every sum it is part of, in time that does not grow with the number of entries.  Where books
lie is left to a subclass: :mod:`ledger` keeps them in memory (offline explain, benches, tests, the repair pass), the server's
keeps them in rows of the store, so that they change in the object's own transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from isoplane.quota.line import WaitingLine
from isoplane.quota.model import (
    Amounts,
    Ask,
    Budget,
    Charge,
    Cohort,
    Limits,
    Policy,
    Quota,
    Totals,
    Wait,
    Waiting,
    counts_stored,
    stored,
)
from isoplane.quota.scopes import counts
from isoplane.quota.view import CohortTotals

MAX_PASSED = 16
"""How many may be admitted past the first in line before its room is kept free."""

NO_POLICY = Policy()


@dataclass(slots=True)
class Book:
    """The sums of one tenant: per quota (what its hard limits name), and of everything."""

    quotas: dict[str, Totals] = field(default_factory=dict)
    whole: Totals = field(default_factory=Totals)
    line: int = 0
    """How often the tenant's line changed: tells a kept copy of the line whether it is still true."""

    def copy(self) -> Book:
        return Book({name: totals.copy() for name, totals in self.quotas.items()}, self.whole.copy(), self.line)

    def same(self, other: Book) -> bool:
        """Whether both tell the same sums; an entry of zero is no entry."""
        if not self.whole.same(other.whole):
            return False
        nothing = Totals()
        names = {*self.quotas, *other.quotas}
        return all(self.quotas.get(n, nothing).same(other.quotas.get(n, nothing)) for n in names)


def _move(column: dict[str, int], amounts: Amounts, sign: int, only: Amounts | None = None) -> None:
    """Add to a column; entries that become zero go away unless a quota names them."""
    for name, value in amounts.items():
        if only is not None and name not in only:
            continue
        new = column.get(name, 0) + sign * value
        if new or only is not None:
            column[name] = new
        else:
            column.pop(name, None)


class Accounts(ABC):
    """The bookkeeping over books that a subclass keeps. Implements most of view.View."""

    # where books lie

    @abstractmethod
    def quotas(self, tenant: str) -> tuple[Quota, ...]: ...

    @abstractmethod
    def policy(self, tenant: str) -> Policy: ...

    @abstractmethod
    def limits(self, tenant: str) -> Limits | None:
        """Both of these; None where nothing concerns quota: nobody is charged there."""

    @abstractmethod
    def set_limits(self, tenant: str, limits: Limits) -> None:
        """Sums and cohorts are counted anew by the caller."""

    @abstractmethod
    def forget(self, tenant: str) -> None:
        """Drop all that is kept of a tenant; nobody waits there."""

    @abstractmethod
    def tenants(self) -> Iterable[str]:
        """Those with limits."""

    @abstractmethod
    def cohorts(self) -> Iterable[str]: ...

    @abstractmethod
    def define_cohort(self, cohort: Cohort, members: Sequence[str]) -> None:
        """Its sums are counted anew by the caller."""

    @abstractmethod
    def drop_cohort(self, name: str) -> None: ...

    @abstractmethod
    def cohort(self, name: str) -> Cohort | None: ...

    @abstractmethod
    def members(self, cohort: str) -> Iterable[str]: ...

    @abstractmethod
    def budgets(self, tenant: str) -> Iterable[Budget]: ...

    @abstractmethod
    def charge(self, tenant: str, uid: str) -> Charge | None: ...

    @abstractmethod
    def charges(self, tenant: str) -> Iterable[Charge]: ...

    @abstractmethod
    def waiter(self, tenant: str, uid: str) -> Waiting | None: ...

    @abstractmethod
    def line(self, tenant: str) -> WaitingLine:
        """Everyone of a tenant who waits, in order. To read."""

    @abstractmethod
    def busy(self, cohort: str) -> Set[str]:
        """The tenants of a cohort where someone may wait."""

    @abstractmethod
    def idle(self, tenant: str) -> None:
        """Nobody waits there: ``busy`` need not name it."""

    @abstractmethod
    def spend_budgets(self, leaving: Iterable[Charge], now: float) -> None:
        """Take victims out of the budgets that protect them, so that the next plan reads what is left."""

    # places kept for restarts: who owns them; what they take stands among the charges

    @abstractmethod
    def places(self, tenant: str) -> Iterable[str]:
        """The owners whose places are kept."""

    @abstractmethod
    def has_place(self, tenant: str, owner: str) -> bool: ...

    @abstractmethod
    def keep_place(self, tenant: str, owner: str) -> None: ...

    @abstractmethod
    def drop_place(self, tenant: str, owner: str) -> None: ...

    # a batch

    @abstractmethod
    def attempt(self) -> AbstractContextManager[None]:
        """Undo what is done inside when it raises; the error is passed on."""

    @abstractmethod
    def flush(self) -> Mapping[str, list[str]]:
        """The end of a batch: keep what was edited. Returns, by tenant, the quotas whose use changed."""

    @abstractmethod
    def book(self, tenant: str) -> Book:
        """To read."""

    @abstractmethod
    def edit(self, tenant: str) -> Book:
        """To write: changes are kept."""

    @abstractmethod
    def cohort_totals(self, name: str) -> CohortTotals: ...

    @abstractmethod
    def edit_cohort(self, name: str) -> CohortTotals: ...

    @abstractmethod
    def _keep_charge(self, charge: Charge) -> None: ...

    @abstractmethod
    def _drop_charge(self, charge: Charge) -> None: ...

    @abstractmethod
    def _keep_waiting(self, waiting: Waiting) -> None: ...

    @abstractmethod
    def _drop_waiting(self, waiting: Waiting) -> None: ...

    # reading

    def totals(self, tenant: str, quota: str) -> Totals:
        return self.book(tenant).quotas.get(quota) or Totals()

    def managed(self, tenant: str) -> bool:
        """Whether anything in a tenant concerns quota: nobody is charged elsewhere."""
        return self.limits(tenant) is not None

    def whole(self, tenant: str) -> Totals:
        return self.book(tenant).whole

    def waiting(self, tenant: str) -> Iterable[Waiting]:
        return self.line(tenant).ordered()

    def first(self, tenant: str) -> Waiting | None:
        """The first in line of a tenant that holds nothing yet."""
        return self.line(tenant).first()

    def pending(self, tenant: str) -> int:
        return len(self.line(tenant))

    def head(self, ask: Ask) -> Waiting | None:
        first = self.first(ask.charge.tenant)
        if first is None or first.passed < MAX_PASSED or first.charge.uid == ask.charge.uid:
            return None
        before = first.order < (-ask.charge.priority, ask.charge.created, ask.charge.uid)
        return first if before or (not ask.gated and first.charge.priority >= ask.charge.priority) else None

    # moving

    def add(self, charge: Charge) -> None:
        """Charge a workload. Adding what is charged already changes nothing."""
        if self.charge(charge.tenant, charge.uid) is not None:
            return
        waiting = self.waiter(charge.tenant, charge.uid)
        if waiting is not None:
            self.leave(waiting)
        self.admit(charge)

    def admit(self, charge: Charge) -> None:
        """Charge a workload that is new: it neither is charged nor waits."""
        self._keep_charge(charge)
        self._used(charge, +1)
        first = self.first(charge.tenant)
        if first is None or first.passed >= MAX_PASSED:
            return
        if first.order < (-charge.priority, charge.created, charge.uid):
            self._keep_waiting(replace(first, passed=first.passed + 1))

    def remove(self, tenant: str, uid: str) -> Charge | None:
        """Give back what a workload takes. Removing what is not charged changes nothing."""
        charge = self.charge(tenant, uid)
        if charge is not None:
            self._used(charge, -1)
            self._drop_charge(charge)
        return charge

    def change(self, new: Charge) -> None:
        """Replace the entry of a charged workload: it began to run, is being deleted, ended, or was resized."""
        old = self.charge(new.tenant, new.uid)
        if old is None or old == new:
            return
        self._used(old, -1)
        self._used(new, +1)
        self._keep_charge(new)

    def count(self, tenant: str, amounts: Amounts, sign: int) -> None:
        """Count an object that is no workload; only quotas without scopes do."""
        book = self.edit(tenant)
        for quota in self.quotas(tenant):
            if not quota.scopes:
                _move(book.quotas.setdefault(quota.name, Totals()).used, amounts, sign, quota.hard)

    def wait(self, waiting: Waiting) -> None:
        """Put a workload in line, with or without a hold; an entry it had is replaced."""
        old = self.waiter(waiting.charge.tenant, waiting.charge.uid)
        if old is not None:
            self.leave(old)
        self._keep_waiting(waiting)
        self._stored(waiting.charge, +1)
        if waiting.held:
            self._held(waiting.charge, +1)

    def leave(self, waiting: Waiting) -> None:
        """Take a workload out of the line; its hold, if any, ends."""
        if waiting.held:
            self._held(waiting.charge, -1)
        self._stored(waiting.charge, -1)
        self._drop_waiting(waiting)

    def give_up(self, waiting: Waiting, *, evicting: bool = False) -> None:
        """Take a workload out of the line that ended there, or is told to go: what it takes by being stored still counts."""
        self.leave(waiting)
        left = replace(waiting.charge, amounts=stored(waiting.charge.amounts), finished=True, evicting=evicting)
        self._keep_charge(left)
        self._used(left, +1)

    def commit(self, ask: Ask, wait: Wait, now: float, hold_seconds: float = 0) -> Waiting:
        """Carry out a Wait: the victims are on their way, bumped holds end, the ask has its place. Returns that place."""
        for victim in wait.victims:
            self.change(replace(victim.charge, evicting=True))
        for uid in wait.bumped:
            if bumped := self.waiter(ask.charge.tenant, uid):
                self.wait(replace(bumped, held=False, victims=(), expires=0))
        old = self.waiter(ask.charge.tenant, ask.charge.uid)
        place = Waiting(
            charge=ask.charge,
            held=wait.held,
            victims=tuple(victim.charge.id for victim in wait.victims),
            since=old.since if old is not None else now,
            expires=now + hold_seconds if wait.held and hold_seconds else 0,
            plans=(old.plans if old is not None else 0) + (1 if wait.victims else 0),
            passed=old.passed if old is not None else 0,
            preempts=ask.preempts,
        )
        self.wait(place)
        return place

    # sums

    def _each(self, charge: Charge) -> Iterable[tuple[Totals, Amounts | None]]:
        book = self.edit(charge.tenant)
        for quota in self.quotas(charge.tenant):
            if counts(quota, charge):
                yield book.quotas.setdefault(quota.name, Totals()), quota.hard
        yield book.whole, None

    def _used(self, charge: Charge, sign: int) -> None:
        before = self._contribution(charge)
        for totals, hard in self._each(charge):
            _move(totals.used, charge.amounts, sign, hard)
            if charge.evicting and not charge.stuck:
                _move(totals.evicting, charge.amounts, sign, hard)
        self._carry(charge, before)

    def _stored(self, charge: Charge, sign: int) -> None:
        """What waits is stored, and counts as that."""
        amounts = stored(charge.amounts)
        for totals, hard in self._each(charge):
            _move(totals.used, amounts, sign, hard)

    def _held(self, charge: Charge, sign: int) -> None:
        before = self._contribution(charge)
        amounts = _awaited(charge.amounts)
        for totals, hard in self._each(charge):
            _move(totals.held, amounts, sign, hard)
        self._carry(charge, before)

    def _contribution(self, charge: Charge) -> dict[str, tuple[int, int]]:
        """What the tenant weighs in its cohort, of the resources that the charge moves."""
        policy = self.policy(charge.tenant)
        cohort = self.cohort(policy.cohort) if policy.cohort else None
        if cohort is None:
            return {}
        whole = self.whole(charge.tenant)
        return {r: _weight(whole, policy, r) for r in cohort.capacity if charge.amounts.get(r)}

    def _carry(self, charge: Charge, before: Mapping[str, tuple[int, int]]) -> None:
        if not before:
            return
        policy = self.policy(charge.tenant)
        whole = self.whole(charge.tenant)
        everyone = self.edit_cohort(policy.cohort)
        for resource, (taken, claimed) in before.items():
            now_taken, now_claimed = _weight(whole, policy, resource)
            everyone.taken[resource] = everyone.taken.get(resource, 0) + now_taken - taken
            everyone.claimed[resource] = everyone.claimed.get(resource, 0) + now_claimed - claimed

    # from scratch

    def put_entry(self, charge: Charge) -> None:
        """Write an entry as it is found to be; sums are counted anew by the caller."""
        self._keep_charge(charge)

    def drop_entry(self, charge: Charge) -> None:
        """Likewise, of one that nothing stands for."""
        self._drop_charge(charge)

    def recount(self, tenant: str, objects: Mapping[str, int] | None = None) -> Book:
        """The book that the entries of a tenant add up to; ``objects`` are the counts of what is no workload."""
        book = Book()
        for quota in self.quotas(tenant):
            totals = book.quotas[quota.name] = Totals(used=dict.fromkeys(quota.hard, 0))
            if not quota.scopes:
                _move(totals.used, objects or {}, +1, quota.hard)
        for charge in self.charges(tenant):
            for quota in self.quotas(tenant):
                if counts(quota, charge):
                    _move(book.quotas[quota.name].used, charge.amounts, +1, quota.hard)
                    if charge.evicting and not charge.stuck:
                        _move(book.quotas[quota.name].evicting, charge.amounts, +1, quota.hard)
            _move(book.whole.used, charge.amounts, +1)
            if charge.evicting and not charge.stuck:
                _move(book.whole.evicting, charge.amounts, +1)
        for waiting in self.waiting(tenant):
            here = stored(waiting.charge.amounts)
            awaited = _awaited(waiting.charge.amounts) if waiting.held else {}
            for quota in self.quotas(tenant):
                if counts(quota, waiting.charge):
                    _move(book.quotas[quota.name].used, here, +1, quota.hard)
                    _move(book.quotas[quota.name].held, awaited, +1, quota.hard)
            _move(book.whole.used, here, +1)
            _move(book.whole.held, awaited, +1)
        return book

    def recount_cohort(self, cohort: Cohort) -> CohortTotals:
        """The sums that the tenants' books add up to."""
        everyone = CohortTotals()
        for tenant in self.members(cohort.name):
            whole, policy = self.whole(tenant), self.policy(tenant)
            for resource in cohort.capacity:
                taken, claimed = _weight(whole, policy, resource)
                everyone.taken[resource] = everyone.taken.get(resource, 0) + taken
                everyone.claimed[resource] = everyone.claimed.get(resource, 0) + claimed
        return everyone


def _awaited(amounts: Amounts) -> dict[str, int]:
    """What a hold keeps for a workload: all but what it takes already by being stored."""
    return {name: value for name, value in amounts.items() if not counts_stored(name)}


def _weight(whole: Totals, policy: Policy, resource: str) -> tuple[int, int]:
    reserve = policy.reserve(resource)
    return max(whole.used.get(resource, 0), reserve), max(whole.soft(resource), reserve)
