"""Pod: containers that share a sandbox. Its rules, defaults and columns are long and stand in files of their own."""

from __future__ import annotations

from isoplane.objects.columns import pod as columns
from isoplane.objects.defaulting import pod as defaulting
from isoplane.objects.resource import Resource, Rules, Selectable, Strategy, Subresource, status_of
from isoplane.objects.rules import pod as rules

PODS = Resource(
    group="",
    version="v1",
    plural="pods",
    kind="Pod",
    short_names=("po",),
    categories=("all",),
    subresources={
        **status_of("Pod"),
        "binding": Subresource("Binding", ("create",)),
        "eviction": Subresource("Eviction", ("create",), "policy", "v1"),
        "log": Subresource("Pod", ("get",)),
        "exec": Subresource("PodExecOptions", ("create", "get")),
    },
    carried_out=True,
    default=defaulting.apply,
    rules=Rules(rules.check, rules.check_update, of=("spec",)),
    strategy=Strategy(
        generation=True, initial_status={"phase": "Pending"}, node=("spec", "nodeName"), returns_deleted=True
    ),
    printer=columns.PRINTER,
    selectable=(
        Selectable("spec.nodeName", indexed=True),
        Selectable("status.phase"),
        Selectable("spec.restartPolicy"),
        Selectable("spec.schedulerName"),
        Selectable("spec.serviceAccountName"),
        Selectable("spec.hostNetwork", absent="false"),
        Selectable("status.podIP"),
        Selectable("status.nominatedNodeName"),
    ),
)
