"""Every object that a running plane made can be written back as it was read, under strict field validation."""

from __future__ import annotations

import asyncio
import copy
import time
from pathlib import Path
from typing import Any

import httpx

import samples_support as samples
from isoplane.client import kubeconfig
from isoplane.client.http import HttpApi, path
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import (
    BUILT_IN,
    COHORTS,
    NAMESPACES,
    NETWORKPOLICIES,
    NODES,
    PODDISRUPTIONBUDGETS,
    PODS,
    QUOTAPOLICIES,
    RESOURCEQUOTAS,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
    Resource,
)
from isoplane.workload.bodies import machine_of
from plane_support import PlaneProcess

NAMESPACE = "tenant-a"
STRICT = {"fieldValidation": "Strict", "fieldManager": "author"}
NEVER_STOPS = {"isoplane.io/simulated-stop-seconds": "never"}


def made(resource: Resource, name: str, **fields: Any) -> tuple[Resource, dict[str, Any]]:
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **fields}
    return resource, obj


def manifests() -> list[tuple[Resource, dict[str, Any]]]:
    patient = {**samples.vmi()["spec"], "terminationGracePeriodSeconds": 86400}
    template = {"metadata": {"annotations": NEVER_STOPS}, "spec": patient}
    deny = {"podSelector": {}, "policyTypes": ["Ingress"]}
    return [
        made(RESOURCEQUOTAS, "q", spec={"hard": {"requests.cpu": "20", "requests.memory": "20Gi"}}),
        made(QUOTAPOLICIES, "default", spec={}),
        made(NETWORKPOLICIES, "deny", spec=deny),
        made(PODDISRUPTIONBUDGETS, "one", spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}),
        (PODS, sized(samples.pod())),
        (VIRTUALMACHINEINSTANCES, samples.vmi("lone")),
        made(VIRTUALMACHINES, "always", spec={"runStrategy": "Always", "template": template}),
        made(VIRTUALMACHINES, "manual", spec={"runStrategy": "Manual", "template": template}),
    ]


def sized(pod: dict[str, Any]) -> dict[str, Any]:
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m", "memory": "32Mi"}}
    return pod


async def phase_is(api: HttpApi, resource: Resource, name: str, wanted: str) -> None:
    """Waits for a phase; '' waits until there is none of that name."""
    deadline = time.monotonic() + 30
    while True:
        try:
            found = ((await api.get(resource, name, NAMESPACE)).get("status") or {}).get("phase") or "none"
        except NotFound:
            found = ""
        if found == wanted:
            return
        assert time.monotonic() < deadline, f"{resource.kind} {name} is {found!r}, not {wanted!r}"
        await asyncio.sleep(0.05)


async def write_back(client: httpx.AsyncClient, resource: Resource, obj: dict[str, Any]) -> list[str]:
    """What was refused of reading, replacing and applying an object; it may change under us, so it is read anew."""
    meta = obj["metadata"]
    where = path(resource, meta.get("namespace", ""), meta["name"])
    problems = []
    for _ in range(5):
        read = await client.get(where)
        if read.status_code == 404:
            return []
        answer = await client.put(where, params=STRICT, json=read.json())
        if answer.status_code != 409:
            break
    if answer.status_code != 200:
        problems.append(f"PUT {where}: {answer.text}")
    applied = copy.deepcopy((await client.get(where)).json())
    for field in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"):
        applied["metadata"].pop(field, None)
    if resource is NODES:
        # Two addresses of one type: upstream's merge key, too, allows no such list in what is applied.
        applied["status"].pop("addresses")
    without = {key: value for key, value in applied.items() if key != "status"}
    for body in (applied, without):
        answer = await client.patch(
            where, params={**STRICT, "force": "true", "dryRun": "All"}, json=body,
            headers={"content-type": "application/apply-patch+yaml"},
        )  # fmt: skip
        if answer.status_code != 200:
            problems.append(f"apply {where}: {answer.text}")
    return problems


async def everything(api: HttpApi, client: httpx.AsyncClient) -> None:
    await api.create(*made(NAMESPACES, NAMESPACE))
    await api.create(*made(COHORTS, "default", spec={}))
    for resource, obj in manifests():
        await api.create(resource, obj, namespace=NAMESPACE)
    await api.subresource(VIRTUALMACHINES, "manual", NAMESPACE, "start", {})
    await phase_is(api, PODS, "web", "Running")
    for name in ("lone", "always", "manual"):
        await phase_is(api, VIRTUALMACHINEINSTANCES, name, "Running")
    seen: set[str] = set()
    refused: list[str] = []
    for resource in BUILT_IN:
        for obj in (await api.list(resource)).items:
            seen.add(resource.kind)
            if "update" in resource.verbs and not machine_of(obj):  # what is only shown is nobody's to write
                refused += await write_back(client, resource, obj)
    assert not refused, "\n".join(refused)
    assert {"Pod", "Node", "Event", "VirtualMachine", "VirtualMachineInstance", "ResourceQuota"} <= seen
    lone = await api.get(VIRTUALMACHINEINSTANCES, "lone", NAMESPACE)
    assert lone["metadata"]["annotations"]["isoplane.io/accelerator"] == "simulated"

    for name in ("always", "manual"):
        # A grace period of a day, and a guest that ignores its power button: only the grace that is given can end it.
        await api.subresource(VIRTUALMACHINES, name, NAMESPACE, "stop", {"gracePeriod": 0})
        await phase_is(api, VIRTUALMACHINEINSTANCES, name, "")


async def test_what_a_plane_wrote_can_be_written_back_and_a_machine_is_stopped_by_the_grace_given(
    tmp_path: Path,
) -> None:
    plane = PlaneProcess(tmp_path / "data", "--runtime", "simulated")
    try:
        await asyncio.to_thread(plane.start)
        cluster = kubeconfig.load(plane.kubeconfig)
        assert cluster.context is not None
        async with plane.api() as api, httpx.AsyncClient(base_url=cluster.server, verify=cluster.context) as client:
            await everything(api, client)
    finally:
        plane.close()
