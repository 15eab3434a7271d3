"""On start: are the books what the objects add up to?  What is not is set right, told in the audit trail, and logged.

They always are, for object and book change in one transaction; this is for what no transaction protects from: a restored disk, an
older release's arithmetic, a bug.  It also wakes everyone, so that no wait is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import time

from isoplane.http.user import SYSTEM
from isoplane.objects.kinds import NAMESPACES, RESOURCEQUOTAS
from isoplane.quota.audit import Entry
from isoplane.server.admission import AdmissionRequest
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.config import tenant_config
from isoplane.server.quota_admission.plugin import QuotaAdmission
from isoplane.server.quota_admission.reconfigure import cohorts_changed, recharge, recount
from isoplane.server.quota_admission.rows import TenantConfig
from isoplane.server.quota_admission.session import Session
from isoplane.store import Store
from isoplane.store.transaction import Transaction

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was wrong in one namespace ('' for cohorts), and is right now."""

    namespace: str
    what: str


async def repair(store: Store, plugin: QuotaAdmission, clock: Callable[[], float] = time) -> list[Finding]:
    """Check every namespace, one transaction each, then the cohorts. Returns what was wrong."""
    found: list[Finding] = []
    names = sorted({record.name for record in store.state.list(NAMESPACES)} | set(store.state.rows(rows.CONFIG)))
    for name in names:
        try:
            found += await store.transact(lambda txn, name=name: _tenant(txn, plugin, name, clock()))  # type: ignore[misc]
        except Exception:
            _log.exception("quota: namespace %s could not be checked; the others are", name)
            found.append(Finding(name, "could not be checked"))
    found += await store.transact(lambda txn: _cohorts(txn, plugin, clock()))
    for finding in found:
        _log.warning("quota repaired: %s: %s", finding.namespace or "cohorts", finding.what)
    return found


def _session(txn: Transaction, plugin: QuotaAdmission, namespace: str, now: float) -> Session:
    request = AdmissionRequest("UPDATE", RESOURCEQUOTAS, "status", namespace, "", None, None, SYSTEM, False, now, txn)
    return plugin.session(txn, request)


def _tenant(txn: Transaction, plugin: QuotaAdmission, namespace: str, now: float) -> list[Finding]:
    session = _session(txn, plugin, namespace, now)
    accounts = session.accounts
    config = tenant_config(txn, namespace, None)
    known = accounts.config(namespace)
    if config is None and known is None:
        return []
    found: list[Finding] = []
    if config != known:
        accounts.set_config(namespace, config or TenantConfig())
        found.append(Finding(namespace, "the compiled quotas were not those of the objects"))
    if wrong := recharge(session, namespace, None):
        found.append(Finding(namespace, f"{wrong} entries were not those of the objects"))
    if recount(session, namespace, None):
        found.append(Finding(namespace, "the sums were not those of the entries"))
    if found:
        session.engine.publish(namespace)
        session.audit.append(Entry(now, "repair", "", "", namespace, "books"))
    session.engine.room(namespace)
    session.finish()
    plugin.record(txn, session)
    return found


def _cohorts(txn: Transaction, plugin: QuotaAdmission, now: float) -> list[Finding]:
    session = _session(txn, plugin, "", now)
    differed = cohorts_changed(session, None)
    session.finish()
    plugin.record(txn, session)
    return [Finding("", "the sums were not those of the members")] if differed else []
