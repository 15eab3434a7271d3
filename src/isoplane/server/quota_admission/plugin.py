"""The quota admission plug-in: which writes concern quota, and what each means.

    a workload is created     decide; charge it, gate it (and let its victims go), or refuse
    … changes                 it began to run, ended, grew, or asks again
    … is deleted, removed     what it takes is coming back, is free: wake who waits
    any other object          count it where a quota does
    ResourceQuota, TenantQuota, QuotaPolicy, Cohort, Node    compile anew, count anew, wake

Place it last in the chain: what it decides must be what is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable

from isoplane.objects.errors import Forbidden, QuotaExceeded
from isoplane.objects.kinds import COHORTS, NODES, QUOTAPOLICIES, RESOURCEQUOTAS, TENANTQUOTAS, Resource
from isoplane.quota.audit import Entry
from isoplane.quota.charge import counts_nothing
from isoplane.quota.configuration import same_allocatable
from isoplane.quota.guarantee_validation import check_guarantees
from isoplane.quota.read import quota_of
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.accounts import Lines
from isoplane.server.quota_admission.queue import Queue
from isoplane.server.quota_admission.session import Session
from isoplane.store.store import Store
from isoplane.store.transaction import Transaction
from isoplane.workload.registry import adapter_for

_log = logging.getLogger(__name__)
MAX_QUOTAS = 50
"""ResourceQuotas and TenantQuotas of one namespace. Each one's status is written in the very transaction of every workload it
counts, which costs a create some 30 microseconds of CPU apiece."""
_QUOTAS = (RESOURCEQUOTAS, TENANTQUOTAS)
_CONFIGURES = (*_QUOTAS, QUOTAPOLICIES)
_SHARES = (COHORTS, NODES)


class QuotaAdmission(Plugin):
    """One for each server. Keeps nothing that the store's rows do not say, but a sorted copy of the waiting lines."""

    def __init__(self) -> None:
        self._lines = Lines()
        self.queue = Queue(self._lines)
        """Who stands where, for readers."""
        self._serial: int | None = None
        self._refused: deque[Entry] = deque(maxlen=rows.AUDIT_KEPT)
        """Refusals, whose own transaction is dropped: written with the next one that is not, or by one of their own."""
        self._store: Store | None = None
        self._writing = False
        self.acts: Counter[tuple[str, str, str]] = Counter()
        """(tenant, act, first part of the workload's id) → how often, since the start: for metrics."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        if adapter_for(resource) is not None or resource in _CONFIGURES or resource in _SHARES:
            return True
        return resource.namespaced and operation != "UPDATE" and not subresource

    def validate(self, request: AdmissionRequest) -> None:
        if request.resource in _QUOTAS and request.operation == "CREATE":
            there = sum(1 for kind in _QUOTAS for _ in request.view.list(kind, request.namespace))
            if there >= MAX_QUOTAS:
                raise Forbidden(
                    f'{request.resource.qualified} "{request.name}" is forbidden: namespace {request.namespace} has {there} '
                    f"quotas, and at most {MAX_QUOTAS} are kept true at every write; put several limits into one"
                )
        if request.resource in (QUOTAPOLICIES, COHORTS) and request.obj is not None:
            check_guarantees(request.view, request.resource, request.namespace, request.name, request.obj)

    def in_transaction(self, txn: Transaction, request: AdmissionRequest) -> Iterable[str]:
        if not self._concerns(txn, request):
            return ()
        session = self.session(txn, request)
        try:
            self._handle(session, request)
            session.finish()
        except QuotaExceeded:
            if not request.dry_run:
                # Whatever else was done is undone with the transaction.
                refused = [entry for entry in session.audit if entry.act == "refuse"]
                self._refused.extend(refused)
                self._tally(refused)
                self._write_refusals()
            raise
        if not request.dry_run:
            self.record(txn, session)
        return session.warnings

    def write_refusals_to(self, store: Store) -> None:
        """Write refusals at once, many together: without this they wait for the next write that quota looks at."""
        self._store = store

    def _write_refusals(self) -> None:
        if self._store is None or self._writing:
            return
        self._writing = True
        asyncio.get_running_loop().call_soon(self._write_refused, self._store)

    def _write_refused(self, store: Store) -> None:
        self._writing = False
        # A disk that refuses is told by every other write.
        store.transact(lambda txn: self._record(txn, ())).add_done_callback(lambda done: done.exception())

    def session(self, txn: Transaction, request: AdmissionRequest) -> Session:
        """A session on this plug-in's books, for admission and for the repair pass."""
        return Session(txn, request, self._lines)

    def _concerns(self, txn: Transaction, request: AdmissionRequest) -> bool:
        if request.resource in _CONFIGURES or request.resource is COHORTS:
            return True
        if request.resource is NODES:
            return not same_allocatable(request.old, request.obj)
        return txn.row(rows.CONFIG, request.namespace) is not None

    def _handle(self, session: Session, request: AdmissionRequest) -> None:
        resource = request.resource
        if resource in _SHARES:
            if request.operation != "DELETE" or request.removes:
                session.cohorts_changed()
            return
        adapter = adapter_for(resource)
        if adapter is not None:
            if request.operation == "CREATE":
                session.create(adapter)
            elif request.operation == "UPDATE":
                session.update(adapter)
            else:
                session.delete()
            return
        if request.operation == "CREATE" and not request.subresource:
            session.count(+1)
        elif request.operation == "DELETE" and request.removes:
            session.count(-1)
        if resource in _CONFIGURES and (request.operation != "DELETE" or request.removes):
            session.limits_changed()
        if resource in _QUOTAS and request.obj is not None and not request.subresource:
            session.warnings += counts_nothing(quota_of(request.obj), request.scheme)

    def record(self, txn: Transaction, session: Session) -> None:
        """Write the trail: what was refused since, then what was done here."""
        self._tally(session.audit)
        self._record(txn, session.audit)

    def _record(self, txn: Transaction, done: Iterable[Entry]) -> None:
        found = [*self._refused, *done]
        if not found:
            return
        if self._serial is None:
            self._serial = 1 + max((rows.decode_entry(row)["n"] for row in txn.rows(rows.AUDIT).values()), default=-1)
        self._refused.clear()
        for entry in found:
            if self._serial % rows.AUDIT_HELPING == 0:
                self._forget(txn, self._serial - rows.AUDIT_KEPT)
            try:
                row = rows.encode_entry(self._serial, entry)
            except Exception:
                # A line of the trail that cannot be written costs that line, never the write that it tells of.
                _log.exception("an entry of the quota trail was dropped: %s of %s", entry.act, entry.workload)
                continue
            txn.put_row(rows.AUDIT, str(self._serial), row)
            self._serial += 1

    @staticmethod
    def _forget(txn: Transaction, before: int) -> None:
        """Drop the entries before a running number, all at once: most transactions drop none."""
        for key in txn.rows(rows.AUDIT) if before > 0 else ():
            if int(key) < before:
                txn.delete_row(rows.AUDIT, key)

    def _tally(self, audit: Iterable[Entry]) -> None:
        for entry in audit:
            self.acts[entry.tenant, entry.act, entry.workload.partition("/")[0]] += 1
