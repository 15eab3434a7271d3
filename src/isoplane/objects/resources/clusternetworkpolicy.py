"""ClusterNetworkPolicy: the administrator's rules, before and after those of the namespaces."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Strategy
from isoplane.objects.rules import network


def _row(obj: Object, now: float) -> list[Cell]:
    spec = obj.get("spec") or {}
    return [metadata.name(obj), spec.get("tier") or "", spec.get("priority") or 0, age(obj, now)]


CLUSTERNETWORKPOLICIES = Resource(
    group="policy.networking.k8s.io",
    version="v1alpha2",
    plural="clusternetworkpolicies",
    kind="ClusterNetworkPolicy",
    namespaced=False,
    short_names=("cnp",),
    custom=True,
    rules=Rules(network.check_cluster_policy, of=("spec",)),
    strategy=Strategy(generation=True),
    printer=Printer(
        (NAME, Column("Tier", "The tier."), Column("Priority", "The precedence in the tier.", "integer"), AGE),
        _row,
    ),
)
