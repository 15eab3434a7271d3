"""``kubectl drain`` and ``describe node`` with machines, on a whole plane of simulated workloads."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_manifests_support import VM, VMI, manifest
from client_support import FOUND, Run

from plane_support import PlaneProcess
from support import IN_CI


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneProcess]:
    plane = PlaneProcess(tmp_path_factory.mktemp("drain") / "data", "--runtime", "simulated").start()
    yield plane
    plane.stop()


@pytest.fixture
def newest(simulated: PlaneProcess, tmp_path: Path) -> Run:
    if not FOUND:
        reason = "needs kubectl"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
    run = Run(FOUND[-1], simulated.kubeconfig, tmp_path)
    run("create", "namespace", run.namespace)
    return run


def test_drain_stops_machines_and_they_wait_for_another_node(newest: Run) -> None:
    node = newest.json("get", "nodes")["items"][0]["metadata"]["name"]
    always = manifest(VM, "always")
    always["spec"] = {"runStrategy": "Always", "template": {"metadata": {}, "spec": VMI["spec"]}}
    guarded = manifest(VMI, "guarded")
    guarded["spec"] = {**guarded["spec"], "evictionStrategy": "LiveMigrate"}
    body = {"apiVersion": "v1", "kind": "List", "items": [always, manifest(VMI, "lone"), guarded]}
    newest("create", "-f", "-", stdin=json.dumps(body))
    pods = "virt-launcher-always", "virt-launcher-guarded", "virt-launcher-lone"
    newest("wait", "--for=condition=Ready", "vmi/always", "vmi/lone", "vmi/guarded", "--timeout=20s")
    newest("wait", "--for=condition=Ready", "pod/virt-launcher-lone", "--timeout=20s")
    before = newest.json("get", "vmi", "always")["metadata"]["uid"]

    described = newest("describe", "node", node)
    assert "Non-terminated Pods:          (3 in total)" in described
    assert all(pod in described for pod in pods)
    listed = newest("get", "pods", "-A", "--field-selector", f"spec.nodeName={node}", "--no-headers")
    assert [line.split()[1:4] for line in listed.splitlines()] == [[pod, "2/2", "Running"] for pod in pods]
    assert "virt-launcher" not in newest("get", "workloads")

    drain = ("drain", node, "--timeout=20s")
    refused = newest.fails(*drain)
    assert "VMI guarded is configured with an eviction strategy but is not live-migratable" in refused
    newest("delete", "vmi", "guarded")
    newest(*drain)
    eventually_pending(newest, before)
    assert "virt-launcher" not in newest("get", "pods")
    assert newest.json("get", "vmi")["items"][0]["metadata"]["name"] == "always"  # the bare ones are gone

    newest("uncordon", node)
    newest("wait", "--for=condition=Ready", "vmi/always", "--timeout=20s")
    assert newest("get", "pods", "-o", "name").split() == ["pod/virt-launcher-always"]
    newest("delete", "vm", "always")


def eventually_pending(run: Run, before: str) -> None:
    """The machine was made again, and waits for a node."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for machine in run.json("get", "vmi")["items"]:
            status = machine.get("status") or {}
            fresh = machine["metadata"]["uid"] != before
            if fresh and status.get("phase") == "Pending" and not status.get("nodeName"):
                return
        time.sleep(0.1)
    raise AssertionError(run("get", "vmi", "-o", "yaml"))
