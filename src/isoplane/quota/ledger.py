"""The books of quota in memory: for offline explain, benches, tests and the repair pass."""

from __future__ import annotations

from collections.abc import Iterable

from isoplane.quota.accounts import NO_POLICY, Accounts, Book
from isoplane.quota.line import WaitingLine
from isoplane.quota.model import Budget, Charge, Cohort, Policy, Quota, Waiting
from isoplane.quota.view import CohortTotals


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

    # configuration; sums are counted anew, for quotas change seldom

    def set_quotas(self, tenant: str, quotas: Iterable[Quota]) -> None:
        self._quotas[tenant] = tuple(quotas)
        self.settle(tenant)

    def set_policy(self, tenant: str, policy: Policy) -> None:
        old = self._policies.get(tenant, NO_POLICY)
        self._policies[tenant] = policy
        if old.cohort:
            self._members.get(old.cohort, {}).pop(tenant, None)
        if policy.cohort:
            self._members.setdefault(policy.cohort, {})[tenant] = None
        self.settle(tenant)
        if old.cohort != policy.cohort and (cohort := self._cohorts.get(old.cohort)):
            self._cohort_totals[cohort.name] = self.recount_cohort(cohort)

    def set_cohort(self, cohort: Cohort) -> None:
        self._cohorts[cohort.name] = cohort
        self._cohort_totals[cohort.name] = self.recount_cohort(cohort)

    def set_budgets(self, tenant: str, budgets: Iterable[Budget]) -> None:
        self._budgets[tenant] = tuple(budgets)

    def settle(self, tenant: str) -> None:
        """Set the sums to what the entries add up to. Objects that are no workload are counted again by the caller."""
        self._books[tenant] = self.recount(tenant)
        policy = self.policy(tenant)
        if policy.cohort and (cohort := self._cohorts.get(policy.cohort)):
            self._cohort_totals[cohort.name] = self.recount_cohort(cohort)

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

    def tenants(self) -> Iterable[str]:
        return sorted({*self._quotas, *self._policies, *self._charges, *self._lines})

    def charge(self, tenant: str, uid: str) -> Charge | None:
        return self._charges.get(tenant, {}).get(uid)

    def charges(self, tenant: str) -> Iterable[Charge]:
        return list(self._charges.get(tenant, {}).values())

    def waiter(self, tenant: str, uid: str) -> Waiting | None:
        line = self._lines.get(tenant)
        return line.get(uid) if line else None

    def waiting(self, tenant: str) -> Iterable[Waiting]:
        line = self._lines.get(tenant)
        return line.ordered() if line else ()

    def line(self, tenant: str) -> WaitingLine:
        return self._lines.setdefault(tenant, WaitingLine())

    def first(self, tenant: str) -> Waiting | None:
        line = self._lines.get(tenant)
        return line.first() if line else None

    def pending(self, tenant: str) -> int:
        line = self._lines.get(tenant)
        return len(line) if line else 0

    def book(self, tenant: str) -> Book:
        return self._books.setdefault(tenant, Book())

    def edit(self, tenant: str) -> Book:
        return self._books.setdefault(tenant, Book())

    def cohort_totals(self, name: str) -> CohortTotals:
        return self._cohort_totals.setdefault(name, CohortTotals())

    def edit_cohort(self, name: str) -> CohortTotals:
        return self._cohort_totals.setdefault(name, CohortTotals())

    def _keep_charge(self, charge: Charge) -> None:
        self._charges.setdefault(charge.tenant, {})[charge.uid] = charge

    def _drop_charge(self, charge: Charge) -> None:
        self._charges[charge.tenant].pop(charge.uid, None)

    def _keep_waiting(self, waiting: Waiting) -> None:
        self.line(waiting.charge.tenant).put(waiting)

    def _drop_waiting(self, waiting: Waiting) -> None:
        self.line(waiting.charge.tenant).drop(waiting.charge.uid)
