"""The books of quota in memory: for a shell on a cluster, offline explain, benches and tests.

What is done inside ``attempt`` is undone when that raises: every change notes how to take it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from isoplane.quota.accounts import NO_POLICY, Accounts, Book
from isoplane.quota.line import WaitingLine
from isoplane.quota.model import Budget, Charge, Cohort, Limits, Policy, Quota, Waiting
from isoplane.quota.view import CohortTotals


class _Journal:
    """How to take back what an attempt did, newest last."""

    __slots__ = ("steps", "tenants", "totals")

    def __init__(self) -> None:
        self.steps: list[Callable[[], object]] = []
        self.tenants: set[str] = set()
        """Whose book is noted already."""
        self.totals: set[str] = set()


class Ledger(Accounts):
    """The books in memory."""

    def __init__(self) -> None:
        self._quotas: dict[str, tuple[Quota, ...]] = {}
        self._policies: dict[str, Policy] = {}
        self._cohorts: dict[str, Cohort] = {}
        self._members: dict[str, dict[str, None]] = {}
        self._budgets: dict[str, tuple[Budget, ...]] = {}
        self._charges: dict[str, dict[str, Charge]] = {}
        self._lines: dict[str, WaitingLine] = {}
        self._books: dict[str, Book] = {}
        self._cohort_totals: dict[str, CohortTotals] = {}
        self._places: dict[str, dict[str, None]] = {}
        self._busy: set[str] = set()
        """Tenants where someone waits."""
        self._before: dict[str, Book] = {}
        """Books edited since the last flush, as they were."""
        self._journal: _Journal | None = None

    # configuration; sums are counted anew, for quotas change seldom

    def set_quotas(self, tenant: str, quotas: Iterable[Quota]) -> None:
        self._note_limits()
        self._quotas[tenant] = tuple(quotas)
        self.settle(tenant)

    def set_policy(self, tenant: str, policy: Policy) -> None:
        self._note_limits()
        old = self._policies.get(tenant, NO_POLICY)
        self._policies[tenant] = policy
        if old.cohort:
            self._members.get(old.cohort, {}).pop(tenant, None)
        if policy.cohort:
            self._members.setdefault(policy.cohort, {})[tenant] = None
        self.settle(tenant)
        if old.cohort != policy.cohort and (cohort := self._cohorts.get(old.cohort)):
            self._settle_cohort(cohort)

    def set_cohort(self, cohort: Cohort) -> None:
        self._note_limits()
        self._cohorts[cohort.name] = cohort
        self._settle_cohort(cohort)

    def _note_limits(self) -> None:
        if self._journal is None:
            return
        quotas, policies, cohorts = dict(self._quotas), dict(self._policies), dict(self._cohorts)
        members = {name: dict(found) for name, found in self._members.items()}

        def undo() -> None:
            self._quotas, self._policies, self._cohorts, self._members = quotas, policies, cohorts, members

        self._note(undo)

    def set_budgets(self, tenant: str, budgets: Iterable[Budget]) -> None:
        self._budgets[tenant] = tuple(budgets)

    def settle(self, tenant: str) -> None:
        """Set the sums to what the entries add up to. Objects that are no workload are counted again by the caller."""
        mine, truth = self.edit(tenant), self.recount(tenant)
        mine.quotas, mine.whole = truth.quotas, truth.whole
        policy = self.policy(tenant)
        if policy.cohort and (cohort := self._cohorts.get(policy.cohort)):
            self._settle_cohort(cohort)

    def _settle_cohort(self, cohort: Cohort) -> None:
        mine, truth = self.edit_cohort(cohort.name), self.recount_cohort(cohort)
        mine.taken, mine.claimed = truth.taken, truth.claimed

    # where books lie

    def quotas(self, tenant: str) -> tuple[Quota, ...]:
        return self._quotas.get(tenant, ())

    def policy(self, tenant: str) -> Policy:
        return self._policies.get(tenant, NO_POLICY)

    def cohort(self, name: str) -> Cohort | None:
        return self._cohorts.get(name)

    def members(self, cohort: str) -> Iterable[str]:
        return self._members.get(cohort, ())

    def budgets(self, tenant: str) -> Iterable[Budget]:
        return self._budgets.get(tenant, ())

    def limits(self, tenant: str) -> Limits | None:
        if tenant not in self._quotas and tenant not in self._policies:
            return None
        return Limits(self.quotas(tenant), self.policy(tenant))

    def set_limits(self, tenant: str, limits: Limits) -> None:
        self._note_limits()
        self._quotas[tenant], self._policies[tenant] = limits.quotas, limits.policy

    def forget(self, tenant: str) -> None:
        self._note_limits()
        self._quotas.pop(tenant, None)
        self._policies.pop(tenant, None)
        for charge in list(self.charges(tenant)):
            self._drop_charge(charge)
        self._books.pop(tenant, None)

    def tenants(self) -> Iterable[str]:
        return sorted({*self._quotas, *self._policies})

    def cohorts(self) -> Iterable[str]:
        return list(self._cohorts)

    def define_cohort(self, cohort: Cohort, members: Sequence[str]) -> None:
        self._note_limits()
        self._cohorts[cohort.name], self._members[cohort.name] = cohort, dict.fromkeys(members)

    def drop_cohort(self, name: str) -> None:
        self._note_limits()
        del self._cohorts[name]
        self._members.pop(name, None)
        self._cohort_totals.pop(name, None)

    def charge(self, tenant: str, uid: str) -> Charge | None:
        return self._charges.get(tenant, {}).get(uid)

    def charges(self, tenant: str) -> Iterable[Charge]:
        return list(self._charges.get(tenant, {}).values())

    def waiter(self, tenant: str, uid: str) -> Waiting | None:
        line = self._lines.get(tenant)
        return line.get(uid) if line else None

    def line(self, tenant: str) -> WaitingLine:
        line = self._lines.get(tenant)
        if line is None:  # an empty one is false
            line = self._lines[tenant] = WaitingLine()
        return line

    def busy(self, cohort: str) -> Set[str]:
        return self._members.get(cohort, {}).keys() & self._busy

    def idle(self, tenant: str) -> None:
        """``busy`` is always exact here."""

    def spend_budgets(self, leaving: Iterable[Charge], now: float) -> None:
        for charge in leaving:
            old = self._budgets.get(charge.tenant, ())
            self._budgets[charge.tenant] = tuple(
                replace(b, allowed=max(0, b.allowed - 1)) if charge.uid in b.members else b for b in old
            )
            self._note(partial(self._budgets.__setitem__, charge.tenant, old))

    def places(self, tenant: str) -> Iterable[str]:
        return self._places.get(tenant, ())

    def has_place(self, tenant: str, owner: str) -> bool:
        return owner in self._places.get(tenant, ())

    def keep_place(self, tenant: str, owner: str) -> None:
        self._places.setdefault(tenant, {})[owner] = None
        self._note(lambda: self._places[tenant].pop(owner, None))

    def drop_place(self, tenant: str, owner: str) -> None:
        self._places.get(tenant, {}).pop(owner, None)
        self._note(lambda: self._places[tenant].setdefault(owner, None))

    def book(self, tenant: str) -> Book:
        return self._books.get(tenant) or self._books.setdefault(tenant, Book())

    def edit(self, tenant: str) -> Book:
        book = self.book(tenant)
        if tenant not in self._before:
            self._before[tenant] = book.copy()
        journal = self._journal
        if journal is not None and tenant not in journal.tenants:
            journal.tenants.add(tenant)
            old = book.copy()
            journal.steps.append(lambda: self._books.__setitem__(tenant, old))
        return book

    def cohort_totals(self, name: str) -> CohortTotals:
        return self._cohort_totals.get(name) or self._cohort_totals.setdefault(name, CohortTotals())

    def edit_cohort(self, name: str) -> CohortTotals:
        totals, journal = self.cohort_totals(name), self._journal
        if journal is not None and name not in journal.totals:
            journal.totals.add(name)
            old = totals.copy()
            journal.steps.append(lambda: self._cohort_totals.__setitem__(name, old))
        return totals

    def _keep_charge(self, charge: Charge) -> None:
        charges = self._charges.setdefault(charge.tenant, {})
        if self._journal is not None:
            self._note_entry(charges, charge.uid)
        charges[charge.uid] = charge

    def _drop_charge(self, charge: Charge) -> None:
        charges = self._charges[charge.tenant]
        if self._journal is not None:
            self._note_entry(charges, charge.uid)
        charges.pop(charge.uid, None)

    def _note_entry(self, charges: dict[str, Charge], uid: str) -> None:
        old = charges.get(uid)
        self._note(lambda: charges.pop(uid, None) if old is None else charges.__setitem__(uid, old))

    def _keep_waiting(self, waiting: Waiting) -> None:
        self._place(waiting.charge.tenant, waiting.charge.uid, waiting)

    def _drop_waiting(self, waiting: Waiting) -> None:
        self._place(waiting.charge.tenant, waiting.charge.uid, None)

    def _place(self, tenant: str, uid: str, new: Waiting | None) -> None:
        """Put somebody's place in the line, or take it away."""
        line = self.line(tenant)
        if self._journal is not None:
            old = line.get(uid)
            self._note(lambda: self._place(tenant, uid, old))
        if new is None:
            line.drop(uid)
        else:
            line.put(new)
        (self._busy.add if len(line) else self._busy.discard)(tenant)

    # a batch

    def _note(self, step: Callable[[], object]) -> None:
        if self._journal is not None:
            self._journal.steps.append(step)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        outer, mine = self._journal, _Journal()
        self._journal = mine
        try:
            yield
        except BaseException:
            self._journal = None
            for step in reversed(mine.steps):
                step()
            raise
        else:
            if outer is not None:
                outer.steps += mine.steps
        finally:
            self._journal = outer

    def flush(self) -> Mapping[str, list[str]]:
        changed: dict[str, list[str]] = {}
        for tenant, before in self._before.items():
            for name, totals in self.book(tenant).quotas.items():
                if name not in before.quotas or totals.used != before.quotas[name].used:
                    changed.setdefault(tenant, []).append(name)
        self._before.clear()
        return changed
