"""LimitRange admission: fill in what a new Pod leaves open, refuse a Pod or VMI outside its namespace's bounds.

The rules are ``workload.limits``'s, each kind's by its adapter.  Place it before quota, which counts what is filled in here.
"""

from __future__ import annotations

from isoplane.objects.kinds import LIMITRANGES, Resource
from isoplane.objects.metadata import Object
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.server.priority_admission import forbidden
from isoplane.workload.limits import ANNOTATION, refusal
from isoplane.workload.registry import adapter_for


class LimitRangeAdmission(Plugin):
    """New Pods and VMIs only: lowering a bound touches nobody who is there already."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return operation == "CREATE" and not subresource and adapter_for(resource) is not None

    def mutate(self, request: AdmissionRequest) -> None:
        obj, adapter = request.obj, adapter_for(request.resource)
        ranges = _ranges(request)
        if obj is None or adapter is None or not ranges:
            return
        filled, told = adapter.fill_limits(obj, ranges)
        if told:
            annotations = {
                **(obj["metadata"].get("annotations") or {}),
                ANNOTATION: "LimitRanger plugin set: " + "; ".join(told),
            }
            request.obj = {**filled, "metadata": {**obj["metadata"], "annotations": annotations}}

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Forbidden with everything that the first violated LimitRange holds against the object."""
        adapter = adapter_for(request.resource)
        if request.obj is None or adapter is None:
            return
        for limit_range in _ranges(request):
            if violations := adapter.limit_violations(request.obj, limit_range):
                raise forbidden(request, refusal(violations))


def _ranges(request: AdmissionRequest) -> list[Object]:
    """The namespace's LimitRanges by name, so that the same ones always win."""
    found = [record.object() for record in request.view.list(LIMITRANGES, request.namespace)]
    return sorted(found, key=lambda obj: str(obj["metadata"]["name"]))
