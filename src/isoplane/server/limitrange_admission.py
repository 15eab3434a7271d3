"""LimitRange admission: fill in what a new Pod leaves open, refuse a Pod or VMI outside its namespace's bounds.

The rules are ``quota.limits``'s.  Place it before quota, which counts what is filled in here.
"""

from __future__ import annotations

from isoplane.objects.kinds import LIMITRANGES, PODS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.objects.metadata import Object
from isoplane.quota.limits import ANNOTATION, fill_in, pod_violations, refusal, vmi_violations
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.server.priority_admission import forbidden


class LimitRangeAdmission(Plugin):
    """New Pods and VMIs only: lowering a bound touches nobody who is there already."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return operation == "CREATE" and not subresource and resource in (PODS, VIRTUALMACHINEINSTANCES)

    def mutate(self, request: AdmissionRequest) -> None:
        obj = request.obj
        if obj is None or request.resource is not PODS:
            return
        ranges = _ranges(request)
        if not ranges:
            return
        spec, told = fill_in(obj.get("spec") or {}, ranges)
        if told:
            annotations = {
                **(obj["metadata"].get("annotations") or {}),
                ANNOTATION: "LimitRanger plugin set: " + "; ".join(told),
            }
            request.obj = {**obj, "metadata": {**obj["metadata"], "annotations": annotations}, "spec": spec}

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Forbidden with everything that the first violated LimitRange holds against the object."""
        if request.obj is None:
            return
        spec = request.obj.get("spec") or {}
        check = pod_violations if request.resource is PODS else vmi_violations
        for limit_range in _ranges(request):
            if violations := check(spec, limit_range):
                raise forbidden(request, refusal(violations))


def _ranges(request: AdmissionRequest) -> list[Object]:
    """The namespace's LimitRanges by name, so that the same ones always win."""
    found = [record.object() for record in request.view.list(LIMITRANGES, request.namespace)]
    return sorted(found, key=lambda obj: str(obj["metadata"]["name"]))
