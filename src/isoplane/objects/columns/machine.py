"""The columns of virtual machines, as KubeVirt's definitions have them."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age, condition_status
from isoplane.objects.metadata import Object


def _machine(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    return [metadata.name(obj), age(obj, now), status.get("printableStatus") or "", condition_status(obj, "Ready")]


def _instance(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    interfaces = status.get("interfaces") or ()
    return [
        metadata.name(obj), age(obj, now), status.get("phase") or "",
        (interfaces[0].get("ipAddress") if interfaces else "") or "", status.get("nodeName") or "",
        condition_status(obj, "Ready"), condition_status(obj, "LiveMigratable"), condition_status(obj, "Paused"),
    ]  # fmt: skip


_STATUS = Column("Status", "Human Readable Status")
PRINTERS = {
    ("kubevirt.io", "VirtualMachine"): Printer((NAME, AGE, _STATUS, Column("Ready", "Whether it serves.")), _machine),
    ("kubevirt.io", "VirtualMachineInstance"): Printer(
        (
            NAME,
            AGE,
            Column("Phase", "The phase of the instance."),
            Column("IP", "The guest's address."),
            Column("NodeName", "The node that the instance is placed on."),
            Column("Ready", "Whether it serves."),
            Column("Live-Migratable", "Whether it can be migrated while it runs.", wide=True),
            Column("Paused", "Whether the guest is paused.", wide=True),
        ),
        _instance,
    ),
}
