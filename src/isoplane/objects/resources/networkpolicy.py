"""NetworkPolicy: what the workloads of a namespace may talk to."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age, selector_text
from isoplane.objects.defaulting.shape import mapping, mappings
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Strategy
from isoplane.objects.rules import network


def _default(obj: dict[str, Any]) -> None:
    spec = mapping(obj, "spec")
    if spec is None:
        return
    for direction in ("ingress", "egress"):
        for rule in mappings(spec, direction):
            for port in mappings(rule, "ports"):
                port.setdefault("protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _row(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), selector_text((obj.get("spec") or {}).get("podSelector")), age(obj, now)]


NETWORKPOLICIES = Resource(
    group="networking.k8s.io",
    version="v1",
    plural="networkpolicies",
    kind="NetworkPolicy",
    short_names=("netpol",),
    default=_default,
    rules=Rules(network.check_policy, of=("spec",)),
    strategy=Strategy(generation=True),
    printer=Printer((NAME, Column("Pod-Selector", "The pods to which this policy applies."), AGE), _row),
)
