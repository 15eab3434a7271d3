"""The ledger's bookkeeping over rows of the store, inside one transaction.

Reads decode a row once, however often it is asked for; what is edited is written back by :meth:`RowAccounts.flush`.  The line of
who waits is kept in memory between transactions (``Lines``), for sorting thousands at every wake-up would cost more than
deciding: a counter in the tenant's book tells whether the kept line is still true, so that a transaction that failed, or a dry
run, costs a rebuild and never a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import cache

from isoplane.objects import metadata
from isoplane.objects.kinds import PODDISRUPTIONBUDGETS, Resource
from isoplane.objects.metadata import Object
from isoplane.quota.accounts import Accounts, Book
from isoplane.quota.disruption import allowed_by, as_budget, selector_of
from isoplane.quota.line import WaitingLine
from isoplane.quota.model import Budget, Charge, Cohort, Limits, Policy, Quota, Waiting
from isoplane.quota.view import CohortTotals
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.rows import CohortConfig
from isoplane.store.record import Record
from isoplane.store.transaction import Transaction
from isoplane.store.view import ReadView
from isoplane.workload.registry import workload_resources

_NOBODY: Set[str] = frozenset()
_NO_LIMITS = Limits()
_NO_BOOK = Book()
_NO_TOTALS = CohortTotals()


@cache
def kind_names() -> dict[str, Resource]:
    """``pod`` → pods, ``vmi`` → virtualmachineinstances: the first part of a workload's id."""
    return {(r.short_names[0] if r.custom else r.singular): r for r in workload_resources()}


def stored_record(view: ReadView, charge: Charge) -> Record | None:
    """The object that a charge stands for; None when it is not there, or another one bears its name."""
    kind, namespace, name = charge.id.split("/", 2)
    record = view.get(kind_names()[kind], namespace, name)
    return record if record is not None and record.uid == charge.uid else None


def read_line(view: ReadView, tenant: str) -> WaitingLine:
    """Everyone of a tenant who waits, from the rows."""
    line, table = WaitingLine(), rows.waiting_table(tenant)
    for uid in view.rows(table):
        waiting = view.decoded(table, uid, rows.decode_waiting)
        if waiting is not None:
            line.put(waiting)
    return line


class Lines:
    """The waiting lines between transactions, each with the counter of the book it was true for."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[int, WaitingLine]] = {}
        self.busy: dict[str, set[str]] = {}
        """Cohort → tenants that may have someone waiting; a hint, cleaned when found empty."""
        self.told: dict[tuple[str, str], tuple[Record, Object]] = {}
        """(tenant, quota) → the record last written, and the object it was made of."""
        self.untold: set[tuple[str, str]] = set()
        """(tenant, quota) whose status could not be written by another namespace's write: the next one tries again."""


