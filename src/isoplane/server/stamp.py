"""Admission that notes the moment a workload was accepted, to the millisecond: where its transitions are counted from.

creationTimestamp has whole seconds only, too coarse for an honest latency.
"""

from __future__ import annotations

import json

from isoplane.objects.kinds import Resource
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.workload.adapters import TRANSITIONS_ANNOTATION
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import Stage


class AcceptedStamp(Plugin):
    """Writes ``isoplane.io/transitions`` on every new Pod and VMI; what the author wrote there is replaced."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return operation == "CREATE" and not subresource and adapter_for(resource) is not None

    def mutate(self, request: AdmissionRequest) -> None:
        if request.obj is None:
            return
        meta = request.obj.setdefault("metadata", {})
        stamp = json.dumps({str(Stage.ACCEPTED): round(request.now, 3)}, separators=(",", ":"))
        meta["annotations"] = {**(meta.get("annotations") or {}), TRANSITIONS_ANNOTATION: stamp}
