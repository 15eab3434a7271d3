"""A server in process with priority and quota admission, a clock that the test owns, and a few manifests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from isoplane.http.request_options import Call
from isoplane.objects.kinds import (
    COHORTS,
    NAMESPACES,
    NODES,
    PODS,
    PRIORITYCLASSES,
    QUOTAPOLICIES,
    RESOURCEQUOTAS,
    VIRTUALMACHINEINSTANCES,
    VIRTUALMACHINES,
)
from isoplane.objects.metadata import Object
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.local import LocalApi
from isoplane.server.priority_admission import PriorityAdmission
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.quota_admission.accounts import RowAccounts
from isoplane.server.verbs import Verbs
from isoplane.store import Store


class QuotaPlane:
    """``now`` moves only when a test moves it."""

    def __init__(self, store: Store) -> None:
        self.now = 1_800_000_000.0
        self.store = store
        self.plugin = QuotaAdmission()
        self.verbs = Verbs(store, Chain([PriorityAdmission(), self.plugin]), clock=lambda: self.now)
        self.api = LocalApi(self.verbs)

    async def tenant(self, name: str, hard: dict[str, Any], **policy: Any) -> None:
        """A namespace with one quota ``q``, and a QuotaPolicy when any is given."""
        await self.api.create(NAMESPACES, {"metadata": {"name": name}})
        await self.quota(name, hard)
        if policy:
            await self.api.create(QUOTAPOLICIES, {"metadata": {"name": "default", "namespace": name}, "spec": policy})

    async def quota(self, namespace: str, hard: dict[str, Any], name: str = "q", **spec: Any) -> Object:
        obj = {"metadata": {"name": name, "namespace": namespace}, "spec": {"hard": hard, **spec}}
        return await self.api.create(RESOURCEQUOTAS, obj)

    async def maker(self, namespace: str, name: str) -> None:
        """An object that makes workloads for the tenant, with its name as its uid; '' makes none."""
        if not name or self.store.state.get(VIRTUALMACHINES, namespace, name) is not None:
            return
        obj = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "spec": {"runStrategy": "Manual"}}
        meta = {"name": name, "namespace": namespace, "uid": name, "generation": 1}
        await self.store.transact(lambda txn: txn.put(VIRTUALMACHINES, {**obj, "metadata": meta}))

    async def used(self, namespace: str, name: str = "q") -> dict[str, str]:
        found = await self.api.get(RESOURCEQUOTAS, name, namespace)
        return dict(found["status"]["used"])

    async def priority(self, name: str, value: int, **more: Any) -> None:
        await self.api.create(PRIORITYCLASSES, {"metadata": {"name": name}, "value": value, **more})

    async def node(self, name: str = "n1", **allocatable: str) -> None:
        obj = {"metadata": {"name": name}, "status": {"allocatable": allocatable}}
        await self.api.create(NODES, obj)
        await self.api.patch(NODES, name, "", {"status": {"allocatable": allocatable}}, subresource="status")

    async def cohort(self, **overcommit: Any) -> None:
        await self.api.create(COHORTS, {"metadata": {"name": "default"}, "spec": {"overcommit": overcommit}})

    async def pod(self, name: str, namespace: str = "a", *, bind: bool = True, **fields: Any) -> Object:
        """Created, and bound to a node unless it is gated (so that its deletion is graceful)."""
        await self.maker(namespace, str(fields.get("owner") or ""))
        obj = await self.api.create(PODS, pod(name, namespace, **fields))
        if bind and not obj["spec"].get("schedulingGates"):
            target = {"target": {"kind": "Node", "name": "n1"}}
            obj = await self.api.subresource(PODS, name, namespace, "binding", target)
        return obj

    async def vmi(self, name: str, namespace: str = "a", *, run: bool = True, **fields: Any) -> Object:
        await self.maker(namespace, str(fields.get("owner") or ""))
        obj = await self.api.create(VIRTUALMACHINEINSTANCES, vmi(name, namespace, **fields))
        if run and (obj.get("status") or {}).get("phase") != "Pending":
            obj["status"] = {**(obj.get("status") or {}), "phase": "Running", "nodeName": "n1"}
            obj = await self.api.update(VIRTUALMACHINEINSTANCES, obj, subresource="status")
        return obj

    async def gone(self, name: str, namespace: str = "a", resource: Any = PODS) -> None:
        """The node confirms that it has ended."""
        await self.api.delete(resource, name, namespace, grace_seconds=0)

    async def dry_run(self, obj: Object, resource: Any = PODS) -> tuple[Object, list[str]]:
        call = Call(dry_run=True)
        record = await self.verbs.create(resource, obj["metadata"]["namespace"], obj, call)
        return record.object(), call.warnings

    def accounts(self) -> RowAccounts:
        """The ledger as it is stored."""
        from isoplane.store.transaction import Pending, Transaction

        return RowAccounts(
            Transaction(self.store.state, Pending(), self.store.revision), self.plugin._lines, dry_run=True
        )


@asynccontextmanager
async def quota_plane(directory: Path) -> AsyncIterator[QuotaPlane]:
    store = Store.open(directory)
    try:
        plane = QuotaPlane(store)
        await bootstrap(plane.verbs)
        yield plane
    finally:
        await store.close()


def pod(
    name: str,
    namespace: str = "a",
    *,
    cpu: str = "1",
    memory: str = "",
    priority: str = "",
    handle: str = "",
    owner: str = "",
    grace: int = 30,
) -> Object:
    requests = {"cpu": cpu, **({"memory": memory} if memory else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _meta(name, namespace, handle, owner),
        "spec": {
            "containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}],
            "terminationGracePeriodSeconds": grace,
            **({"priorityClassName": priority} if priority else {}),
        },
    }


def vmi(
    name: str,
    namespace: str = "a",
    *,
    cpu: str = "1",
    guest: str = "64Mi",
    priority: str = "",
    handle: str = "",
    owner: str = "",
    grace: int = 30,
) -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": _meta(name, namespace, handle, owner),
        "spec": {
            "domain": {
                "devices": {"logSerialConsole": False},  # whose CPU would make every sum uneven
                "firmware": _KERNEL,
                "memory": {"guest": guest},
                "resources": {"requests": {"cpu": cpu}},
            },
            "terminationGracePeriodSeconds": grace,
            **({"priorityClassName": priority} if priority else {}),
        },
    }


_KERNEL = {"kernelBoot": {"container": {"image": "guest", "kernelPath": "/vmlinuz"}}}


def _meta(name: str, namespace: str, handle: str, owner: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "namespace": namespace}
    if handle:
        meta["annotations"] = {"scheduling.k8s.io/priority-class": handle}
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": owner, "uid": owner, "controller": True}
        ]
    return meta


def condition(obj: Object, type_: str) -> dict[str, Any]:
    return next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == type_), {})
