"""The network demo: tenants with containers and VMs, one NetworkPolicy, and real packets that tell who reaches whom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from isoplane.cli.manifests import read
from isoplane.cli.scenes.board import Board
from isoplane.cli.scenes.theatre import Stage, example_dir, stage
from isoplane.node.runtime.protocol import Runtime, RuntimeFailure
from isoplane.objects.kinds import NETWORKPOLICIES
from isoplane.objects.metadata import Object
from isoplane.policy.model import Cluster
from isoplane.policy.snapshot import from_objects
from isoplane.policy.verdict import Connection, Party, judge
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.shape import Workload

NAMESPACES = ("tenant-a", "tenant-b", "shared")
PORT = 8080
UP_SECONDS = 120.0
GUEST_SECONDS = 60.0
ANSWER_SECONDS = 2
POLICIES = ("policy.yaml", "corrected/policy.yaml")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One connection that was tried: what the policies say, and what the packets did."""

    source: str
    target: str
    allowed: bool
    reached: bool


async def run(console: Console, simulated: bool) -> None:
    """Play it. Raises TimeoutError or AssertionError when packets and policy disagree."""
    began = time.monotonic()
    directory = example_dir("03-tenant-isolation")
    objects = read([directory / "workloads.yaml"])
    async with stage(console, simulated=simulated) as scene:
        board = Board(scene.plane.informers, NAMESPACES, console)
        board.watch()
        scene.say("Two tenants and a shared namespace, each with containers and VMs")
        await scene.apply(objects)
        await board.until(_all_running(objects), UP_SECONDS, "all workloads to run")
        board.show()
        if simulated:
            console.print("\nSimulated workloads send no packets; `isoplane policy reach` answers from the manifests.")
            return
        places = _places(scene)
        await _guests_serve(scene, places)
        scene.say("Without a policy everybody reaches everybody")
        await _try_all(scene, places, objects, [])
        expected = yaml.safe_load((directory / "expected/outcome.yaml").read_text())
        for file in POLICIES:
            policy = read([directory / file])
            scene.say(_title(file))
            await _apply_policy(scene, policy[0])
            attempts = await _try_all(scene, places, objects, policy)
            _hold_against(attempts, expected[file])
        console.print("\nEvery packet did what the policy says, to containers and to VMs.")
    console.print(f"[bold green]Done[/] in {time.monotonic() - began:.1f} s.", highlight=False)


def _title(file: str) -> str:
    if file == POLICIES[0]:
        return "The founding example: its bare podSelector keeps the shared service out (`isoplane policy check` tells)"
    return "As it was meant: the same tenant and the shared service in, DNS and the tenant itself out"


def _all_running(objects: Sequence[Object]) -> Callable[[list[Object]], bool]:
    wanted = sum(obj["kind"] in ("Pod", "VirtualMachine") for obj in objects)
    return lambda views: len(views) == wanted and all(view["status"]["stage"] == "Running" for view in views)


def _places(scene: Stage) -> dict[str, Workload]:
    found = {}
    for resource in workload_resources():
        adapter = adapter_for(resource)
        assert adapter is not None
        for obj in scene.plane.informers.of(resource).items():
            workload = adapter.project(obj)
            found[workload.key] = workload
    return found


async def _guests_serve(scene: Stage, places: Mapping[str, Workload]) -> None:
    """Guests boot for a while after they run: wait until their pages answer."""
    deadline = time.monotonic() + GUEST_SECONDS
    for workload in places.values():
        while any(port.number == PORT for port in workload.ports):
            try:
                async with asyncio.timeout(1):
                    _, writer = await asyncio.open_connection(workload.address, PORT)
                writer.close()
                break
            except (OSError, TimeoutError):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{workload.id} does not serve on port {PORT}") from None
                await asyncio.sleep(0.2)


