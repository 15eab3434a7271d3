"""The actions on machines, through the API paths that virtctl and kubectl --raw use."""

from __future__ import annotations

import json
from pathlib import Path

from client_manifests_support import VM, VMI, manifest, write
from client_support import Run


def act(kubectl: Run, plural: str, name: str, action: str, body: str = "{}") -> str:
    path = f"/apis/subresources.kubevirt.io/v1/namespaces/{kubectl.namespace}/{plural}/{name}/{action}"
    done = kubectl.result("replace", "--raw", path, "-f", "-", stdin=body)
    return done.stdout if done.returncode == 0 else done.stderr


def test_start_stop_restart(kubectl: Run, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, VM))
    assert "Success" in act(kubectl, "virtualmachines", "machine", "start")
    assert kubectl.json("get", "vm", "machine")["spec"]["runStrategy"] == "Always"
    assert "does not support manual start" in act(kubectl, "virtualmachines", "machine", "start")
    assert "Success" in act(kubectl, "virtualmachines", "machine", "stop")
    assert kubectl.json("get", "vm", "machine")["spec"]["runStrategy"] == "Halted"
    assert "VM is not running" in act(kubectl, "virtualmachines", "machine", "stop")
    assert "not found" in act(kubectl, "virtualmachines", "other", "start")
    kubectl("patch", "vm", "machine", "--type=merge", "-p", '{"spec":{"runStrategy":"Manual"}}')
    assert "Success" in act(kubectl, "virtualmachines", "machine", "start")
    assert kubectl.json("get", "vm", "machine")["status"]["stateChangeRequests"] == [{"action": "Start"}]
    assert "VM is not running" in act(kubectl, "virtualmachines", "machine", "restart")
    kubectl("create", "-f", write(tmp_path, manifest(VMI, "machine")))
    uid = kubectl.json("get", "vmi", "machine")["metadata"]["uid"]
    assert "Success" in act(kubectl, "virtualmachines", "machine", "restart")
    requests = kubectl.json("get", "vm", "machine")["status"]["stateChangeRequests"]
    assert requests == [{"action": "Stop", "uid": uid}, {"action": "Start"}]


def test_pause_and_unpause(kubectl: Run, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, VMI))
    assert "VM is not running" in act(kubectl, "virtualmachineinstances", "guest", "pause")
    path = f"/apis/kubevirt.io/v1/namespaces/{kubectl.namespace}/virtualmachineinstances/guest/status"
    running = kubectl.json("get", "vmi", "guest")
    running["status"] = {"phase": "Running"}
    done = kubectl.result("replace", "--raw", path, "-f", "-", stdin=json.dumps(running))
    assert done.returncode == 0, done.stderr
    assert "Success" in act(kubectl, "virtualmachineinstances", "guest", "pause")
    found = kubectl.json("get", "vmi", "guest")
    assert found["metadata"]["annotations"] == {"isoplane.io/paused": "true"}
    assert "Success" in act(kubectl, "virtualmachineinstances", "guest", "unpause")
    assert "not paused" in act(kubectl, "virtualmachineinstances", "guest", "unpause")
