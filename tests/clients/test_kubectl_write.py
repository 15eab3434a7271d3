"""kubectl's writing commands, with every version found."""

from __future__ import annotations

import json
import time
from pathlib import Path

from client_manifests_support import POD, VM, VMI, manifest, write
from client_support import Run


def test_create_of_what_newer_kubectls_send_as_protobuf(kubectl: Run) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    assert kubectl.json("get", "configmap", "c")["data"] == {"a": "b"}
    kubectl("create", "secret", "generic", "s", "--from-literal=key=value")
    assert kubectl.json("get", "secret", "s")["data"] == {"key": "dmFsdWU="}
    kubectl("create", "quota", "q", "--hard=pods=3,cpu=2")
    assert kubectl.json("get", "quota", "q")["spec"]["hard"] == {"cpu": "2", "pods": "3"}
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "priorityclass", f"{kubectl.namespace}-high", "--value=100", "--description=test")
    assert kubectl.json("get", "priorityclass", f"{kubectl.namespace}-high")["value"] == 100
    kubectl("delete", "priorityclass", f"{kubectl.namespace}-high")


def test_create_edges(kubectl: Run, tmp_path: Path) -> None:
    path = write(tmp_path, POD)
    kubectl("create", "-f", path)
    assert "AlreadyExists" in kubectl.fails("create", "-f", path)
    generated = manifest(POD, labels={"app": "many"})
    del generated["metadata"]["name"]
    generated["metadata"]["generateName"] = "many-"
    for _ in range(3):
        kubectl("create", "-f", write(tmp_path, generated))
    names = kubectl("get", "pods", "-l", "app=many", "-o", "name").split()
    assert len(names) == 3
    assert all(name.startswith("pod/many-") for name in names)
    assert 'namespaces "nowhere" not found' in kubectl.fails("create", "-n", "nowhere", "-f", write(tmp_path, POD))


def test_validation_names_the_field(kubectl: Run, tmp_path: Path) -> None:
    wrong = manifest(POD, "wrong")
    wrong["spec"]["containers"][0].pop("image")
    wrong["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "many"}}
    error = kubectl.fails("create", "--validate=false", "-f", write(tmp_path, wrong))
    assert "spec.containers[0]" in error
    unknown = manifest(POD, "unknown")
    unknown["spec"]["colour"] = "red"
    assert 'unknown field "spec.colour"' in kubectl.fails("create", "--validate=strict", "-f", write(tmp_path, unknown))
    warned = kubectl.result("create", "--validate=warn", "-f", write(tmp_path, unknown))
    assert warned.returncode == 0
    assert 'unknown field "spec.colour"' in warned.stderr
    assert "Invalid value" in kubectl.fails("create", "-f", write(tmp_path, manifest(POD, "Bad_Name")))


def test_apply_merges_three_ways(kubectl: Run, tmp_path: Path) -> None:
    pod = manifest(POD)
    pod["metadata"]["labels"] = {"app": "web", "mine": "1"}
    assert "created" in kubectl("apply", "-f", write(tmp_path, pod))
    assert "unchanged" in kubectl("apply", "-f", write(tmp_path, pod))
    kubectl("label", "pod", "web", "theirs=2")
    del pod["metadata"]["labels"]["mine"]
    pod["spec"]["containers"][0]["image"] = "busybox:2"
    assert "configured" in kubectl("apply", "-f", write(tmp_path, pod))
    found = kubectl.json("get", "pod", "web")
    assert found["metadata"]["labels"] == {"app": "web", "theirs": "2"}
    assert found["spec"]["containers"][0]["image"] == "busybox:2"
    assert kubectl.result("diff", "-f", write(tmp_path, pod)).returncode == 0


def test_apply_of_a_custom_kind(kubectl: Run, tmp_path: Path) -> None:
    vm = manifest(VM)
    kubectl("apply", "-f", write(tmp_path, vm))
    vm["spec"]["runStrategy"] = "Manual"
    assert "configured" in kubectl("apply", "-f", write(tmp_path, vm))
    found = kubectl.json("get", "vm", "machine")
    assert found["spec"]["runStrategy"] == "Manual"
    assert found["metadata"]["generation"] == 2


def test_replace_and_conflict(kubectl: Run, tmp_path: Path) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    found = kubectl.json("get", "configmap", "c")
    found["data"]["a"] = "c"
    kubectl("replace", "-f", write(tmp_path, found))
    assert "Conflict" in kubectl.fails("replace", "-f", write(tmp_path, found))
    assert kubectl.json("get", "configmap", "c")["data"] == {"a": "c"}


def test_patch_label_annotate(kubectl: Run, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, POD, VMI))
    kubectl("patch", "pod", "web", "-p", '{"metadata":{"annotations":{"a":"1"}}}')
    kubectl("patch", "pod", "web", "--type=merge", "-p", '{"metadata":{"annotations":{"b":"2"}}}')
    patch = [{"op": "add", "path": "/metadata/annotations/c", "value": "3"}]
    kubectl("patch", "pod", "web", "--type=json", "-p", json.dumps(patch))
    strategic = {"spec": {"containers": [{"name": "main", "image": "busybox:3"}]}}
    kubectl("patch", "pod", "web", "-p", json.dumps(strategic))
    kubectl("label", "pod", "web", "app=other", "--overwrite")
    kubectl("annotate", "pod", "web", "a-")
    found = kubectl.json("get", "pod", "web")
    assert found["metadata"]["annotations"] == {"b": "2", "c": "3"}
    assert found["metadata"]["labels"] == {"app": "other"}
    assert found["spec"]["containers"][0]["image"] == "busybox:3"
    assert found["spec"]["containers"][0]["command"] == ["sleep", "1000"]
    refused = kubectl.fails("patch", "vmi", "guest", "--type=strategic", "-p", "{}")
    assert "media type" in refused or "not supported" in refused
    kubectl("patch", "vmi", "guest", "--type=merge", "-p", '{"metadata":{"labels":{"x":"y"}}}')


