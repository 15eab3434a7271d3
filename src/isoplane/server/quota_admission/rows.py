"""The ledger's rows in the store's side tables, and their JSON. Amounts as in the ledger, times in POSIX seconds.

quota.config         tenant → its quotas and policy, compiled
quota.book           tenant → its sums
quota.cohort         cohort → capacity and members
quota.cohort-totals  cohort → sums over its members
quota.charge/TENANT  uid → charge
quota.waiting/TENANT uid → place in line, or hold
quota.audit          running number → entry; the newest AUDIT_KEPT are kept, and at most AUDIT_HELPING more
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from isoplane.quota.accounts import Book
from isoplane.quota.audit import Entry
from isoplane.quota.model import DEFAULT_MAX_GRACE, Amounts, Charge, Limits, Policy, Quota, ScopeTerm, Totals, Waiting
from isoplane.quota.view import CohortTotals
from isoplane.workload.accounting import Accounting

CONFIG, BOOK = "quota.config", "quota.book"
COHORT, COHORT_TOTALS = "quota.cohort", "quota.cohort-totals"
AUDIT = "quota.audit"
AUDIT_KEPT, AUDIT_HELPING = 4096, 256


_LONG = b"!"
"""Marks a row with a sum beyond 64 bits, which the fast codec cannot write."""


def _dumps(value: Any) -> bytes:
    """JSON, whatever the sums add up to: many amounts of 64 bits make one that has more."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _LONG + json.dumps(value).encode()


def _loads(data: bytes) -> Any:
    return json.loads(data[1:]) if data.startswith(_LONG) else orjson.loads(data)


def encode_entry(number: int, entry: Entry) -> bytes:
    """A line of the audit trail under its running number."""
    return _dumps({"n": number, **entry.to_dict()})


def decode_entry(data: bytes) -> dict[str, Any]:
    """A line of the audit trail, with its number as ``n``."""
    raw: dict[str, Any] = _loads(data)
    return raw


def charges_table(tenant: str) -> str:
    return f"quota.charge/{tenant}"


def places_table(tenant: str) -> str:
    return f"quota.places/{tenant}"


def waiting_table(tenant: str) -> str:
    return f"quota.waiting/{tenant}"


@dataclass(frozen=True, slots=True)
class CohortConfig:
    capacity: Amounts = field(hash=False)
    members: tuple[str, ...] = ()
    max_grace: int = DEFAULT_MAX_GRACE


def encode_config(config: Limits) -> bytes:
    policy = config.policy
    return _dumps(
        {
            "quotas": [
                {"name": q.name, "hard": q.hard, "scopes": [[t.scope, t.operator, sorted(t.values)] for t in q.scopes]}
                for q in config.quotas
            ],
            "policy": {
                "threshold": policy.threshold,
                "min_run": policy.min_run,
                "guaranteed": policy.guaranteed,
                "borrowing": policy.borrowing,
                "lending": policy.lending,
                "migration_reserve": policy.migration_reserve,
                "cohort": policy.cohort,
                "accounting": list(policy.accounting),
                "max_pending": policy.max_pending,
            },
        }
    )


def decode_config(data: bytes) -> Limits:
    raw = _loads(data)
    quotas = tuple(
        Quota(q["name"], q["hard"], tuple(ScopeTerm(s, o, frozenset(v)) for s, o, v in q["scopes"]))
        for q in raw["quotas"]
    )
    accounting = raw["policy"]["accounting"]
    # Earlier versions stored the mode alone.
    counted = Accounting(accounting) if isinstance(accounting, str) else Accounting(*accounting)
    return Limits(quotas, Policy(**{**raw["policy"], "accounting": counted}))


def encode_cohort(config: CohortConfig) -> bytes:
    return _dumps({"capacity": config.capacity, "members": config.members, "max_grace": config.max_grace})


def decode_cohort(data: bytes) -> CohortConfig:
    raw = _loads(data)
    return CohortConfig(raw["capacity"], tuple(raw["members"]), raw.get("max_grace", DEFAULT_MAX_GRACE))


def _totals(totals: Totals) -> list[dict[str, int]]:
    return [totals.used, totals.held, totals.evicting]


def encode_book(book: Book) -> bytes:
    quotas = {name: _totals(totals) for name, totals in book.quotas.items()}
    return _dumps({"quotas": quotas, "whole": _totals(book.whole), "line": book.line})


def decode_book(data: bytes) -> Book:
    raw = _loads(data)
    return Book({name: Totals(*t) for name, t in raw["quotas"].items()}, Totals(*raw["whole"]), raw["line"])


def encode_cohort_totals(totals: CohortTotals) -> bytes:
    return _dumps([totals.taken, totals.claimed])


def decode_cohort_totals(data: bytes) -> CohortTotals:
    return CohortTotals(*_loads(data))


def _charge(charge: Charge) -> dict[str, Any]:
    """Only what is set: a smaller row is a cheaper commit."""
    raw: dict[str, Any] = {"uid": charge.uid, "id": charge.id, "amounts": charge.amounts, "created": charge.created}
    if charge.scopes:
        raw["scopes"] = sorted(charge.scopes)
    if charge.priority:
        raw["priority"] = charge.priority
    if charge.priority_class:
        raw["priority_class"] = charge.priority_class
    if charge.cost != 1:
        raw["cost"] = charge.cost
    if charge.since:
        raw["since"] = charge.since
    for flag in ("evicting", "stuck", "finished", "migrating"):
        if getattr(charge, flag):
            raw[flag] = True
    return raw


def _charge_of(raw: dict[str, Any]) -> Charge:
    raw["scopes"] = frozenset(raw.get("scopes") or ())
    raw["tenant"] = raw["id"].split("/", 2)[1]
    return Charge(**raw)


def encode_charge(charge: Charge) -> bytes:
    return _dumps(_charge(charge))


def decode_charge(data: bytes) -> Charge:
    return _charge_of(_loads(data))


def encode_waiting(waiting: Waiting) -> bytes:
    return _dumps(
        {
            "charge": _charge(waiting.charge),
            "held": waiting.held,
            "victims": waiting.victims,
            "since": waiting.since,
            "expires": waiting.expires,
            "plans": waiting.plans,
            "passed": waiting.passed,
            "preempts": waiting.preempts,
        }
    )


def decode_waiting(data: bytes) -> Waiting:
    raw = _loads(data)
    raw["charge"] = _charge_of(raw["charge"])
    raw["victims"] = tuple(raw["victims"])
    return Waiting(**raw)
