"""The quota demo: a critical VM arrives at a full quota; people see who leaves and why, and that the evicted VM comes back."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from isoplane.cli.manifests import read
from isoplane.cli.scenes.board import Board
from isoplane.cli.scenes.theatre import Stage, example, example_dir, stage
from isoplane.objects import kinds, metadata
from isoplane.objects.errors import QuotaExceeded
from isoplane.objects.kinds import (
    EVENTS,
    RESOURCEQUOTAS,
    TENANTQUOTAS,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
    Resource,
)
from isoplane.objects.metadata import Object
from isoplane.objects.quantity import amount, approximate

NAME = "02-quota-preemption"
TENANTS = ("team-a", "team-b")
SECONDS = 90.0


async def run(console: Console, simulated: bool) -> None:
    """Play it. Raises TimeoutError or AssertionError when something does not happen as it must."""
    began = time.monotonic()
    async with stage(console, simulated=simulated) as scene:
        board = Board(scene.plane.informers, TENANTS, console)
        board.watch()
        scene.say("Two tenants; pods and virtual machines fill team-a's quota of one CPU")
        objects = example(NAME)
        await scene.apply(objects)
        await board.until(lambda views: _running(views, 6), SECONDS, "six workloads to run")
        board.show()
        await _quotas(scene)

        scene.say("One more pod, of normal priority: refused, as Kubernetes refuses, and nobody leaves")
        try:
            await scene.plane.api.create(*_one("later/intern.yaml"))
        except QuotaExceeded as refusal:
            console.print(f"  [red]403[/] {refusal.message}", highlight=False)
        else:
            raise AssertionError("the quota did not refuse a pod that does not fit")

        scene.say(
            "A critical virtual machine: lower priorities of its own tenant leave, gracefully, and it starts by itself"
        )
        created = await scene.plane.api.create(*_one("later/database.yaml"))
        admitted = metadata.condition(created, "QuotaAdmitted") or {}
        console.print(f"  database {admitted.get('message', 'is admitted')}", highlight=False)
        await _told(scene, "PreemptedByQuota")
        await board.until(lambda views: _stage(views, "database") == "Running", SECONDS, "the database to run")
        board.show()
        await _told(scene, "QuotaAdmitted")
        await _quotas(scene)
        vm = await scene.plane.api.get(VIRTUALMACHINES, "build", "team-a")
        suspended = metadata.condition(vm, "QuotaSuspended")
        assert suspended is not None, "the evicted VirtualMachine does not say that quota suspended it"
        console.print(f"  VirtualMachine build: QuotaSuspended, {suspended.get('message')}", highlight=False)

        scene.say("The database goes: the suspended machine comes back by itself")
        await scene.plane.api.delete(VIRTUALMACHINEINSTANCES, "database", "team-a")
        await board.until(
            lambda views: _stage(views, "build") == "Running", SECONDS, "the suspended machine to run again"
        )
        board.show()
    console.print(f"\n[bold green]Done[/] in {time.monotonic() - began:.1f} s.", highlight=False)


def _one(path: str) -> tuple[Resource, Object]:
    """The resource and the object of a manifest with one."""
    (obj,) = read([example_dir(NAME) / path])
    return kinds.of(obj), obj


def _running(views: Sequence[Object], count: int) -> bool:
    return len(views) == count and all(view["status"]["stage"] == "Running" for view in views)


def _stage(views: Sequence[Object], name: str) -> str:
    return next((str(view["status"]["stage"]) for view in views if view["spec"]["name"] == name), "")


async def _quotas(scene: Stage) -> None:
    """What each tenant uses of what it may."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("QUOTA", "RESOURCE", "USED", "HARD"):
        table.add_column(column)
    quotas = [q for kind in (RESOURCEQUOTAS, TENANTQUOTAS) for q in (await scene.plane.api.list(kind)).items]
    for quota in quotas:
        status = quota["status"]
        for resource, hard in status["hard"].items():
            name = f"{metadata.namespace(quota)}/{metadata.name(quota)}"
            used = approximate(resource, amount(resource, status["used"][resource]))
            table.add_row(name, resource, used, str(hard))
    scene.console.print(table)


async def _told(scene: Stage, reason: str) -> None:
    """The Events that tell who leaves for whom, and who is in."""
    for event in (await scene.plane.api.list(EVENTS, "team-a")).items:
        if event["reason"] == reason:
            about = event["involvedObject"]
            line = f"  {event['reason']:16} {about['kind']} {about['name']}: {event['message']}"
            scene.console.print(line, highlight=False)
