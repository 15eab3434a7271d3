"""The operator's admission policies on a real API server, while no operator runs: what they set, keep and refuse."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from control_plane_support import ControlPlane
from operator_support import install

from isoplane.operator.names import Accounts
from isoplane.workload.adapters import QUOTA_GATE

ACCOUNTS = Accounts()
CRITICAL = """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: policy-critical}
value: 1000
"""
UID = "11111111-1111-1111-1111-111111111111"
LAUNCHER_LABEL = {"kubevirt.io": "virt-launcher"}
OWNER = {
    "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm", "uid": UID,
    "controller": True, "blockOwnerDeletion": True,
}  # fmt: skip


class Managed:
    """One namespace under quota, and what kubectl says of Pods there."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.plane, self.name = plane, name

    def pod(self, name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
        container = {"name": "c", "image": "web", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}}
        return {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.name, **metadata},
            "spec": {"containers": [container], **(spec or {})},
        }  # fmt: skip

    def create(self, pod: dict[str, Any], *more: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.plane.kubectl("create", "-o", "json", "-f", "-", *more, stdin=json.dumps(pod))
        )
        return found

    def refusal(self, *arguments: str, stdin: str = "") -> str:
        with pytest.raises(AssertionError) as caught:
            self.plane.kubectl(*arguments, "-n", self.name, stdin=stdin)
        return str(caught.value)

    def patch(self, name: str, patch: Any, *more: str) -> str:
        return self.plane.kubectl("patch", "pod", name, "-n", self.name, "--type=json", "-p", json.dumps(patch), *more)


@pytest.fixture(scope="module")
def managed(control_plane: ControlPlane) -> Iterator[Managed]:
    install(control_plane)
    control_plane.kubectl("apply", "-f", "-", stdin=CRITICAL)
    control_plane.kubectl("create", "namespace", "policy-free")
    control_plane.kubectl("create", "namespace", "policy-managed")
    control_plane.kubectl("label", "namespace", "policy-managed", "isoplane.io/quota=managed")
    found = Managed(control_plane, "policy-managed")
    deadline = time.monotonic() + 60
    while "isoplane.io/quota" not in _gates(_tried(found)):  # policies are in force a moment after they are stored
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield found
    control_plane.kubectl("delete", "namespace", "policy-managed", "policy-free", "--wait=false")


def _tried(managed: Managed) -> dict[str, Any]:
    try:
        return managed.create(managed.pod("probe"), "--dry-run=server")
    except AssertionError as error:  # the service account is made by a controller; a policy may be ahead of the other
        early = ("serviceaccount", "gate", "failed to configure policy")
        if not any(word in str(error) for word in early):
            raise
        return {}


def _gates(pod: dict[str, Any]) -> list[str]:
    return [gate["name"] for gate in pod.get("spec", {}).get("schedulingGates", ())]


def test_every_policy_passes_the_servers_type_check(managed: Managed) -> None:
    found = json.loads(managed.plane.kubectl("get", "validatingadmissionpolicies", "-o", "json"))["items"]
    ours = [item for item in found if item["metadata"]["name"].endswith(".isoplane.io")]
    assert ours
    assert [item["status"]["typeChecking"] for item in ours] == [{}] * len(ours)


def test_a_pod_is_gated_and_keeps_the_gates_of_others(managed: Managed) -> None:
    assert _gates(managed.create(managed.pod("plain"))) == [QUOTA_GATE]
    other = managed.create(managed.pod("other", {"schedulingGates": [{"name": "example.com/wait"}]}))
    assert sorted(_gates(other)) == ["example.com/wait", QUOTA_GATE]
    own = managed.create(managed.pod("own-gate", {"schedulingGates": [{"name": QUOTA_GATE}]}))
    assert _gates(own) == [QUOTA_GATE]


def test_a_namespace_that_did_not_opt_in_is_left_alone(managed: Managed) -> None:
    pod = managed.pod("plain")
    pod["metadata"]["namespace"] = "policy-free"
    assert _gates(managed.create(pod, "--dry-run=server")) == []


def test_the_annotation_names_the_priority_class(managed: Managed) -> None:
    asked = managed.pod("critical", annotations={"scheduling.k8s.io/priority-class": "policy-critical"})
    made = managed.create(asked)
    assert (made["spec"]["priorityClassName"], made["spec"]["priority"]) == ("policy-critical", 1000)
    asked = managed.pod("unknown", annotations={"scheduling.k8s.io/priority-class": "nobody"})
    assert "no PriorityClass with name nobody was found" in managed.refusal(
        "create", "-f", "-", stdin=json.dumps(asked)
    )


@pytest.mark.parametrize("who", ["admin", "someone-else"])
def test_nobody_but_the_operator_takes_the_gate_off(managed: Managed, who: str) -> None:
    name = f"kept-{who}"
    managed.create(managed.pod(name))
    off = json.dumps([{"op": "remove", "path": "/spec/schedulingGates"}])
    more = [] if who == "admin" else ["--as=jane", "--as-group=system:masters"]
    refused = managed.refusal("patch", "pod", name, "--type=json", "-p", off, *more)
    assert "spec.schedulingGates: the gate isoplane.io/quota is taken off when quota admits the Pod" in refused
    managed.patch(name, [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}])  # other changes are free
    assert "patched" in managed.patch(name, json.loads(off), f"--as={ACCOUNTS.operator}", "--as-group=system:masters")


