"""VirtualMachine: a machine that is started, stopped and made again. The columns are those of KubeVirt's definition."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, Cell, Column, Printer, age, condition_status
from isoplane.objects.defaulting.machine import apply_machine
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource, Rules, Strategy, Subresource, status_of
from isoplane.objects.rules import machine


def _row(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    return [metadata.name(obj), age(obj, now), status.get("printableStatus") or "", condition_status(obj, "Ready")]


VIRTUALMACHINES = Resource(
    group="kubevirt.io",
    version="v1",
    plural="virtualmachines",
    kind="VirtualMachine",
    short_names=("vm", "vms"),
    categories=("all",),
    subresources={
        **status_of("VirtualMachine"),
        "start": Subresource("StartOptions"),
        "stop": Subresource("StopOptions"),
        "restart": Subresource("RestartOptions"),
    },
    custom=True,
    carried_out=True,
    makes_workloads=True,
    action_group="subresources.kubevirt.io",
    default=apply_machine,
    rules=Rules(machine.check_machine, of=("spec",)),
    strategy=Strategy(generation=True, initial_status={}),
    printer=Printer(
        (NAME, AGE, Column("Status", "Human Readable Status"), Column("Ready", "Whether it serves.")), _row
    ),
)
