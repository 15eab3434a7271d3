"""The books of quota over a cluster's caches: PodDisruptionBudgets are read when victims are sought, once in a batch."""

from __future__ import annotations

from collections.abc import Iterable

from isoplane.operator.cluster import Cluster
from isoplane.quota.ledger import Ledger
from isoplane.quota.model import Budget


class ClusterBooks(Ledger):
    """Books in memory, with budgets from the caches."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster
        self._read: set[str] = set()

    def renew(self) -> None:
        """A batch begins: budgets are read anew."""
        self._read.clear()

    def budgets(self, tenant: str) -> Iterable[Budget]:
        self._ensure(tenant)
        return super().budgets(tenant)

    def _ensure(self, tenant: str) -> None:
        if tenant not in self._read:
            self._read.add(tenant)
            self.set_budgets(tenant, self._cluster.budgets(tenant))
