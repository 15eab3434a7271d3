"""On start: are the books what the objects add up to?  What is not is set right, told in the audit trail, and logged.

They always are, for object and book change in one transaction; this is for what no transaction protects from: a restored disk, an
older release's arithmetic, a bug.  It also wakes everyone, so that no wait is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import time

from isoplane.http.user import SYSTEM
from isoplane.objects.kinds import NAMESPACES, RESOURCEQUOTAS
from isoplane.objects.scheme import Scheme
from isoplane.quota.effects import Repaired
from isoplane.server.admission import AdmissionRequest
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.plugin import QuotaAdmission
from isoplane.store import Store
from isoplane.store.transaction import Transaction

_log = logging.getLogger(__name__)


async def repair(
    store: Store, plugin: QuotaAdmission, clock: Callable[[], float] = time, scheme: Scheme | None = None
) -> list[Repaired]:
    """Check every namespace, one transaction each, then the cohorts. Returns what was wrong.

    ``scheme``: the served kinds, whose objects are counted; None: the built-in ones.
    """
    served = scheme or Scheme()
    found: list[Repaired] = []
    names = sorted({record.name for record in store.state.list(NAMESPACES)} | set(store.state.rows(rows.CONFIG)))
    for name in names:
        try:
            found += await store.transact(lambda txn, name=name: _verify(txn, plugin, name, clock(), served))  # type: ignore[misc]
        except Exception:
            _log.exception("quota: namespace %s could not be checked; the others are", name)
            found.append(Repaired(name, "could not be checked"))
    found += await store.transact(lambda txn: _verify(txn, plugin, "", clock(), served))
    for finding in found:
        _log.warning("quota repaired: %s: %s", finding.tenant or "cohorts", finding.what)
    return found


def _verify(txn: Transaction, plugin: QuotaAdmission, namespace: str, now: float, scheme: Scheme) -> list[Repaired]:
    request = AdmissionRequest(
        "UPDATE", RESOURCEQUOTAS, "status", namespace, "", None, None, SYSTEM, False, now, txn, scheme
    )
    session = plugin.session(txn, request)
    session.verify(namespace)
    plugin.record(txn, session)
    return session.repaired