def test_a_pod_that_names_its_node_is_refused(managed: Managed) -> None:
    bound = json.dumps(managed.pod("bound", {"nodeName": "node-1"}))
    assert "nodeName" in managed.refusal("create", "-f", "-", stdin=bound)
    managed.create(managed.pod("to-bind"))
    binding = {
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "to-bind", "namespace": managed.name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node-1"},
    }  # fmt: skip
    where = f"/api/v1/namespaces/{managed.name}/pods/to-bind/binding"
    with pytest.raises(AssertionError, match="schedulingGates"):
        managed.plane.kubectl("create", "--raw", where, "-f", "-", stdin=json.dumps(binding))


@pytest.mark.parametrize("signs", [{"labels": LAUNCHER_LABEL}, {"ownerReferences": [OWNER]}])
def test_only_kubevirt_makes_the_body_of_a_machine(managed: Managed, signs: dict[str, Any]) -> None:
    forged = json.dumps(managed.pod("forged", **signs))
    assert "only KubeVirt's controller" in managed.refusal("create", "-f", "-", stdin=forged)
    plain = f"plain-{'label' if 'labels' in signs else 'owner'}"
    managed.create(managed.pod(plain))
    (key, value), *_ = signs.items()
    refused = managed.refusal("patch", "pod", plain, "--type=merge", "-p", json.dumps({"metadata": {key: value}}))
    assert "only KubeVirt's controller" in refused
    name = f"launcher-{'label' if 'labels' in signs else 'owner'}"
    true = managed.create(managed.pod(name, **signs), f"--as={ACCOUNTS.kubevirt}", "--as-group=system:masters")
    assert _gates(true) == [QUOTA_GATE]
    # Others may still write to it: finalizers, annotations, conditions.
    managed.patch(true["metadata"]["name"], [{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}])


@pytest.mark.parametrize(
    ("where", "resources", "grows"),
    [
        ("requests", {"cpu": "50m"}, False),
        ("requests", {"cpu": "200m"}, True),
        ("requests", {"cpu": "100m", "memory": "1Mi"}, True),
        ("limits", {"cpu": "0.5"}, False),
        ("limits", {"cpu": "1001m"}, True),
    ],
)
def test_a_resize_shrinks_only(managed: Managed, where: str, resources: dict[str, str], grows: bool) -> None:
    name = "resized"
    if name not in managed.plane.kubectl("get", "pods", "-n", managed.name, "-o", "name"):
        managed.create(managed.pod(name))
    patch = {"spec": {"containers": [{"name": "c", "resources": {where: resources}}]}}
    command = ["patch", "pod", name, "--subresource=resize", "--dry-run=server", "-p", json.dumps(patch)]
    if grows:
        assert "spec.containers[].resources: a Pod of this namespace may be resized downwards only" in managed.refusal(
            *command
        )
    else:
        managed.plane.kubectl(*command, "-n", managed.name)


def test_only_an_administrator_opts_a_namespace_in_or_out(managed: Managed) -> None:
    plane = managed.plane
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "policy-namespaces"},
        "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["*"]}],
    }  # fmt: skip
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(role))
    plane.kubectl("create", "clusterrolebinding", "policy-namespaces", "--clusterrole=policy-namespaces", "--user=jane")
    try:
        for change in ("isoplane.io/quota-", "isoplane.io/quota=off"):
            with pytest.raises(AssertionError, match=r"only who may update cohorts\.isoplane\.io"):
                plane.kubectl("label", "namespace", managed.name, change, "--overwrite", "--as=jane")
        with pytest.raises(AssertionError, match=r"only who may update cohorts\.isoplane\.io"):
            plane.kubectl("label", "namespace", "policy-free", "isoplane.io/quota=managed", "--as=jane")
        plane.kubectl("label", "namespace", "policy-free", "note=free", "--as=jane")
        plane.kubectl("label", "namespace", "policy-free", "isoplane.io/quota=managed", "--dry-run=server")
    finally:
        plane.kubectl("delete", "clusterrolebinding/policy-namespaces", "clusterrole/policy-namespaces")


def test_system_classes_are_nobodys(managed: Managed) -> None:
    for asked in (
        managed.pod("system", {"priorityClassName": "system-node-critical"}),
        managed.pod("system", annotations={"scheduling.k8s.io/priority-class": "system-cluster-critical"}),
    ):
        assert "spec.priorityClassName: the classes system-" in managed.refusal(
            "create", "-f", "-", stdin=json.dumps(asked)
        )


def test_the_quota_policy_bounds_the_priority(managed: Managed) -> None:
    policy = {
        "apiVersion": "isoplane.io/v1alpha1", "kind": "QuotaPolicy", "metadata": {"name": "default", "namespace": managed.name},
        "spec": {"maxPriority": 500},
    }  # fmt: skip
    managed.plane.kubectl("apply", "-f", "-", stdin=json.dumps(policy))
    asked = json.dumps(managed.pod("above", {"priorityClassName": "policy-critical"}))
    deadline = time.monotonic() + 20
    while _passes(managed, asked):  # the server's cache of parameters follows
        assert time.monotonic() < deadline
        time.sleep(0.1)
    refused = managed.refusal("create", "--dry-run=server", "-f", "-", stdin=asked)
    assert "policy-critical has priority 1000; this namespace may use up to 500" in refused
    managed.create(managed.pod("below"), "--dry-run=server")
    managed.plane.kubectl("delete", "quotapolicy", "default", "-n", managed.name)


def _passes(managed: Managed, asked: str) -> bool:
    try:
        managed.plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=asked)
    except AssertionError:
        return False
    return True
