"""QuotaUsage: a namespace's ledger for people, computed from its rows on every read and never stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from isoplane.objects.kinds import (
    PODS,
    QUOTAPOLICIES,
    QUOTAUSAGES,
    RESOURCEQUOTAS,
    TENANTQUOTAS,
    VIRTUALMACHINEINSTANCES,
)
from isoplane.objects.metadata import Object, rfc3339
from isoplane.objects.quantity import render
from isoplane.quota.accounts import Book
from isoplane.quota.model import Charge, Waiting
from isoplane.server.computed import Summary
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.accounts import kind_names
from isoplane.store.view import ReadView

NAME = "default"


def usage_of(view: ReadView, namespace: str) -> Iterable[Object]:
    """The one QuotaUsage of a namespace; none where nothing concerns quota."""
    config = view.decoded(rows.CONFIG, namespace, rows.decode_config)
    if config is None:
        return
    book = view.decoded(rows.BOOK, namespace, rows.decode_book) or Book()
    hard: dict[str, int] = {}
    for quota in config.quotas:
        if not quota.scopes:
            for name, value in quota.hard.items():
                hard[name] = min(value, hard.get(name, value))
    used = dict(book.whole.used)
    for quota in config.quotas:
        for name, value in book.quotas[quota.name].used.items() if quota.name in book.quotas else ():
            if not quota.scopes:
                used.setdefault(name, value)
    guaranteed = config.policy.guaranteed
    borrowed = {n: used.get(n, 0) - v for n, v in guaranteed.items() if used.get(n, 0) > v}
    table, line = rows.charges_table(namespace), rows.waiting_table(namespace)
    charges = [c for uid in view.rows(table) if (c := view.decoded(table, uid, rows.decode_charge)) is not None]
    waiting = [w for uid in view.rows(line) if (w := view.decoded(line, uid, rows.decode_waiting)) is not None]
    yield {
        "apiVersion": QUOTAUSAGES.api_version,
        "kind": QUOTAUSAGES.kind,
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {},
        "status": {
            "hard": amounts(hard),
            "used": amounts(used),
            "evicting": amounts(book.whole.evicting),
            "held": amounts(book.whole.held),
            "borrowed": amounts(borrowed),
            "charges": [_charge(c) for c in sorted(charges, key=lambda c: c.id)],
            "holds": [_waiting(w) for w in sorted(waiting, key=lambda w: w.order) if w.held],
            "waiting": [_waiting(w) for w in sorted(waiting, key=lambda w: w.order) if not w.held],
        },
    }


def amounts(given: Mapping[str, int]) -> dict[str, str]:
    """Canonical quantities, in the order of their names."""
    return {name: render(name, value) for name, value in sorted(given.items()) if value or name in given}


def _charge(charge: Charge) -> dict[str, Any]:
    kind, _, name = charge.id.split("/", 2)
    entry: dict[str, Any] = {
        "kind": kind_names()[kind].kind,
        "name": name,
        "uid": charge.uid,
        "priority": charge.priority,
        "evicting": charge.evicting,
        "amounts": amounts(charge.amounts),
    }
    return entry


def _waiting(waiting: Waiting) -> dict[str, Any]:
    entry = {**_charge(waiting.charge), "since": rfc3339(waiting.since)}
    del entry["evicting"]
    if own := [name for name in waiting.victims if name.split("/", 2)[1] == waiting.charge.tenant]:
        entry["victims"] = own
    if foreign := len(waiting.victims) - len(own):
        entry["victimsElsewhere"] = foreign
    if waiting.expires:
        entry["expires"] = rfc3339(waiting.expires)
    return entry


def usage_summary() -> Summary:
    """What to register with the server's computed kinds."""
    return Summary(QUOTAUSAGES, (RESOURCEQUOTAS, TENANTQUOTAS, QUOTAPOLICIES, PODS, VIRTUALMACHINEINSTANCES), usage_of)
