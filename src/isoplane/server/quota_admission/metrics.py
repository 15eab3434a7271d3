"""Quota for Prometheus, by tenant: what is used, held, coming back and allowed, who waits, and what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from isoplane.objects.exposition import Family, Sample
from isoplane.objects.quantity import is_cpu
from isoplane.quota.accounts import Book
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.accounts import kind_names
from isoplane.store.view import ReadView

_HELP = {
    "isoplane_quota_hard": "The limit of a ResourceQuota.",
    "isoplane_quota_used": "What is charged to a ResourceQuota.",
    "isoplane_quota_held": "What is held for workloads that wait for their victims.",
    "isoplane_quota_evicting": "The part of used that comes back from workloads that are leaving.",
    "isoplane_quota_waiting": "Workloads that wait for quota, with and without a hold.",
}
_DECISIONS = {"admit": "admit", "wait": "wait", "refuse": "deny"}
"""Acts of the audit trail that are decisions → the decision's name."""
Acts = Mapping[tuple[str, str, str], int]
"""(tenant, act, first part of the workload's id) → how often."""


def quota_families(view: ReadView, acts: Acts) -> Iterator[Family]:
    """``acts``: as the plug-in counts them. CPU in cores and everything else in its own unit, as Prometheus has it."""
    samples: dict[str, list[Sample]] = {name: [] for name in _HELP}
    for tenant in sorted(view.rows(rows.CONFIG)):
        config = view.decoded(rows.CONFIG, tenant, rows.decode_config)
        if config is None:
            continue
        book = view.decoded(rows.BOOK, tenant, rows.decode_book) or Book()
        for quota in config.quotas:
            totals = book.quotas.get(quota.name)
            columns = {
                "hard": quota.hard,
                "used": totals.used if totals else {},
                "held": totals.held if totals else {},
                "evicting": totals.evicting if totals else {},
            }
            for column, amounts in columns.items():
                for resource in sorted(quota.hard):
                    labels = {"namespace": tenant, "quota": quota.name, "resource": resource}
                    value = amounts.get(resource, 0)
                    samples[f"isoplane_quota_{column}"].append(Sample(labels, _amount(resource, value)))
        for held, count in sorted(_waiting(view, tenant).items()):
            labels = {"namespace": tenant, "held": str(held).lower()}
            samples["isoplane_quota_waiting"].append(Sample(labels, count))
    for name, found in samples.items():
        yield Family(name, "gauge", _HELP[name], found)
    yield from _decided(acts)


def _decided(acts: Acts) -> Iterator[Family]:
    decisions: Counter[tuple[str, str]] = Counter()
    evictions: Counter[tuple[str, str]] = Counter()
    kinds = kind_names()
    for (tenant, act, kind), count in acts.items():
        if act in _DECISIONS:
            decisions[tenant, _DECISIONS[act]] += count
        elif act == "evict":
            evictions[tenant, kinds[kind].kind] += count
    yield Family(
        "isoplane_quota_decisions_total",
        "counter",
        "Decisions on workloads since the start, by what was decided.",
        [Sample({"namespace": tenant, "decision": d}, count) for (tenant, d), count in sorted(decisions.items())],
    )
    yield Family(
        "isoplane_quota_evictions_total",
        "counter",
        "Workloads that quota evicted since the start, by the namespace and kind of who had to leave.",
        [Sample({"namespace": tenant, "kind": kind}, count) for (tenant, kind), count in sorted(evictions.items())],
    )


def _waiting(view: ReadView, tenant: str) -> dict[bool, int]:
    found = {False: 0, True: 0}
    table = rows.waiting_table(tenant)
    for uid in view.rows(table):
        waiting = view.decoded(table, uid, rows.decode_waiting)
        if waiting is not None:
            found[waiting.held] += 1
    return found


def _amount(resource: str, value: int) -> float:
    return value / 1000 if is_cpu(resource) else value
