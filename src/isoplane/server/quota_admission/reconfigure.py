"""When a quota, a policy, a cohort or a node changes: what the decision reads, and the sums, follow in the same transaction."""

from __future__ import annotations

from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.quota.model import Policy
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.accounts import RowAccounts
from isoplane.server.quota_admission.config import Change, cohort_configs, tenant_config
from isoplane.server.quota_admission.counting import entries, object_counts
from isoplane.server.quota_admission.rows import TenantConfig
from isoplane.server.quota_admission.session import Session
from isoplane.store.transaction import Transaction


def policies(accounts: RowAccounts, txn: Transaction) -> dict[str, Policy]:
    """Every namespace that has any, with its policy."""
    return {tenant: accounts.policy(tenant) for tenant in txn.rows(rows.CONFIG)}


def tenant_changed(session: Session, namespace: str, resource: Resource, name: str, obj: Object | None) -> None:
    """A ResourceQuota or QuotaPolicy of a namespace is written, or (``obj`` None) removed."""
    txn, accounts = session.txn, session.accounts
    change = Change(resource, namespace, name, obj)
    if obj is None:
        session.forget_told(namespace, name)
    old, new = accounts.config(namespace), tenant_config(txn, namespace, change)
    if old == new:
        session.engine.publish(namespace)
        return
    accounts.set_config(namespace, new or TenantConfig())
    if old is None or (new is not None and old.policy.accounting != new.policy.accounting):
        recharge(session, namespace, change)
    recount(session, namespace, change)
    before = old.policy.cohort if old is not None else ""
    after = new.policy.cohort if new is not None else ""
    if before or after:
        cohorts_changed(session, change)
    session.engine.room(namespace)
    session.engine.publish(namespace)


def forget_unused(session: Session, namespace: str) -> None:
    """Once nothing in a namespace concerns quota, and nobody waits there, its rows go."""
    txn, accounts = session.txn, session.accounts
    config = accounts.config(namespace)
    if config is None or config != TenantConfig() or len(accounts.line(namespace)):
        return
    for uid in txn.rows(rows.charges_table(namespace)):
        txn.delete_row(rows.charges_table(namespace), uid)
    txn.delete_row(rows.BOOK, namespace)
    accounts.set_config(namespace, None)


def recharge(session: Session, namespace: str, change: Change | None) -> int:
    """Set a namespace's entries to what its objects say; returns how many were wrong."""
    txn, accounts = session.txn, session.accounts
    charges, waiting = entries(accounts, txn, namespace, change)
    wrong = 0
    for charge in accounts.charges(namespace):
        if charge.uid not in charges:
            txn.delete_row(rows.charges_table(namespace), charge.uid)
            wrong += 1
    for uid, charge in charges.items():
        if accounts.charge(namespace, uid) != charge:
            txn.put_row(rows.charges_table(namespace), uid, rows.encode_charge(charge))
            wrong += 1
    for place in list(accounts.waiting(namespace)):
        if place.charge.uid not in waiting:
            accounts.leave(place)
            wrong += 1
    for uid, place in waiting.items():
        if accounts.waiter(namespace, uid) != place:
            accounts.wait(place)
            wrong += 1
    return wrong


def recount(session: Session, namespace: str, change: Change | None) -> bool:
    """Set a namespace's sums to what its entries add up to; returns whether they were wrong."""
    accounts = session.accounts
    config = accounts.config(namespace) or TenantConfig()
    counts = object_counts(session.txn, namespace, config.counted, change)
    truth = accounts.recount(namespace, counts)
    book = accounts.book(namespace)
    if book.same(truth):
        return False
    accounts.set_book(namespace, truth)
    return True


def cohorts_changed(session: Session, change: Change | None) -> bool:
    """A cohort, its members or its capacity changed: set it and its sums anew. Returns whether anything differed."""
    txn, accounts = session.txn, session.accounts
    found = cohort_configs(txn, change, policies(accounts, txn))
    differed = False
    for name in txn.rows(rows.COHORT):
        if name not in found:
            txn.delete_row(rows.COHORT, name)
            txn.delete_row(rows.COHORT_TOTALS, name)
            differed = True
    for name, config in found.items():
        if accounts.cohort_config(name) != config:
            txn.put_row(rows.COHORT, name, rows.encode_cohort(config))
            differed = True
            for tenant in config.members:
                session.engine.room(tenant)
        cohort = accounts.cohort(name)
        assert cohort is not None
        truth = accounts.recount_cohort(cohort)
        if not accounts.cohort_totals(name).same(truth):
            accounts.set_cohort_totals(name, truth)
            differed = True
    return differed