async def _apply_policy(scene: Stage, policy: Object) -> None:
    """Create or replace it, and wait until every workload that it selects is told to be guarded by new rules."""
    name, namespace = policy["metadata"]["name"], policy["metadata"]["namespace"]
    before = _revisions(scene, namespace)
    existing = [p["metadata"]["name"] for p in (await scene.plane.api.list(NETWORKPOLICIES, namespace)).items]
    began = time.monotonic()
    if name in existing:
        current = await scene.plane.api.get(NETWORKPOLICIES, name, namespace)
        await scene.plane.api.update(NETWORKPOLICIES, {**current, "spec": policy["spec"]})
    else:
        await scene.plane.api.create(NETWORKPOLICIES, policy, namespace=namespace)
    while time.monotonic() - began < 10:
        now = _revisions(scene, namespace)
        if all(revision and revision != before.get(uid) for uid, revision in now.items()):
            scene.console.print(
                f"  enforced on {len(now)} workloads, told {1000 * (time.monotonic() - began):.0f} ms after the request"
            )
            return
        await asyncio.sleep(0.005)
    raise TimeoutError("the policy was not enforced within 10 s")


def _revisions(scene: Stage, namespace: str) -> dict[str, str]:
    """The revision that guards each workload of a namespace, by uid."""
    views = Board(scene.plane.informers, [namespace], scene.console).views()
    return {view["metadata"]["uid"]: view["status"]["policyRevision"] for view in views}


async def _try_all(
    scene: Stage, places: Mapping[str, Workload], objects: Sequence[Object], policy: Sequence[Object]
) -> list[Attempt]:
    """Every container tries every other workload that serves; the answers stand beside the reference verdict."""
    cluster = from_objects([*objects, *policy])
    sources = [w for w in places.values() if w.runtime == "oci"]  # a guest without an agent executes nothing
    targets = [w for w in places.values() if any(p.number == PORT for p in w.ports)]
    pairs = [(s, t) for s in sources for t in targets if s.key != t.key]
    runtimes = scene.plane.runtimes
    reached = await asyncio.gather(*(_reaches(runtimes[s.runtime], s, t) for s, t in pairs))
    attempts = []
    for (source, target), got in zip(pairs, reached, strict=True):
        connection = Connection(_party(cluster, source), _party(cluster, target), "TCP", PORT)
        attempts.append(Attempt(source.key, target.key, judge(cluster, connection).allowed, got))
    _show(scene.console, attempts)
    wrong = [a for a in attempts if a.allowed != a.reached]
    assert not wrong, f"packets and policy disagree: {wrong}"
    return attempts


def _party(cluster: Cluster, workload: Workload) -> Party:
    for endpoint in cluster.endpoints:
        if (endpoint.namespace, endpoint.name) == (workload.namespace, workload.name):
            return Party(endpoint)
    return Party(ip=workload.address)


async def _reaches(runtime: Runtime, source: Workload, target: Workload) -> bool:
    command = ["nc", "-w", str(ANSWER_SECONDS), target.address, str(PORT), "-e", "true"]
    try:
        result = await runtime.exec(source.uid, source.units[0].name, command, ANSWER_SECONDS + 3.0)
    except RuntimeFailure:
        return False
    return result.exit_code == 0


def _show(console: Console, attempts: Sequence[Attempt]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    targets = sorted({a.target for a in attempts})
    table.add_column(f"TCP {PORT} from \\ to")
    for target in targets:
        table.add_column(target, justify="center")
    answers = {(a.source, a.target): a for a in attempts}
    for source in sorted({a.source for a in attempts}):
        cells = []
        for target in targets:
            answer = answers.get((source, target))
            cells.append("" if answer is None else "[green]reaches[/]" if answer.reached else "[red]blocked[/]")
        table.add_row(source, *cells)
    console.print(table)


def _hold_against(attempts: Sequence[Attempt], expected: Sequence[Mapping[str, Any]]) -> None:
    answers = {(a.source, a.target): a.reached for a in attempts}
    for row in expected:
        key = (row["from"], row["to"])
        if row["port"] == f"{PORT}/TCP" and key in answers:
            assert answers[key] == row["allowed"], f"{row['from']} → {row['to']}: the example promises {row['allowed']}"
