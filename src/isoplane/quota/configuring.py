"""The engine's half that follows what configures quota: limits, policies, cohorts, and the nodes that give these capacity.

What a decision reads, and every sum, are set anew in the batch of the change; who waits is woken after it.  A part of
:mod:`isoplane.quota.engine`, whose docstring is the interface.
"""

from __future__ import annotations

from isoplane.quota import census, effects, events
from isoplane.quota.audit import Entry
from isoplane.quota.effects import Effect
from isoplane.quota.model import Cohort, Limits
from isoplane.quota.waking import Waking

NOTHING = Limits()


class Configuring(Waking):
    """What configures quota, in the books of one moment."""

    def _limits_changed(self, event: events.LimitsChanged) -> None:
        tenant, old = event.tenant, self.accounts.limits(event.tenant)
        self._may_forget[tenant] = None
        if old is None and event.limits is None:
            return
        new = event.limits or NOTHING
        if old == new and not event.verify:
            self.publish(tenant)
            return
        found: list[str] = []
        if old != new:
            self.accounts.set_limits(tenant, new)
            found.append("the compiled quotas were not those of the objects")
        accounting = new.policy.accounting
        anew = event.verify or old is None or old.policy.accounting != accounting
        if anew and (wrong := census.restate(self.accounts, tenant, self._inventory.workloads(tenant, accounting))):
            found.append(f"{wrong} entries were not those of the objects")
        if self._recount(tenant):
            found.append("the sums were not those of the entries")
        if old != new and ((old or NOTHING).policy.cohort or new.policy.cohort):
            self._cohorts_changed(tuple(c for n in self.accounts.cohorts() if (c := self.accounts.cohort(n))))
        self.room(tenant)
        if not event.verify:
            self.publish(tenant)
        elif found:
            self.publish(tenant)
            self._effects += (effects.Repaired(tenant, what) for what in found)
            self._effects.append(effects.Audit(Entry(self.now, "repair", "", "", tenant, "books")))

    def _recount(self, tenant: str) -> bool:
        """Set a tenant's sums to what its entries add up to; returns whether they were wrong."""
        names = self.accounts.limits(tenant) or NOTHING
        truth = self.accounts.recount(tenant, self._inventory.counts(tenant, names.counted))
        if self.accounts.book(tenant).same(truth):
            return False
        mine = self.accounts.edit(tenant)
        mine.quotas, mine.whole = truth.quotas, truth.whole
        return True

    def _cohorts_changed(self, cohorts: tuple[Cohort, ...]) -> bool:
        """Set every cohort, its members and its sums anew. Returns whether anything differed."""
        accounts, differed = self.accounts, False
        members: dict[str, list[str]] = {}
        for tenant in sorted(accounts.tenants()):
            members.setdefault(accounts.policy(tenant).cohort, []).append(tenant)
        for name in set(accounts.cohorts()) - {cohort.name for cohort in cohorts}:
            accounts.drop_cohort(name)
            differed = True
        for cohort in cohorts:
            mine = tuple(members.get(cohort.name, ()))
            if accounts.cohort(cohort.name) != cohort or tuple(accounts.members(cohort.name)) != mine:
                accounts.define_cohort(cohort, mine)
                differed = True
                for tenant in mine:
                    self.room(tenant)
            truth = accounts.recount_cohort(cohort)
            if not accounts.cohort_totals(cohort.name).same(truth):
                totals = accounts.edit_cohort(cohort.name)
                totals.taken, totals.claimed = truth.taken, truth.claimed
                differed = True
        return differed

    def finish(self) -> list[Effect]:
        """The last of a batch: the usage to publish, of the quotas whose use changed."""
        found = super().finish()
        for tenant in self._may_forget:
            # Once nothing in a tenant concerns quota, and nobody waits there, its books go.
            if self.accounts.limits(tenant) == NOTHING and not self.accounts.pending(tenant):
                self.accounts.forget(tenant)
        return found
