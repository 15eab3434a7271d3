"""QuotaDecision: the audit trail for people, computed from its rows on every read: who was admitted, refused, evicted, and why.

Each is in the namespace of the workload it concerns, named by its running number, so that names sort by time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from isoplane.objects.kinds import (
    PODS,
    QUOTADECISIONS,
    QUOTAPOLICIES,
    RESOURCEQUOTAS,
    TENANTQUOTAS,
    VIRTUALMACHINEINSTANCES,
)
from isoplane.objects.metadata import Object, rfc3339
from isoplane.objects.quantity import render
from isoplane.objects.scheme import Scheme
from isoplane.quota.explain import RULES
from isoplane.server.computed import Summary
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.accounts import kind_names
from isoplane.store.view import ReadView

Entries = Mapping[str, list[Mapping[str, Any]]]
"""Namespace → its entries, oldest first."""


class Trail:
    """The entries, sorted once for all namespaces that are asked about until there are new ones.

    Refusals are written by themselves, which is no new revision of the store: a new entry is found by its running number.
    """

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        self._next = 0
        """The number that the next entry will have."""
        self._found: Entries = {}
        self._kinds: tuple[int, Mapping[str, str]] = (-1, {})
        """Generation of the scheme; first part of an id → kind. Objects that are no workloads are refused by their number."""

    def decisions(self, view: ReadView, namespace: str) -> Iterable[Object]:
        """The QuotaDecisions of one namespace."""
        if not self._found or view.row(rows.AUDIT, str(self._next)) is not None:
            self._found = _sorted(view)
            self._next = 1 + max((entries[-1]["n"] for entries in self._found.values()), default=-1)
        if self._kinds[0] != self._scheme.generation:
            kinds = {r.singular: r.kind for r in self._scheme} | {first: r.kind for first, r in kind_names().items()}
            self._kinds = self._scheme.generation, kinds
        return [_decision(entry, self._kinds[1]) for entry in self._found.get(namespace, ())]


def _sorted(view: ReadView) -> Entries:
    found: dict[str, list[Mapping[str, Any]]] = {}
    entries = [view.decoded(rows.AUDIT, slot, rows.decode_entry) for slot in view.rows(rows.AUDIT)]
    for entry in sorted(filter(None, entries), key=lambda entry: entry["n"]):
        found.setdefault(entry["tenant"], []).append(entry)
    return found


def _decision(entry: Mapping[str, Any], kinds: Mapping[str, str]) -> Object:
    status: dict[str, Any] = {
        "decision": entry["act"].capitalize(),
        "priority": entry["priority"],
        "rule": entry["rule"],
        "reason": RULES.get(entry["rule"], ""),
    }
    if entry["workload"]:
        kind, _, name = entry["workload"].split("/", 2)
        status["workload"] = {"kind": kinds.get(kind, kind), "name": name, "uid": entry["uid"]}
    if short := entry.get("short"):
        status["short"] = [_short(line, amount) for line, amount in short.items()]
    for field in ("victims", "preemptor"):
        if entry.get(field):
            status[field] = entry[field]
    return {
        "apiVersion": QUOTADECISIONS.api_version,
        "kind": QUOTADECISIONS.kind,
        "metadata": {
            "name": f"{entry['n']:012}",
            "namespace": entry["tenant"],
            "creationTimestamp": rfc3339(entry["time"]),
        },
        "spec": {},
        "status": status,
    }


def _short(line: str, amount: int) -> dict[str, str]:
    node, _, resource = line.rpartition(" ")
    return {"limit": node, "resource": resource, "amount": render(resource, amount)}


def decisions_summary(scheme: Scheme) -> Summary:
    """What to register with the server's computed kinds."""
    sources = (RESOURCEQUOTAS, TENANTQUOTAS, QUOTAPOLICIES, PODS, VIRTUALMACHINEINSTANCES)
    return Summary(QUOTADECISIONS, sources, Trail(scheme).decisions)
