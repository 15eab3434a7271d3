"""kubectl's reading commands, with every version found."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from client_manifests_support import POD, VM, VMI, manifest, write
from client_support import FOUND, Run

from apiserver_support import ServerThread


def test_a_kubectl_that_sends_protobuf_is_among_them() -> None:
    if not FOUND:
        pytest.skip("needs kubectl")
    assert max(k.minor for k in FOUND) >= 32


def test_version_and_discovery(kubectl: Run) -> None:
    assert "isoplane" in kubectl("version", "-o", "yaml")
    names = kubectl("api-resources", "-o", "name").split()
    assert {"pods", "namespaces", "virtualmachines.kubevirt.io", "workloads.view.isoplane.io"} <= set(names)
    assert "events" in names
    assert "kubevirt.io/v1" in kubectl("api-versions").split()
    everything = kubectl("api-resources", "--categories=all", "-o", "name").split()
    assert sorted(everything) == ["pods", "virtualmachineinstances.kubevirt.io", "virtualmachines.kubevirt.io"]


def test_get_in_every_form(kubectl: Run, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, POD, manifest(POD, "db", labels={"app": "db"}), VMI, VM))
    table = kubectl("get", "pods").splitlines()
    assert table[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [line.split()[0] for line in table[1:]] == ["db", "web"]
    assert "NODE" in kubectl("get", "pods", "-o", "wide").splitlines()[0]
    assert kubectl("get", "pods", "-o", "name").split() == ["pod/db", "pod/web"]
    assert kubectl("get", "pod", "web", "-o", "jsonpath={.spec.containers[0].image}") == "busybox"
    assert "kind: Pod" in kubectl("get", "pod", "web", "-o", "yaml")
    assert kubectl.json("get", "pod", "web")["metadata"]["namespace"] == kubectl.namespace
    assert kubectl("get", "pods", "-l", "app in (db,x)", "-o", "name").split() == ["pod/db"]
    assert kubectl("get", "pods", "--field-selector=metadata.name!=db", "-o", "name").split() == ["pod/web"]
    assert kubectl("get", "pods", "-L", "app").splitlines()[1].split()[-1] == "db"
    assert kubectl("get", "pods", "--sort-by=.metadata.name", "-o", "name").split() == ["pod/db", "pod/web"]
    assert kubectl("get", "pods", "-o", "custom-columns=N:.metadata.name").split() == ["N", "db", "web"]
    everywhere = kubectl("get", "pods", "-A", "--no-headers")
    assert f"{kubectl.namespace} " in everywhere
    for short in ("vmi", "vmis", "virtualmachineinstances.kubevirt.io", "vm", "all"):
        assert kubectl("get", short)
    assert "machine" in kubectl("get", "all")
    assert "No resources found" in kubectl.result("get", "configmaps").stderr
    assert 'pods "nope" not found' in kubectl.fails("get", "pod", "nope")
    assert "(NotFound)" in kubectl.fails("get", "pod", "nope")
    assert "the server doesn't have a resource type" in kubectl.fails("get", "nonsense")


def test_get_in_chunks(kubectl: Run, tmp_path: Path) -> None:
    maps = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{n}"}} for n in range(7)]
    kubectl("create", "-f", write(tmp_path, *maps))
    assert len(kubectl("get", "configmaps", "--chunk-size=3", "-o", "name").split()) == 7


def test_get_watch_shows_changes_as_rows(kubectl: Run, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, POD))
    watching = kubectl.start("get", "pods", "-w")
    assert watching.stdout is not None
    try:
        assert watching.stdout.readline().startswith("NAME")
        assert watching.stdout.readline().startswith("web")
        kubectl("label", "pod", "web", "more=x")
        assert watching.stdout.readline().startswith("web")
        kubectl("create", "-f", write(tmp_path, manifest(POD, "later")))
        assert watching.stdout.readline().startswith("later")
    finally:
        watching.kill()
        watching.communicate()


def test_describe(kubectl: Run, plane: ServerThread, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, POD, VMI, VM))
    pod = kubectl.json("get", "pod", "web")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "web.1"},
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": kubectl.namespace, "uid": pod["metadata"]["uid"]},
        "reason": "Tested",
        "message": "it was described",
        "type": "Normal",
        "count": 1,
    }
    kubectl("create", "-f", write(tmp_path, event))
    text = kubectl("describe", "pod", "web")
    assert "Image:" in text
    assert "it was described" in text
    assert "Tested" in kubectl("get", "events")
    assert "guest" in kubectl("describe", "vmi", "guest")
    assert "machine" in kubectl("describe", "vm")
    assert kubectl.namespace in kubectl("describe", "namespace", kubectl.namespace)


def test_explain(kubectl: Run) -> None:
    assert "containers" in kubectl("explain", "pod.spec")
    assert "FIELD" in kubectl("explain", "pods.spec.containers.image")
    assert "runStrategy" in kubectl("explain", "vm.spec")
    assert kubectl("explain", "vmi.spec.domain")
    assert kubectl("explain", "workload")


def exec_path(kubectl: Run, pod: str) -> str:
    return f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/exec?command=true&stdout=true"


def test_logs(kubectl: Run, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, POD, VMI))
    assert "virt-launcher" not in kubectl("get", "pods")
    assert "not found" in kubectl.fails("logs", "virt-launcher-guest")
    vmi = f"/apis/kubevirt.io/v1/namespaces/{kubectl.namespace}/virtualmachineinstances/guest/status"
    placed = {**kubectl.json("get", "vmi", "guest"), "status": {"phase": "Running", "nodeName": "n1"}}
    kubectl("replace", "--raw", vmi, "-f", "-", stdin=json.dumps(placed))
    assert kubectl("logs", "web").splitlines() == [f"container line {n}" for n in range(3)]
    assert kubectl("logs", "web", "--tail=1").splitlines() == ["container line 2"]
    assert kubectl("logs", "web", "--previous").splitlines() == ["the one before"]
    assert kubectl("logs", "-f", "web").splitlines()[-1] == "followed 4"
    console = [f"serial console line {n}" for n in range(3)]
    assert kubectl("logs", "virt-launcher-guest").splitlines() == console
    assert kubectl("logs", "virt-launcher-guest", "-c", "guest-console-log", "--tail=1").splitlines() == console[-1:]
    assert kubectl("logs", "-f", "pod/virt-launcher-guest").splitlines()[-1] == "followed 4"
    assert "commands cannot be run" in kubectl.fails("get", "--raw", exec_path(kubectl, "virt-launcher-guest"))
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/{kubectl.namespace}/virtualmachineinstances/guest/log"
    assert kubectl("get", "--raw", path).splitlines()[0] == "serial console line 0"


def test_wait(kubectl: Run, plane: ServerThread, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, POD, manifest(POD, "gone")))
    waiting = kubectl.start("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    deleted = kubectl.start("wait", "--for=delete", "pod/gone", "--timeout=20s")
    phase = kubectl.start("wait", "--for=jsonpath={.status.phase}=Running", "pod/web", "--timeout=20s")
    time.sleep(0.3)
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    kubectl("patch", "pod", "web", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    kubectl("delete", "pod", "gone")
    for process in (waiting, deleted, phase):
        out, error = process.communicate(timeout=25)
        assert process.returncode == 0, out + error
    assert "timed out" in kubectl.fails("wait", "--for=condition=Never", "pod/web", "--timeout=1s")


def test_computed_kinds_are_announced_and_cannot_be_written(kubectl: Run, tmp_path: Path) -> None:
    body = {"apiVersion": "view.isoplane.io/v1alpha1", "kind": "Workload", "metadata": {"name": "x"}}
    error = kubectl.fails("create", "--validate=false", "-f", write(tmp_path, body))
    assert "MethodNotAllowed" in error or "does not allow" in error
