"""`isoplane policy` beside a real Kubernetes: policies of kinds that other network plugins bring are found and named."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from control_plane_support import ControlPlane
from typer.testing import CliRunner, Result

from isoplane.cli.policy import app

PODS = """
apiVersion: v1
kind: Namespace
metadata: {name: policies}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: policies}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: policies, labels: {app: web}}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cli, namespace: policies}
spec: {containers: [{name: c, image: x}]}
"""


def definition(group: str, plural: str, kind: str, version: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=PODS)
    for each in (
        definition("cilium.io", "ciliumnetworkpolicies", "CiliumNetworkPolicy", "v2"),
        definition("k8s.cni.cncf.io", "multi-networkpolicies", "MultiNetworkPolicy", "v1beta1"),
    ):
        control_plane.kubectl("create", "-f", "-", stdin=json.dumps(each))
        control_plane.kubectl("wait", "--for=condition=Established", f"crd/{each['metadata']['name']}", "--timeout=30s")
    deadline = time.monotonic() + 30
    while "cannot be listed" in (told := explain(control_plane).stderr):  # its storage is still being made
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    return control_plane


def explain(cluster: ControlPlane) -> Result:
    ends = ("--from", "policies/cli", "--to", "policies/web", "--port", "80")
    return CliRunner().invoke(app, ["explain", "--kubeconfig", str(cluster.kubeconfig), *ends])


def test_a_policy_that_could_select_an_end_is_named(cluster: ControlPlane) -> None:
    before = explain(cluster)
    assert (before.stderr, before.exit_code) == ("", 0)

    def create(version: str, kind: str, namespace: str, spec: dict[str, Any]) -> None:
        meta = {"name": "deny", "namespace": namespace}
        obj = {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(obj))

    create("cilium.io/v2", "CiliumNetworkPolicy", "default", {"endpointSelector": {}})
    elsewhere = {"podSelector": {"matchLabels": {"app": "other"}}}
    create("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy", "policies", elsewhere)
    assert explain(cluster).exit_code == 0, "neither concerns the two ends"
    create("cilium.io/v2", "CiliumNetworkPolicy", "policies", {"endpointSelector": {}, "ingress": [{}]})
    after = explain(cluster)
    assert after.exit_code == 2
    assert "not judged: cilium.io/v2 CiliumNetworkPolicy policies/deny" in after.stderr
    assert "MultiNetworkPolicy" not in after.stderr


def test_status_says_that_the_network_plugin_enforces(cluster: ControlPlane) -> None:
    done = CliRunner().invoke(app, ["status", "--kubeconfig", str(cluster.kubeconfig), "-o", "json"])
    assert done.exit_code == 0
    rows = {row["workload"]: row for row in json.loads(done.stdout)}
    assert rows["pod/policies/web"]["state"] == "by the network plugin"
    assert "network plugin (CNI) enforces" in done.stderr
