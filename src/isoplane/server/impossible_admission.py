"""Refuses what can never run here when it is written, on the simulated plane as on the real one: both admit the same.

What that is each kind's adapter says. What is stored already is left alone: its labels and finalizers may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects.errors import Cause
from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.objects.validation import invalid
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.workload import impossible
from isoplane.workload.adapters import Adapter
from isoplane.workload.machine_offer import KNOWN, MachineOffer
from isoplane.workload.registry import adapter_for

_STANDS_FOR = {VIRTUALMACHINES: VIRTUALMACHINEINSTANCES}
"""Whose template is judged as if it were written itself."""


class ImpossibleAdmission(Plugin):
    """Raises Invalid (422) with one cause for each field that the object did not have before.

    ``offer``: what machines can be had of this host; a real node says so once it has started.
    """

    def __init__(self, offer: MachineOffer = KNOWN) -> None:
        self.offer = offer

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return operation in ("CREATE", "UPDATE") and not subresource and _adapter(resource) is not None

    def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None or (request.old or {}).get("spec") == request.obj.get("spec"):
            return
        before = set(self._found(request.resource, request.old)) if request.old else set()
        found = [one for one in self._found(request.resource, request.obj) if one not in before]
        if found:
            causes = [Cause(path, f"Forbidden: {why}", "FieldValueForbidden") for path, why in found]
            raise invalid(request.resource, request.name, causes)

    def _found(self, resource: Resource, obj: Mapping[str, Any]) -> list[tuple[str, str]]:
        adapter = _adapter(resource)
        assert adapter is not None
        if resource not in _STANDS_FOR:
            return adapter.impossible(obj, self.offer)
        spec = obj.get("spec") or {}
        own, template = list(impossible.maker(spec)), adapter.impossible(spec.get("template") or {}, self.offer)
        return [*own, *((f"spec.template.{path}", why) for path, why in template)]


def _adapter(resource: Resource) -> Adapter | None:
    return adapter_for(_STANDS_FOR.get(resource, resource))