def test_dry_run_writes_nothing(kubectl: Run, tmp_path: Path) -> None:
    assert "(server dry run)" in kubectl("create", "--dry-run=server", "-f", write(tmp_path, POD))
    assert "not found" in kubectl.fails("get", "pod", "web")
    kubectl("create", "-f", write(tmp_path, POD))
    kubectl("delete", "pod", "web", "--dry-run=server")
    kubectl("label", "pod", "web", "x=y", "--dry-run=server")
    assert kubectl.json("get", "pod", "web")["metadata"]["labels"] == {"app": "web"}


def test_delete_at_once_where_no_node_has_it(kubectl: Run, tmp_path: Path) -> None:
    path = write(tmp_path, POD, VMI)
    kubectl("create", "-f", path)
    kubectl("delete", "-f", path)
    assert not kubectl("get", "pods,vmi", "-o", "name")


def test_delete_waits_for_the_node_and_force_does_not(kubectl: Run, tmp_path: Path) -> None:
    placed = manifest(POD)
    placed["spec"]["nodeName"] = "here"
    kubectl("create", "-f", write(tmp_path, placed))
    kubectl("delete", "pod", "web", "--wait=false", "--grace-period=20")
    found = kubectl.json("get", "pod", "web")["metadata"]
    assert found["deletionGracePeriodSeconds"] == 20
    assert "Terminating" in kubectl("get", "pod", "web")
    kubectl("delete", "pod", "web", "--wait=false", "--grace-period=5")
    assert kubectl.json("get", "pod", "web")["metadata"]["deletionGracePeriodSeconds"] == 5
    kubectl("delete", "pod", "web", "--force", "--grace-period=0")
    assert "not found" in kubectl.fails("get", "pod", "web")


def test_delete_by_label_and_all(kubectl: Run, tmp_path: Path) -> None:
    kubectl("create", "-f", write(tmp_path, *(manifest(POD, f"p{n}", labels={"n": str(n % 2)}) for n in range(4))))
    kubectl("delete", "pods", "-l", "n=0")
    assert kubectl("get", "pods", "-o", "name").split() == ["pod/p1", "pod/p3"]
    kubectl("delete", "pods", "--all")
    assert not kubectl("get", "pods", "-o", "name")


def test_finalizers_hold_until_they_are_gone(kubectl: Run, tmp_path: Path) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "finalizers": ["example.com/hold"]}}
    kubectl("create", "-f", write(tmp_path, config))
    deleting = kubectl.start("delete", "configmap", "c", "--timeout=20s")
    deadline = time.monotonic() + 10
    while "deletionTimestamp" not in kubectl.json("get", "configmap", "c")["metadata"]:
        assert time.monotonic() < deadline
    assert deleting.poll() is None
    kubectl("patch", "configmap", "c", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    out, error = deleting.communicate(timeout=20)
    assert deleting.returncode == 0, out + error


def test_namespace_deletion_waits_for_its_finalizer(kubectl: Run) -> None:
    name = f"{kubectl.namespace}-x"
    kubectl("create", "namespace", name)
    kubectl("delete", "namespace", name, "--wait=false")
    found = kubectl.json("get", "namespace", name)
    assert found["status"]["phase"] == "Terminating"
    refused = kubectl.fails("create", "configmap", "c", "-n", name)
    assert "being terminated" in refused
    found["spec"] = {}
    path = f"/api/v1/namespaces/{name}/finalize"
    done = kubectl.result("replace", "--raw", path, "-f", "-", stdin=json.dumps(found))
    assert done.returncode == 0, done.stderr
    assert "not found" in kubectl.fails("get", "namespace", name)


def test_scale_of_errors_stays_readable(kubectl: Run) -> None:
    assert "error" in kubectl.fails("create", "-f", "-", stdin="{not yaml: [").lower()
    assert "BadRequest" in kubectl.fails("get", "pods", "--field-selector=spec.colour=red")


def test_server_side_apply_shares_an_object(kubectl: Run, tmp_path: Path) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"mine": "1", "both": "1"}}
    out = kubectl("apply", "--server-side", "--field-manager=one", "-f", write(tmp_path, config))
    assert "serverside-applied" in out
    other = {**config, "data": {"theirs": "2", "both": "2"}}
    refused = kubectl.fails("apply", "--server-side", "--field-manager=two", "-f", write(tmp_path, other))
    assert "conflict with" in refused
    assert "data.both" in refused
    kubectl("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", write(tmp_path, other))
    assert kubectl.json("get", "configmap", "c")["data"] == {"mine": "1", "theirs": "2", "both": "2"}
    kubectl("apply", "--server-side", "--field-manager=one", "-f", write(tmp_path, {**config, "data": {}}))
    assert kubectl.json("get", "configmap", "c")["data"] == {"theirs": "2", "both": "2"}
    managers = kubectl.json("get", "configmap", "c", "--show-managed-fields")["metadata"]["managedFields"]
    assert "two" in {entry["manager"] for entry in managers}


