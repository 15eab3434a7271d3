"""What can be declared of a machine or a Pod and can never run here: found when it is written, whatever runs it. Pure.

Most is told by the tables of :mod:`isoplane.workload.fields`; here is what takes more than one field to see.  The runtimes
refuse the same by the same functions, but then the object is stored, charged and waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isoplane.workload import impossible_machine
from isoplane.workload.fields import machine as machine_fields
from isoplane.workload.fields import pod as pod_fields
from isoplane.workload.impossible_machine import field_of
from isoplane.workload.machine_offer import KNOWN, MachineOffer


def machine(spec: Mapping[str, Any], offer: MachineOffer = KNOWN) -> Iterator[tuple[str, str]]:
    """(path, why) for what no machine can have here, where QEMU offers this."""
    yield from machine_fields.REFUSED.found({"spec": spec})
    yield from impossible_machine.check(spec, offer)


def maker(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, why) for what a VirtualMachine cannot be made from, its template aside."""
    for path, why in machine_fields.MAKER_REFUSED.found({"spec": spec}):
        # What virtctl writes of itself: to be inferred if possible, else never mind.
        if field_of(spec, path.removeprefix("spec."), "inferFromVolumeFailurePolicy") != "Ignore":
            yield path, why


def pod(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, why) for what no Pod can have here."""
    yield from pod_fields.REFUSED.found({"spec": spec})
    for index, volume in enumerate(spec.get("volumes") or ()):
        path = field_of(volume, "hostPath", "path")
        if path and not str(path).startswith("/"):
            yield f"spec.volumes[{index}].hostPath.path", f"{path!r} must be an absolute path"
