"""The example of preemption at a full quota, on a whole plane with the simulated runtime, against its stated outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from isoplane.cli.manifests import read
from isoplane.node.parts import NodeOptions
from isoplane.objects import kinds, metadata
from isoplane.objects.errors import QuotaExceeded
from isoplane.objects.kinds import EVENTS, QUOTAUSAGES, RESOURCEQUOTAS, TENANTQUOTAS, VIRTUALMACHINES, WORKLOADS
from isoplane.objects.metadata import Object
from isoplane.plane import Plane, PlaneOptions
from isoplane.workload.registry import workload_resources

EXAMPLE = Path(__file__).parents[2] / "examples" / "02-quota-preemption"
EXPECTED = yaml.safe_load((EXAMPLE / "expected/outcome.yaml").read_text())


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(PlaneOptions(tmp_path / "data", listen="127.0.0.1:0", node=NodeOptions(simulated=True)))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def apply(plane: Plane, path: Path) -> list[Object]:
    return [await plane.api.create(kinds.of(obj), obj, namespace=metadata.namespace(obj)) for obj in read([path])]


async def workloads(plane: Plane) -> dict[tuple[str, str, str], str]:
    page = await plane.api.list(WORKLOADS)
    return {
        (w["metadata"]["namespace"], w["spec"]["kind"], w["spec"]["name"]): w["status"]["stage"] for w in page.items
    }


def wanted(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], str]:
    return {(r["namespace"], r["kind"], r["name"]): r["stage"] for r in rows}


async def until(plane: Plane, holds: Callable[[dict[tuple[str, str, str], str]], bool], what: str) -> None:
    for _ in range(400):
        seen = await workloads(plane)
        if holds(seen):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}: {seen}")


async def used(plane: Plane, tenant: str) -> dict[str, str]:
    kind = {"team-a": RESOURCEQUOTAS, "team-b": TENANTQUOTAS}[tenant]
    quota = await plane.api.get(kind, "compute", tenant)
    return dict(quota["status"]["used"])


async def leaving(plane: Plane) -> list[str]:
    found = []
    for resource in workload_resources():
        for obj in (await plane.api.list(resource)).items:
            if obj["metadata"].get("deletionTimestamp"):
                target = metadata.condition(obj, "DisruptionTarget")
                assert target is not None
                assert target["reason"] == "PreemptedByQuota"
                prefix = resource.short_names[0] if resource.custom else resource.singular
                found.append(f"{prefix}/{metadata.key(obj)}")
    return sorted(found)


async def test_the_example_of_preemption(plane: Plane) -> None:
    await apply(plane, EXAMPLE)
    start = wanted(EXPECTED["workloads"])
    await until(plane, lambda seen: seen == start, "everything to run")
    for tenant, amounts in EXPECTED["used"].items():
        assert amounts.items() <= (await used(plane, tenant)).items()

    with pytest.raises(QuotaExceeded) as refused:
        await apply(plane, EXAMPLE / "later" / "intern.yaml")
    assert EXPECTED["later/intern.yaml"]["message"] in refused.value.message
    assert await leaving(plane) == []

    story = EXPECTED["later/database.yaml"]
    (database,) = await apply(plane, EXAMPLE / "later" / "database.yaml")
    assert database["status"]["phase"] == "Pending"
    gone = await leaving(plane)
    assert set(gone) <= set(story["leave"])
    message = (metadata.condition(database, "QuotaAdmitted") or {})["message"]
    assert all(name in message for name in story["leave"])

    end = wanted(story["then"]["workloads"])
    await until(plane, lambda seen: seen == end, "the database to run in place of its victims")
    for tenant, amounts in story["then"]["used"].items():
        assert amounts.items() <= (await used(plane, tenant)).items()
    build = await plane.api.get(VIRTUALMACHINES, "build", "team-a")
    assert (metadata.condition(build, "QuotaSuspended") or {}).get("status") == "True"
    usage = await plane.api.get(QUOTAUSAGES, "default", "team-a")
    assert [c["name"] for c in usage["status"]["charges"]] == ["web", "database"]
    assert [c["name"] for c in usage["status"]["waiting"]] == ["build"]
    reasons = {(e["involvedObject"]["name"], e["reason"]) for e in (await plane.api.list(EVENTS, "team-a")).items}
    assert {("report-1", "PreemptedByQuota"), ("build", "PreemptedByQuota"), ("database", "QuotaAdmitted")} <= reasons

    # When the database goes, what it took comes back to whoever waits.
    await plane.api.delete(kinds.VIRTUALMACHINEINSTANCES, "database", "team-a")
    back = ("team-a", "VirtualMachineInstance", "build")
    await until(plane, lambda seen: seen.get(back) == "Running", "the suspended machine to come back")
    for _ in range(100):
        # The VM hears of its machine a moment after the machine runs.
        build = await plane.api.get(VIRTUALMACHINES, "build", "team-a")
        if metadata.condition(build, "QuotaSuspended") is None:
            break
        await asyncio.sleep(0.05)
    assert metadata.condition(build, "QuotaSuspended") is None


async def test_a_machine_that_is_halted_waits_no_longer_and_takes_its_place_again(plane: Plane) -> None:
    """Halted ↔ Always at a full quota: it waits, is taken out of the line, waits again, and starts when there is room."""
    for name in ("00-tenants.yaml", "01-priorities.yaml", "10-workloads.yaml"):
        await apply(plane, EXAMPLE / name)
    await until(plane, lambda seen: len(seen) == 6 and set(seen.values()) == {"Running"}, "everybody to run")
    template = (await plane.api.get(VIRTUALMACHINES, "build", "team-a"))["spec"]["template"]
    machine = {"metadata": {"name": "late", "namespace": "team-a"}, "spec": {"template": template}}
    late = ("team-a", "VirtualMachineInstance", "late")
    await plane.api.create(VIRTUALMACHINES, {**machine, "spec": {**machine["spec"], "runStrategy": "Always"}})
    for _ in range(2):
        await until(plane, lambda seen: seen.get(late) == "Gated", "the machine to wait")
        usage = await plane.api.get(QUOTAUSAGES, "default", "team-a")
        assert [entry["name"] for entry in usage["status"]["waiting"]] == ["late"]
        await plane.api.patch(VIRTUALMACHINES, "late", "team-a", {"spec": {"runStrategy": "Halted"}})
        await until(plane, lambda seen: late not in seen, "the instance to go")
        assert (await plane.api.get(QUOTAUSAGES, "default", "team-a"))["status"]["waiting"] == []
        await plane.api.patch(VIRTUALMACHINES, "late", "team-a", {"spec": {"runStrategy": "Always"}})
    await plane.api.patch(VIRTUALMACHINES, "build", "team-a", {"spec": {"runStrategy": "Halted"}})
    await until(plane, lambda seen: seen.get(late) == "Running", "the machine to run in the room of the other")
    assert (await used(plane, "team-a"))["requests.cpu"] == "1"


async def test_the_books_survive_a_restart_and_are_repaired(tmp_path: Path) -> None:
    options = PlaneOptions(tmp_path / "data", listen="127.0.0.1:0", node=NodeOptions(simulated=True))
    first = Plane(options)
    await first.start()
    await apply(first, EXAMPLE)
    start = wanted(EXPECTED["workloads"])
    await until(first, lambda seen: seen == start, "everything to run")
    before = await used(first, "team-a")
    # Somebody's arithmetic was wrong: the next start finds and mends it.
    store = first.server.store
    await store.transact(lambda txn: txn.delete_row("quota.book", "team-a"))
    await first.stop()

    second = Plane(options)
    await second.start()
    try:
        assert await used(second, "team-a") == before
        audit = second.server.store.state.rows("quota.audit")
        assert any(b'"repair"' in row for row in audit.values())
        with pytest.raises(QuotaExceeded):
            await apply(second, EXAMPLE / "later" / "intern.yaml")
    finally:
        await second.stop()
