"""Quota in Prometheus' text format, by tenant: what is used, held, coming back and allowed, who waits, and what was decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from isoplane.objects.quantity import is_cpu
from isoplane.quota.ledger import Book
from isoplane.server.quota_admission import rows
from isoplane.store.view import ReadView

_HELP = {
    "isoplane_quota_hard": "The limit of a ResourceQuota.",
    "isoplane_quota_used": "What is charged to a ResourceQuota.",
    "isoplane_quota_held": "What is held for workloads that wait for their victims.",
    "isoplane_quota_evicting": "The part of used that comes back from workloads that are leaving.",
    "isoplane_quota_waiting": "Workloads that wait for quota, with and without a hold.",
    "isoplane_quota_decisions_total": "Decisions since the start, by what was decided.",
}


def metrics(view: ReadView, acts: Mapping[tuple[str, str], int]) -> str:
    """The exposition. ``acts``: (tenant, act) → count, as the plug-in keeps it. CPU in cores, as Prometheus has it."""
    samples: dict[str, list[str]] = {name: [] for name in _HELP}
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
                    value = amounts.get(resource, 0)
                    labels = {"namespace": tenant, "quota": quota.name, "resource": resource}
                    samples[f"isoplane_quota_{column}"].append(_labels(labels) + _number(resource, value))
        for held, count in sorted(_waiting(view, tenant).items()):
            labels = {"namespace": tenant, "held": str(held).lower()}
            samples["isoplane_quota_waiting"].append(f"{_labels(labels)}{count}")
    for (tenant, act), count in sorted(acts.items()):
        samples["isoplane_quota_decisions_total"].append(f"{_labels({'namespace': tenant, 'decision': act})}{count}")
    return "".join(_family(name, lines) for name, lines in samples.items() if lines)


def _waiting(view: ReadView, tenant: str) -> dict[bool, int]:
    found = {False: 0, True: 0}
    table = rows.waiting_table(tenant)
    for uid in view.rows(table):
        waiting = view.decoded(table, uid, rows.decode_waiting)
        if waiting is not None:
            found[waiting.held] += 1
    return found


def _number(resource: str, value: int) -> str:
    return f"{value / 1000:g}" if is_cpu(resource) else str(value)


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "} "


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family(name: str, lines: Iterable[str]) -> str:
    kind = "counter" if name.endswith("_total") else "gauge"
    return "\n".join(_family_lines(name, kind, lines)) + "\n"


def _family_lines(name: str, kind: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"# HELP {name} {_HELP[name]}"
    yield f"# TYPE {name} {kind}"
    for line in lines:
        yield name + line