class RowAccounts(Accounts):
    """The books of every tenant, as one transaction sees and changes them."""

    def __init__(self, txn: Transaction, lines: Lines, *, dry_run: bool = False) -> None:
        self._txn = txn
        self._lines = lines
        self._dry_run = dry_run
        self._configs: dict[str, Limits | None] = {}
        self._books: dict[str, Book] = {}
        self._read: dict[str, Book] = {}
        """Books as they were read, until what is edited is written."""
        self._originals: dict[str, Book] = {}
        self._totals: dict[str, CohortTotals] = {}
        self._own_lines: dict[str, WaitingLine] = {}

    # configuration

    def limits(self, tenant: str) -> Limits | None:
        try:
            return self._configs[tenant]
        except KeyError:
            limits = self._configs[tenant] = self._txn.decoded(rows.CONFIG, tenant, rows.decode_config)
            return limits

    def set_limits(self, tenant: str, limits: Limits) -> None:
        self._txn.put_row(rows.CONFIG, tenant, rows.encode_config(limits))
        self._configs[tenant] = limits

    def forget(self, tenant: str) -> None:
        for uid in self._txn.rows(rows.charges_table(tenant)):
            self._txn.delete_row(rows.charges_table(tenant), uid)
        self._txn.delete_row(rows.BOOK, tenant)
        self._txn.delete_row(rows.CONFIG, tenant)
        self._configs[tenant] = None

    def tenants(self) -> Iterable[str]:
        return self._txn.rows(rows.CONFIG)

    def quotas(self, tenant: str) -> tuple[Quota, ...]:
        return (self.limits(tenant) or _NO_LIMITS).quotas

    def policy(self, tenant: str) -> Policy:
        return (self.limits(tenant) or _NO_LIMITS).policy

    def cohorts(self) -> Iterable[str]:
        return self._txn.rows(rows.COHORT)

    def _cohort(self, name: str) -> CohortConfig | None:
        return self._txn.decoded(rows.COHORT, name, rows.decode_cohort)

    def cohort(self, name: str) -> Cohort | None:
        config = self._cohort(name)
        return Cohort(name, config.capacity, config.max_grace) if config is not None else None

    def members(self, cohort: str) -> Iterable[str]:
        config = self._cohort(cohort)
        return config.members if config is not None else ()

    def define_cohort(self, cohort: Cohort, members: Sequence[str]) -> None:
        config = CohortConfig(cohort.capacity, tuple(members), cohort.max_grace)
        self._txn.put_row(rows.COHORT, cohort.name, rows.encode_cohort(config))

    def drop_cohort(self, name: str) -> None:
        self._txn.delete_row(rows.COHORT, name)
        self._txn.delete_row(rows.COHORT_TOTALS, name)
        self._totals.pop(name, None)

    def budgets(self, tenant: str) -> Iterable[Budget]:
        objects = [record.object() for record in self._txn.list(PODDISRUPTIONBUDGETS, tenant)]
        if not objects:
            return ()
        everyone = [found for resource in workload_resources() for found in self._txn.list(resource, tenant)]
        # By one of its labels, for a budget usually names one application of many.
        by_label: dict[tuple[str, str], list[Record]] = {}
        for found in everyone:
            for pair in found.labels.items():
                by_label.setdefault(pair, []).append(found)
        budgets = []
        for obj in objects:
            pairs = (((obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}).items()
            some = min((by_label.get(pair, []) for pair in pairs), key=len, default=everyone)
            budgets.append(as_budget(obj, ((found.uid, found.labels) for found in some)))
        return budgets

    def spend_budgets(self, leaving: Iterable[Charge], now: float) -> None:
        """Until the disruption controller sees them leave and counts anew."""
        by_tenant: dict[str, list[Record]] = {}
        for charge in leaving:
            if (record := stored_record(self._txn, charge)) is not None:
                by_tenant.setdefault(record.namespace, []).append(record)
        stamp = metadata.rfc3339(now)
        for tenant, records in by_tenant.items():
            for budget in list(self._txn.list(PODDISRUPTIONBUDGETS, tenant)):
                obj = budget.object()
                selector = selector_of(obj)
                if hit := [record for record in records if selector.matches(record.labels)]:
                    status = obj.get("status") or {}
                    disrupted = {record.name: stamp for record in hit if "eviction" in record.resource.subresources}
                    obj["status"] = {
                        **status,
                        "disruptionsAllowed": max(0, allowed_by(obj) - len(hit)),
                        "disruptedPods": {**(status.get("disruptedPods") or {}), **disrupted},
                    }
                    self._txn.put(PODDISRUPTIONBUDGETS, obj)

    # books

    def book(self, tenant: str) -> Book:
        book = self._books.get(tenant) or self._read.get(tenant)
        if book is None:
            book = self._read[tenant] = self._txn.decoded(rows.BOOK, tenant, rows.decode_book) or _NO_BOOK
        return book

    def edit(self, tenant: str) -> Book:
        book = self._books.get(tenant)
        if book is None:
            self._originals[tenant] = self.book(tenant)
            book = self._books[tenant] = self._originals[tenant].copy()
        return book

    def cohort_totals(self, name: str) -> CohortTotals:
        known = self._totals.get(name)
        if known is not None:
            return known
        return self._txn.decoded(rows.COHORT_TOTALS, name, rows.decode_cohort_totals) or _NO_TOTALS

    def edit_cohort(self, name: str) -> CohortTotals:
        totals = self._totals.get(name)
        if totals is None:
            totals = self._totals[name] = self.cohort_totals(name).copy()
        return totals

    # entries

    def charge(self, tenant: str, uid: str) -> Charge | None:
        return self._txn.decoded(rows.charges_table(tenant), uid, rows.decode_charge)

    def charges(self, tenant: str) -> Iterable[Charge]:
        table = rows.charges_table(tenant)
        found = (self._txn.decoded(table, uid, rows.decode_charge) for uid in self._txn.rows(table))
        return [charge for charge in found if charge is not None]

    def waiter(self, tenant: str, uid: str) -> Waiting | None:
        return self._txn.decoded(rows.waiting_table(tenant), uid, rows.decode_waiting)

    def line(self, tenant: str) -> WaitingLine:
        """Everyone of the tenant who waits, in order."""
        if (own := self._own_lines.get(tenant)) is not None:
            return own
        version = self.book(tenant).line
        kept = self._lines.kept.get(tenant)
        if self._dry_run:
            line = read_line(self._txn, tenant)
        elif kept is not None and kept[0] == version:
            line = kept[1]
        else:
            line = read_line(self._txn, tenant)
            self._lines.kept[tenant] = (version, line)
        self._own_lines[tenant] = line
        return line

    def busy(self, cohort: str) -> Set[str]:
        return self._lines.busy.get(cohort, _NOBODY)

    def idle(self, tenant: str) -> None:
        self._lines.busy.get(self.policy(tenant).cohort, set()).discard(tenant)

    def places(self, tenant: str) -> Iterable[str]:
        return self._txn.rows(rows.places_table(tenant))

    def has_place(self, tenant: str, owner: str) -> bool:
        return self._txn.row(rows.places_table(tenant), owner) is not None

    def keep_place(self, tenant: str, owner: str) -> None:
        self._txn.put_row(rows.places_table(tenant), owner, b"{}")

    def drop_place(self, tenant: str, owner: str) -> None:
        self._txn.delete_row(rows.places_table(tenant), owner)

    def _changed_line(self, tenant: str) -> WaitingLine:
        line = self.line(tenant)
        book = self.edit(tenant)
        book.line += 1
        if not self._dry_run:
            self._lines.kept[tenant] = (book.line, line)
        return line

    def _keep_charge(self, charge: Charge) -> None:
        self._txn.put_row(rows.charges_table(charge.tenant), charge.uid, rows.encode_charge(charge))

    def _drop_charge(self, charge: Charge) -> None:
        self._txn.delete_row(rows.charges_table(charge.tenant), charge.uid)

    def _keep_waiting(self, waiting: Waiting) -> None:
        tenant = waiting.charge.tenant
        self._changed_line(tenant).put(waiting)
        self._txn.put_row(rows.waiting_table(tenant), waiting.charge.uid, rows.encode_waiting(waiting))
        if not self._dry_run:
            self._lines.busy.setdefault(self.policy(tenant).cohort, set()).add(tenant)

    def _drop_waiting(self, waiting: Waiting) -> None:
        tenant = waiting.charge.tenant
        self._changed_line(tenant).drop(waiting.charge.uid)
        self._txn.delete_row(rows.waiting_table(tenant), waiting.charge.uid)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what is done inside, in the books and in the transaction, when it raises; the error is passed on."""
        books = {tenant: book.copy() for tenant, book in self._books.items()}
        totals = {name: kept.copy() for name, kept in self._totals.items()}
        configs, originals = dict(self._configs), dict(self._originals)
        try:
            with self._txn.attempt():
                yield
        except BaseException:
            self._books, self._totals, self._configs, self._originals = books, totals, configs, originals
            # Lines are changed in place: read anew, here and in the next transaction.
            for tenant in self._own_lines:
                self._lines.kept.pop(tenant, None)
            self._own_lines.clear()
            raise

    # the end of the transaction

    def flush(self) -> dict[str, list[str]]:
        """Write the sums back. Returns, by tenant, the quotas whose use changed."""
        changed: dict[str, list[str]] = {}
        for tenant, book in self._books.items():
            before = self._originals[tenant]
            if book != before:
                self._txn.put_row(rows.BOOK, tenant, rows.encode_book(book), book)
            names = [
                name
                for name, totals in book.quotas.items()
                if name not in before.quotas or totals.used != before.quotas[name].used
            ]
            if names:
                changed[tenant] = names
        self._books.clear()
        self._read.clear()
        self._originals.clear()
        for name, totals in self._totals.items():
            self._txn.put_row(rows.COHORT_TOTALS, name, rows.encode_cohort_totals(totals))
        self._totals.clear()
        return changed
