"""What a decision may read. The ledger in memory and the one over the store's rows both offer it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from isoplane.quota.model import Ask, Budget, Charge, Cohort, Policy, Quota, Totals, Waiting


@dataclass(slots=True)
class CohortTotals:
    """Sums over a cohort's tenants of what each takes or keeps in reserve, whichever is more, by resource."""

    taken: dict[str, int] = field(default_factory=dict)
    """Of U."""
    claimed: dict[str, int] = field(default_factory=dict)
    """Of U − E + R."""

    def copy(self) -> CohortTotals:
        return CohortTotals(dict(self.taken), dict(self.claimed))

    def same(self, other: CohortTotals) -> bool:
        """Whether both tell the same; an entry of zero is no entry."""
        return all(
            {k: v for k, v in mine.items() if v} == {k: v for k, v in theirs.items() if v}
            for mine, theirs in ((self.taken, other.taken), (self.claimed, other.claimed))
        )


class View(Protocol):
    """The state of quota at one moment. Nothing returned may be changed."""

    def quotas(self, tenant: str) -> tuple[Quota, ...]: ...

    def policy(self, tenant: str) -> Policy: ...

    def totals(self, tenant: str, quota: str) -> Totals: ...

    def whole(self, tenant: str) -> Totals:
        """All that a tenant takes, whatever quota counts it."""
        ...

    def cohort(self, name: str) -> Cohort | None: ...

    def cohort_totals(self, name: str) -> CohortTotals: ...

    def members(self, cohort: str) -> Iterable[str]:
        """The tenants of a cohort."""
        ...

    def charge(self, tenant: str, uid: str) -> Charge | None: ...

    def charges(self, tenant: str) -> Iterable[Charge]: ...

    def waiting(self, tenant: str) -> Iterable[Waiting]: ...

    def pending(self, tenant: str) -> int:
        """How many workloads wait."""
        ...

    def head(self, ask: Ask) -> Waiting | None:
        """The first in line before ``ask``, when it has been passed as often as it may be."""
        ...

    def budgets(self, tenant: str) -> Iterable[Budget]: ...
