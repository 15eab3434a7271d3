"""Refuses the ``host`` of probes and life-cycle hooks: with it, whoever may create a Pod has the node connect where it likes.

`isoplane up --allow-probe-host` leaves this plug-in out; the node then still never asks its own addresses (node.destinations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isoplane.objects.errors import Cause
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.objects.validation import invalid
from isoplane.server.admission import AdmissionRequest, Operation, Plugin

_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_HOOKS = ("postStart", "preStop")
_TEXT = "may not be set: a probe asks the workload's own address (`isoplane up --allow-probe-host` permits it)"


class ProbeHostAdmission(Plugin):
    """New and changed workloads, and templates of machines; what is stored already is left alone."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        kinds = (PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES)
        return operation in ("CREATE", "UPDATE") and not subresource and resource in kinds

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Invalid naming every such field that the object did not have before."""
        if request.obj is None:
            return
        before = dict(hosts(request.old or {}))
        found = [path for path, host in hosts(request.obj) if before.get(path) != host]
        if found:
            causes = [Cause(path, f"Forbidden: {_TEXT}", "FieldValueForbidden") for path in found]
            raise invalid(request.resource, request.name, causes)


def hosts(obj: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, host) of everything in a workload, or in its template, that would send the node to a host."""
    spec, base = obj.get("spec") or {}, "spec"
    if "template" in spec:
        spec, base = (spec["template"] or {}).get("spec") or {}, "spec.template.spec"
    holders = [(base, spec)]
    for field in ("initContainers", "containers"):
        holders += [(f"{base}.{field}[{at}]", entry) for at, entry in enumerate(spec.get(field) or ())]
    for path, holder in holders:
        handlers = [(f"{path}.{name}", holder.get(name)) for name in _PROBES]
        handlers += [(f"{path}.lifecycle.{name}", (holder.get("lifecycle") or {}).get(name)) for name in _HOOKS]
        for where, handler in handlers:
            for action in ("httpGet", "tcpSocket"):
                host = ((handler or {}).get(action) or {}).get("host")
                if host:
                    yield f"{where}.{action}.host", str(host)
