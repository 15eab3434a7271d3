"""VirtualMachineInstance: a machine that runs, or has run. The columns are those of KubeVirt's definition."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age, condition_status
from isoplane.objects.defaulting.machine import apply_instance
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Selectable, Strategy, Subresource, status_of
from isoplane.objects.rules import machine


def _row(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    interfaces = status.get("interfaces") or ()
    return [
        metadata.name(obj), age(obj, now), status.get("phase") or "",
        (interfaces[0].get("ipAddress") if interfaces else "") or "", status.get("nodeName") or "",
        condition_status(obj, "Ready"), condition_status(obj, "LiveMigratable"), condition_status(obj, "Paused"),
    ]  # fmt: skip


VIRTUALMACHINEINSTANCES = Resource(
    group="kubevirt.io",
    version="v1",
    plural="virtualmachineinstances",
    kind="VirtualMachineInstance",
    short_names=("vmi", "vmis"),
    categories=("all",),
    subresources={
        **status_of("VirtualMachineInstance"),
        "pause": Subresource("PauseOptions"),
        "unpause": Subresource("UnpauseOptions"),
        "log": Subresource("VirtualMachineInstance", ("get",)),
    },
    custom=True,
    carried_out=True,
    action_group="subresources.kubevirt.io",
    default=apply_instance,
    rules=Rules(machine.check_instance, machine.check_instance_update, of=("spec",)),
    strategy=Strategy(generation=True, initial_status={}, node=("status", "nodeName")),
    printer=Printer(
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
        _row,
    ),
    # The node agent needs them; KubeVirt's own definition has none.
    selectable=(Selectable("status.nodeName", indexed=True), Selectable("status.phase")),
)