def test_server_side_apply_takes_over_from_client_side(kubectl: Run, tmp_path: Path) -> None:
    pod = manifest(POD)
    pod["spec"]["containers"][0]["image"] = "busybox:1"
    kubectl("apply", "-f", write(tmp_path, pod))
    pod["spec"]["containers"][0]["image"] = "busybox:2"
    kubectl("apply", "--server-side", "--force-conflicts", "-f", write(tmp_path, pod))
    found = kubectl.json("get", "pod", "web")
    assert found["spec"]["containers"][0]["image"] == "busybox:2"
    kubectl("label", "pod", "web", "more=x")
    assert kubectl("apply", "--server-side", "-f", write(tmp_path, pod))
    assert kubectl.json("get", "pod", "web")["metadata"]["labels"] == {"app": "web", "more": "x"}
    kubectl("apply", "--server-side", "-f", write(tmp_path, manifest(VM)))
    kubectl("apply", "--server-side", "--dry-run=server", "-f", write(tmp_path, manifest(VM, "other")))
    assert "not found" in kubectl.fails("get", "vm", "other")


def test_going_over_to_server_side_apply_takes_nothing_of_others(kubectl: Run, tmp_path: Path) -> None:
    """kubectl moves what it applied client-side to its applier; what others wrote stays theirs, and a Pod stays applicable."""
    pod = manifest(POD, "moved")
    pod["spec"]["containers"][0]["image"] = "busybox:1"
    kubectl("apply", "-f", write(tmp_path, pod))
    kubectl("label", "pod", "moved", "theirs=2")
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "moved"}, "target": {"name": "n1"}}
    where = f"/api/v1/namespaces/{kubectl.namespace}/pods/moved/binding"
    kubectl("create", "--raw", where, "-f", write(tmp_path, binding))
    for image in ("busybox:2", "busybox:3", "busybox:3"):
        pod["spec"]["containers"][0]["image"] = image
        kubectl("apply", "--server-side", "-f", write(tmp_path, pod))
        found = kubectl.json("get", "pod", "moved")
        assert found["spec"]["containers"][0]["image"] == image
        assert found["spec"]["nodeName"] == "n1"
        assert found["metadata"]["labels"]["theirs"] == "2"
        assert "managedFields" not in found["metadata"]
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "moved"}, "data": {"mine": "1"}}
    kubectl("create", "-f", write(tmp_path, config))
    kubectl("patch", "configmap", "moved", "--type=merge", "-p", '{"data": {"theirs": "2"}}')
    for mine in ("1", "1"):
        config["data"] = {"mine": mine}
        kubectl("apply", "--server-side", "-f", write(tmp_path, config))
        assert kubectl.json("get", "configmap", "moved")["data"] == {"mine": "1", "theirs": "2"}


def test_kinds_that_are_not_served_yet_say_so(kubectl: Run, tmp_path: Path) -> None:
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }  # fmt: skip
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "names": {"kind": "Thing", "plural": "things"}, "scope": "Namespaced"},
    }  # fmt: skip
    for plural, obj in (("services", service), ("customresourcedefinitions.apiextensions.k8s.io", definition)):
        assert kubectl.json("get", plural)["items"] == []
        assert "o resources found" in kubectl.result("get", plural).stderr
        for command in (("create",), ("apply",), ("apply", "--server-side")):
            said = kubectl.fails(*command, "-f", write(tmp_path, obj))
            assert f"{plural} are not served by isoplane yet" in said, said
            assert "CRDs" not in said
