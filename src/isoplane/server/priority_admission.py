"""Priority: from a class's name to the integer that quota compares, the same for every kind of workload.

A workload names its PriorityClass in ``spec.priorityClassName`` or in the annotation ``scheduling.k8s.io/priority-class``; the
two may not differ.  Without a name the global default counts, without one 0.  The adapter records name, integer and
preemption policy in the kind's own way.  Source: kube-apiserver's Priority admission plug-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.errors import Cause, Forbidden
from isoplane.objects.kinds import PRIORITYCLASSES, VIRTUALMACHINES, Resource
from isoplane.objects.validation import invalid
from isoplane.server import problems
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.store.view import ReadView
from isoplane.workload.adapters import PRIORITY_HANDLE, adapter_for

PREEMPTS = "PreemptLowerPriority"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A class as a workload gets it; ``name`` '' when there is none."""

    name: str
    value: int
    preemption_policy: str


class PriorityAdmission(Plugin):
    """Place it before quota."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        if subresource:
            return False
        if resource is PRIORITYCLASSES or resource is VIRTUALMACHINES:
            return operation != "DELETE"
        return operation == "CREATE" and adapter_for(resource) is not None

    def mutate(self, request: AdmissionRequest) -> None:
        adapter = adapter_for(request.resource)
        if adapter is None or request.obj is None:
            return
        obj = request.obj
        spec = obj.get("spec") or {}
        resolved = self._resolve(request, named(request, obj, spec, ""))
        self._check_given(request, spec, resolved)
        request.obj = adapter.set_priority(obj, resolved.name, resolved.value, resolved.preemption_policy)

    def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None:
            return
        if request.resource is VIRTUALMACHINES:
            # Said when the owner is written, not when it first starts.
            template = (request.obj.get("spec") or {}).get("template") or {}
            named(request, template, template.get("spec") or {}, "spec.template.")
        elif request.resource is PRIORITYCLASSES:
            self._check_default(request)

    @staticmethod
    def _resolve(request: AdmissionRequest, name: str) -> Resolved:
        if not name:
            return default_class(request.view) or Resolved("", 0, PREEMPTS)
        record = request.view.get(PRIORITYCLASSES, "", name)
        if record is None:
            raise forbidden(request, f"no PriorityClass with name {name} was found")
        return _resolved(record.object())

    @staticmethod
    def _check_given(request: AdmissionRequest, spec: Mapping[str, Any], resolved: Resolved) -> None:
        """An integer or a policy that the author wrote must be what the class says."""
        given = spec.get("priority")
        if given is not None and given != resolved.value:
            raise forbidden(
                request,
                f"the integer value of priority ({given}) must not be provided in {request.resource.singular} spec; "
                f"priority admission controller computed {resolved.value} from the given PriorityClass name",
            )
        policy = spec.get("preemptionPolicy")
        if policy is not None and policy != resolved.preemption_policy:
            raise forbidden(
                request,
                f"the string value of PreemptionPolicy ({policy}) must not be provided in {request.resource.singular} "
                f"spec; priority admission controller computed {resolved.preemption_policy} from the given "
                "PriorityClass name",
            )

    @staticmethod
    def _check_default(request: AdmissionRequest) -> None:
        assert request.obj is not None
        if not request.obj.get("globalDefault"):
            return
        known = default_class(request.view)
        if known is not None and known.name != request.name:
            raise forbidden(
                request, f"PriorityClass {known.name} is already marked as default. Only one default can exist"
            )


def named(request: AdmissionRequest, obj: Mapping[str, Any], spec: Mapping[str, Any], path: str) -> str:
    """The class that an object (or a template at ``path``) names. Raises Invalid when its two ways of saying it differ."""
    in_spec = str(spec.get("priorityClassName") or "")
    in_handle = str(metadata.annotations_of(obj).get(PRIORITY_HANDLE) or "")
    if in_spec and in_handle and in_spec != in_handle:
        message = (
            f'Invalid value: "{in_handle}": differs from {path}spec.priorityClassName "{in_spec}"; '
            "set one of the two, or both to the same class"
        )
        field = f"{path}metadata.annotations[{PRIORITY_HANDLE}]"
        raise invalid(request.resource, request.name, [Cause(field, message, "FieldValueInvalid")])
    return in_spec or in_handle


def default_class(view: ReadView) -> Resolved | None:
    """The global default; of several (written before they were refused) the least, as upstream."""
    found = [_resolved(obj) for record in view.list(PRIORITYCLASSES) if (obj := record.object()).get("globalDefault")]
    return min(found, key=lambda resolved: resolved.value, default=None)


def _resolved(obj: Mapping[str, Any]) -> Resolved:
    return Resolved(metadata.name(obj), int(obj.get("value") or 0), str(obj.get("preemptionPolicy") or PREEMPTS))


def forbidden(request: AdmissionRequest, why: str) -> Forbidden:
    resource, name = request.resource, request.name
    return Forbidden(f'{resource.qualified} "{name}" is forbidden: {why}', details=problems.details(resource, name))
