"""Warnings about fields of Pods and VMIs that have no effect here, as kubectl shows them under what was typed.

Which fields those are each kind's adapter says; nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from isoplane.http.user import SYSTEM
from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.objects.metadata import Object
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.store.transaction import Transaction
from isoplane.workload.adapters import Adapter
from isoplane.workload.fields.machine import MAKER_WARNED
from isoplane.workload.registry import adapter_for

_STANDS_FOR = {VIRTUALMACHINES: VIRTUALMACHINEINSTANCES}
"""Whose template is told about as if it were written itself: the plane makes the instance, and nobody is there to be told."""
MOST = 10
"""Warnings for one write: a manifest made for a large cluster should not fill the screen."""


class IneffectiveAdmission(Plugin):
    """Tells people; the plane's own writes go by."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return operation in ("CREATE", "UPDATE") and not subresource and _adapter(resource) is not None

    def in_transaction(self, txn: Transaction, request: AdmissionRequest) -> Iterable[str]:
        adapter = _adapter(request.resource)
        if adapter is None or request.obj is None or request.user == SYSTEM:
            return ()
        told = _told(request.resource, request.obj, adapter)
        if told and request.old is not None:
            before = set(_told(request.resource, request.old, adapter))
            told = [line for line in told if line not in before]
        more = [f"{len(told) - MOST} more fields have no effect"] if len(told) > MOST else []
        return [*told[:MOST], *more]


def _told(resource: Resource, obj: Object, adapter: Adapter) -> list[str]:
    if resource not in _STANDS_FOR:
        return adapter.ineffective(obj)
    own = [f"{path}: has no effect: {why}" for path, why in MAKER_WARNED.found(obj)]
    template = (obj.get("spec") or {}).get("template") or {}
    return [*own, *(f"spec.template.{line}" for line in adapter.ineffective(template))]


def _adapter(resource: Resource) -> Adapter | None:
    return adapter_for(_STANDS_FOR.get(resource, resource))
