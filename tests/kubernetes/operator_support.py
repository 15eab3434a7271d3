"""An operator in the test's own process, against the control plane of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from control_plane import ControlPlane

from isoplane.client import kubeconfig
from isoplane.client.http import HttpApi
from isoplane.operator.install import install as put
from isoplane.operator.manifests import laptop
from isoplane.operator.names import Accounts
from isoplane.operator.operator import Operator, Terms

SHORT = Terms(duration=2.0, renew_deadline=1.5, retry=0.3)


def crd(plural: str, kind: str, scope: str, *, status: bool = False) -> dict[str, Any]:
    """A kind of ours that takes every field."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {**free, "properties": {"maxPriority": {"type": "integer"}}}
    version = {
        "name": "v1alpha1", "served": True, "storage": True,
        "schema": {"openAPIV3Schema": {**free, "properties": {"spec": spec}}},
        **({"subresources": {"status": {}}} if status else {}),
    }  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.isoplane.io"},
        "spec": {
            "group": "isoplane.io", "scope": scope, "versions": [version],
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
        },
    }  # fmt: skip


CRDS = [
    crd("tenantquotas", "TenantQuota", "Namespaced", status=True),
    crd("quotapolicies", "QuotaPolicy", "Namespaced"),
    crd("cohorts", "Cohort", "Cluster"),
    crd("quotaledgers", "QuotaLedger", "Cluster"),
]


def apply(plane: ControlPlane, *objects: dict[str, Any]) -> None:
    plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def until(good: Callable[[], object], what: str, seconds: float = 60) -> Any:
    """What ``good`` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := good()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return found


def install(plane: ControlPlane) -> None:
    """CRDs, access and policies; returns once Pods may be made in managed namespaces."""

    async def run() -> None:
        async with HttpApi(kubeconfig.load(plane.kubeconfig)) as administrator:
            await put(administrator, [*CRDS, *laptop()])

    asyncio.run(run())


@contextlib.contextmanager
def running_operator(plane: ControlPlane, identity: str = "one", terms: Terms = SHORT) -> Iterator[Operator]:
    """An operator that campaigns in a thread of its own, as its service account."""
    loop = asyncio.new_event_loop()
    made: list[Operator] = []
    ready = threading.Event()

    async def run() -> None:
        cluster = kubeconfig.load(plane.kubeconfig)
        async with HttpApi(cluster, impersonate=Accounts().operator) as api:
            made.append(Operator(api, identity, terms=terms))
            ready.set()
            await made[0].run()

    task: list[asyncio.Task[None]] = []

    def main() -> None:
        asyncio.set_event_loop(loop)
        task.append(loop.create_task(run()))
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task[0])
        loop.close()

    thread = threading.Thread(target=main, name=f"operator-{identity}")
    thread.start()
    ready.wait(10)
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(task[0].cancel)
        thread.join(20)
