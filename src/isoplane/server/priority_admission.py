"""Priority: from a class's name to the integer that quota compares, the same for every kind of workload.

The rules are quota.priority's; the adapter records name, integer and preemption policy in the kind's own way.  What was
recorded stands: an update that says otherwise is refused, as upstream refuses another ``spec.priority``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.http import apierrors
from isoplane.objects import metadata
from isoplane.objects.errors import Cause, Forbidden
from isoplane.objects.kinds import PRIORITYCLASSES, QUOTAPOLICIES, VIRTUALMACHINES, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.reader import ObjectReader, Stored
from isoplane.objects.validation import invalid
from isoplane.quota.priority import NO_CLASS, HandleConflict, PriorityClass, class_name, class_of, default_class
from isoplane.quota.read import POLICY_NAME, max_priority
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.workload.adapters import PREEMPTION_ANNOTATION, PRIORITY_ANNOTATION, PRIORITY_HANDLE
from isoplane.workload.registry import adapter_for

_RECORDED = (PRIORITY_ANNOTATION, PREEMPTION_ANNOTATION)


class PriorityAdmission(Plugin):
    """Place it before quota."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[Stored, PriorityClass]] = {}
        """Class by name, as last read: every new workload asks, and classes hardly change."""
        self._bounds: dict[str, tuple[Stored, int | None]] = {}
        """The highest priority by namespace, likewise."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        if operation == "UPDATE" and adapter_for(resource) is not None:
            return True  # Every subresource: a status update may carry annotations too.
        if subresource:
            return False
        if resource is PRIORITYCLASSES or resource is VIRTUALMACHINES:
            return operation != "DELETE"
        return operation == "CREATE" and adapter_for(resource) is not None

    def mutate(self, request: AdmissionRequest) -> None:
        adapter = adapter_for(request.resource)
        if adapter is None or request.obj is None:
            return
        if request.operation == "UPDATE":
            request.obj = _settled(request)
            return
        obj = request.obj
        spec = obj.get("spec") or {}
        resolved = self._resolve(request, named(request, obj, ""))
        self._check_given(request, spec, resolved)
        self._check_bound(request, resolved)
        request.obj = adapter.set_priority(obj, resolved.name, resolved.value, resolved.preemption_policy)

    def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None:
            return
        if request.resource is VIRTUALMACHINES:
            # Said when the owner is written, not when it first starts.
            template = (request.obj.get("spec") or {}).get("template") or {}
            named(request, template, "spec.template.")
        elif request.resource is PRIORITYCLASSES:
            self._check_default(request)

    def _class(self, record: Stored) -> PriorityClass:
        known = self._read.get(record.name)
        if known is None or known[0] is not record:
            known = self._read[record.name] = (record, class_of(record.object()))
        return known[1]

    def _default(self, view: ObjectReader) -> PriorityClass:
        return default_class(self._class(record) for record in view.list(PRIORITYCLASSES))

    def _resolve(self, request: AdmissionRequest, name: str) -> PriorityClass:
        if not name:
            return self._default(request.view)
        record = request.view.get(PRIORITYCLASSES, "", name)
        if record is None:
            raise forbidden(request, f"no PriorityClass with name {name} was found")
        return self._class(record)

    @staticmethod
    def _check_given(request: AdmissionRequest, spec: Mapping[str, Any], resolved: PriorityClass) -> None:
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

    def _check_bound(self, request: AdmissionRequest, resolved: PriorityClass) -> None:
        """No higher than the namespace's QuotaPolicy allows, by whichever way the class was named."""
        record = request.view.get(QUOTAPOLICIES, request.namespace, POLICY_NAME)
        if record is None:
            return
        known = self._bounds.get(request.namespace)
        if known is None or known[0] is not record:
            known = self._bounds[request.namespace] = (record, max_priority(record.object()))
        highest = known[1]
        if highest is None or (resolved.value <= highest and not resolved.name.startswith("system-")):
            return
        raise forbidden(
            request,
            f"spec.priorityClassName: {resolved.name or 'the default'} has priority {resolved.value}; this namespace may use up "
            f"to {highest} (maxPriority of its QuotaPolicy)",
        )

    def _check_default(self, request: AdmissionRequest) -> None:
        assert request.obj is not None
        if not request.obj.get("globalDefault"):
            return
        known = self._default(request.view)
        if known is not NO_CLASS and known.name != request.name:
            raise forbidden(
                request, f"PriorityClass {known.name} is already marked as default. Only one default can exist"
            )


def _settled(request: AdmissionRequest) -> Object:
    """The object with the annotations that hold what was resolved. Raises Invalid when it has them otherwise."""
    assert request.obj is not None
    before = metadata.annotations_of(request.old or {})
    given = metadata.annotations_of(request.obj)
    missing = {}
    for name in _RECORDED:
        if given.get(name) == before.get(name):
            continue
        if name in given:
            message = f"Invalid value: {given[name]!r}: it is computed from the PriorityClass and cannot be changed"
            field = f"metadata.annotations[{name}]"
            raise invalid(request.resource, request.name, [Cause(field, message, "FieldValueInvalid")])
        missing[name] = before[name]
    if not missing:
        return request.obj
    return {**request.obj, "metadata": {**request.obj["metadata"], "annotations": {**given, **missing}}}


def named(request: AdmissionRequest, obj: Mapping[str, Any], path: str) -> str:
    """The class that an object (or a template at ``path``) names. Raises Invalid when its two ways of saying it differ."""
    try:
        return class_name(obj)
    except HandleConflict as conflict:
        message = (
            f'Invalid value: "{conflict.in_handle}": differs from {path}spec.priorityClassName "{conflict.in_spec}"; '
            "set one of the two, or both to the same class"
        )
        field = f"{path}metadata.annotations[{PRIORITY_HANDLE}]"
        raise invalid(request.resource, request.name, [Cause(field, message, "FieldValueInvalid")]) from None


def forbidden(request: AdmissionRequest, why: str) -> Forbidden:
    resource, name = request.resource, request.name
    return Forbidden(f'{resource.qualified} "{name}" is forbidden: {why}', details=apierrors.details(resource, name))
