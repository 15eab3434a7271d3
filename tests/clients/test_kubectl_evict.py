"""Evictions as ``kubectl drain`` posts them, against a PodDisruptionBudget."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
from client_manifests_support import POD, manifest, write
from client_support import Run

from apiserver_support import ServerThread

BUDGET: dict[str, Any] = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "guard"},
    "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
}


def _serving(kubectl: Run, tmp_path: Path, allowed: int, observed: int = 1) -> None:
    """Two pods that serve, and a budget with a status as its controller would write it."""
    kubectl("create", "-f", write(tmp_path, POD, manifest(POD, "db"), BUDGET))
    running = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    for name in ("web", "db"):
        kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(running))
    status = {
        "observedGeneration": observed, "expectedPods": 2, "currentHealthy": 2, "desiredHealthy": 2 - allowed,
        "disruptionsAllowed": allowed,
    }  # fmt: skip
    kubectl("patch", "pdb", "guard", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def _eviction(kubectl: Run, name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": kubectl.namespace}
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}


def _path(kubectl: Run, name: str) -> str:
    return f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}/eviction"


def test_one_pod_may_go_and_the_next_must_stay(kubectl: Run, tmp_path: Path) -> None:
    _serving(kubectl, tmp_path, allowed=1)
    for name in ("web", "db"):
        (tmp_path / name).write_text(json.dumps(_eviction(kubectl, name)))
    kubectl("create", "--raw", _path(kubectl, "web"), "-f", str(tmp_path / "web"))
    assert kubectl("get", "pods", "-o", "name").split() == ["pod/db"]
    refused = kubectl.fails("create", "--raw", _path(kubectl, "db"), "-f", str(tmp_path / "db"))
    assert "Cannot evict pod as it would violate the pod's disruption budget." in refused
    assert kubectl("get", "pods", "-o", "name").split() == ["pod/db"]
    left = json.loads(kubectl("get", "pdb", "guard", "-o", "json"))["status"]
    assert (left["disruptionsAllowed"], list(left["disruptedPods"])) == (0, ["web"])
    kubectl("delete", "pod", "db", "--now")  # a deletion asks no budget


def test_a_budget_not_counted_yet_says_when_to_come_back(kubectl: Run, plane: ServerThread, tmp_path: Path) -> None:
    _serving(kubectl, tmp_path, allowed=1, observed=0)
    url, ca, client = plane.context()
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(str(client))
    with httpx.Client(base_url=url, verify=context) as http:
        answer = http.post(_path(kubectl, "web"), json=_eviction(kubectl, "web"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    status = answer.json()
    assert status["details"]["retryAfterSeconds"] == 10
    assert status["details"]["causes"][0]["reason"] == "DisruptionBudget"
