"""Stock Python clients, unchanged, against ``isoplane up --runtime simulated`` in a process of its own."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kopf
import kr8s
import kubernetes
import lightkube
import pytest
import yaml
from client_manifests_support import POD, VMI, manifest
from kr8s.objects import Pod as Kr8sPod
from kr8s.objects import new_class
from kubernetes.client import ApiException
from kubernetes.stream import stream
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace as LightNamespace
from lightkube.resources.core_v1 import Pod as LightPod

from apiserver_support import ServerThread
from plane_support import PlaneProcess

KUBEVIRT = ("kubevirt.io", "v1")
MACHINES = "virtualmachineinstances"
WAIT = 20.0

# What the clients' own code warns about on newer Pythons is not ours to judge.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    plane = PlaneProcess(tmp_path_factory.mktemp("stock") / "data", "--runtime", "simulated").start()
    yield str(plane.kubeconfig)
    plane.stop()


@pytest.fixture
def api(kubeconfig: str) -> Iterator[kubernetes.client.ApiClient]:
    with kubernetes.config.new_client_from_config(kubeconfig) as client:
        yield client


@pytest.fixture
def namespace(api: kubernetes.client.ApiClient) -> Iterator[str]:
    name = f"stock-{uuid.uuid4().hex[:8]}"
    core = kubernetes.client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


def eventually(found: Callable[[], Any], what: str) -> Any:
    """What ``found`` returns once it is true."""
    deadline = time.monotonic() + WAIT
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)
    return value


def placed(base: dict[str, Any], name: str, namespace: str) -> dict[str, Any]:
    return manifest(base, name, namespace=namespace)


# kubernetes


def test_kubernetes_pods(api: kubernetes.client.ApiClient, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    body = kubernetes.client.V1Pod(
        metadata=kubernetes.client.V1ObjectMeta(name="web", labels={"app": "web"}),
        spec=kubernetes.client.V1PodSpec(
            containers=[kubernetes.client.V1Container(name="main", image="busybox", command=["sleep", "1000"])]
        ),
    )
    assert core.create_namespaced_pod(namespace, body).metadata.uid
    with pytest.raises(ApiException) as again:
        core.create_namespaced_pod(namespace, body)
    assert (again.value.status, again.value.reason) == (409, "Conflict")
    phases = []
    watch = kubernetes.watch.Watch()
    for event in watch.stream(core.list_namespaced_pod, namespace, timeout_seconds=int(WAIT)):
        phases.append((event["type"], event["object"].status.phase))
        if event["object"].status.phase == "Running":
            watch.stop()
    assert phases[0][0] == "ADDED"
    assert phases[-1][1] == "Running"
    pod = core.patch_namespaced_pod("web", namespace, {"metadata": {"annotations": {"a": "b"}}})
    assert pod.metadata.annotations["a"] == "b"
    patch = [{"op": "add", "path": "/metadata/labels/tier", "value": "front"}]
    assert core.patch_namespaced_pod("web", namespace, patch).metadata.labels == {"app": "web", "tier": "front"}
    status = core.read_namespaced_pod_status("web", namespace).status
    assert status.container_statuses[0].state.running.started_at
    assert {c.type: c.status for c in status.conditions}["Ready"] == "True"
    found = core.list_namespaced_pod(namespace, label_selector="app=web", field_selector="status.phase=Running")
    assert [p.metadata.name for p in found.items] == ["web"]
    assert namespace in {p.metadata.namespace for p in core.list_pod_for_all_namespaces(limit=500).items}
    core.delete_namespaced_pod("web", namespace, grace_period_seconds=0)
    eventually(lambda: not core.list_namespaced_pod(namespace).items, "the pod's end")
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_pod("web", namespace)
    assert gone.value.status == 404


def test_kubernetes_logs(api: kubernetes.client.ApiClient, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    core.create_namespaced_pod(namespace, POD)
    eventually(lambda: core.read_namespaced_pod("web", namespace).status.phase == "Running", "a running pod")
    assert isinstance(core.read_namespaced_pod_log("web", namespace, tail_lines=5), str)


def test_kubernetes_exec(plane: ServerThread) -> None:
    """Against a scripted node, as the simulated runtime has no commands to run."""
    with kubernetes.config.new_client_from_config(str(plane.kubeconfig)) as api:
        core = kubernetes.client.CoreV1Api(api)
        name = core.create_namespace({"metadata": {"generateName": "stock-"}}).metadata.name
        core.create_namespaced_pod(name, POD)
        run = partial(stream, core.connect_get_namespaced_pod_exec, "web", name, stdout=True, stderr=True, tty=False)
        assert run(command=["echo", "hello"], stdin=False) == "ran echo hello\ncomplained\n"
        session = run(command=["exit", "7"], stdin=False, _preload_content=False)
        session.run_forever(timeout=WAIT)
        assert session.returncode == 7
        session = run(command=["cat"], stdin=True, _preload_content=False)
        assert session.readline_stdout(timeout=WAIT) == "ran cat"
        session.write_stdin("some text\n")
        assert session.readline_stdout(timeout=WAIT) == "some text"
        session.close()
        with pytest.raises(ApiException, match="not found"):
            stream(core.connect_get_namespaced_pod_exec, "nope", name, command=["true"], stdout=True)


def test_kubernetes_custom_objects(api: kubernetes.client.ApiClient, namespace: str) -> None:
    custom = kubernetes.client.CustomObjectsApi(api)
    where = (*KUBEVIRT, namespace, MACHINES)
    custom.create_namespaced_custom_object(*where, VMI)

    def running() -> bool:
        return custom.get_namespaced_custom_object(*where, "guest").get("status", {}).get("phase") == "Running"

    eventually(running, "a running machine")
    patched = custom.patch_namespaced_custom_object(*where, "guest", {"metadata": {"annotations": {"a": "b"}}})
    assert patched["metadata"]["annotations"]["a"] == "b"
    assert [o["metadata"]["name"] for o in custom.list_namespaced_custom_object(*where)["items"]] == ["guest"]
    watch = kubernetes.watch.Watch()
    events = watch.stream(custom.list_namespaced_custom_object, *where, timeout_seconds=1)
    assert next((e["type"], e["object"]["metadata"]["name"]) for e in events) == ("ADDED", "guest")
    custom.delete_namespaced_custom_object(*where, "guest", grace_period_seconds=0)
    eventually(lambda: not custom.list_namespaced_custom_object(*where)["items"], "the machine's end")


def test_kubernetes_create_from_yaml(api: kubernetes.client.ApiClient, namespace: str, tmp_path: Path) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}}
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all([copy.deepcopy(POD), config]))
    kubernetes.utils.create_from_yaml(api, str(path), namespace=namespace)
    core = kubernetes.client.CoreV1Api(api)
    assert core.read_namespaced_config_map("settings", namespace).data == {"a": "b"}
    assert core.read_namespaced_pod("web", namespace).spec.containers[0].image == "busybox"


def test_kubernetes_dynamic(api: kubernetes.client.ApiClient, namespace: str) -> None:
    dynamic = kubernetes.dynamic.DynamicClient(api)
    machines = dynamic.resources.get(api_version="kubevirt.io/v1", kind="VirtualMachineInstance")
    pods = dynamic.resources.get(api_version="v1", kind="Pod")
    assert machines.create(body=VMI, namespace=namespace).metadata.name == "guest"
    pods.server_side_apply(body=placed(POD, "web", namespace), namespace=namespace, field_manager="stock")
    applied = pods.get(name="web", namespace=namespace)
    assert "stock" in {entry.manager for entry in applied.metadata.managedFields}
    merged = machines.patch(
        name="guest", namespace=namespace, body={"metadata": {"labels": {"x": "y"}}},
        content_type="application/merge-patch+json",
    )  # fmt: skip
    assert merged.metadata.labels.x == "y"
    seen = [event["object"].metadata.name for event in pods.watch(namespace=namespace, timeout=1)]
    assert "web" in seen
    assert set(seen) <= {"web", "virt-launcher-guest"}
    machines.delete(name="guest", namespace=namespace)


def test_kubernetes_reviews(api: kubernetes.client.ApiClient) -> None:
    attributes = {"verb": "create", "resource": "pods", "namespace": "default"}
    access = kubernetes.client.AuthorizationV1Api(api).create_self_subject_access_review(
        {"spec": {"resourceAttributes": attributes}}
    )
    assert access.status.allowed is True
    rules = kubernetes.client.AuthorizationV1Api(api).create_self_subject_rules_review(
        {"spec": {"namespace": "default"}}
    )
    assert rules.status.resource_rules[0].verbs == ["*"]
    who = kubernetes.client.AuthenticationV1Api(api).create_self_subject_review({})
    assert who.status.user_info.username == "isoplane-admin"


# lightkube


def test_lightkube(kubeconfig: str, namespace: str) -> None:
    config = lightkube.KubeConfig.from_file(kubeconfig)
    client = lightkube.Client(config=config, namespace=namespace, field_manager="light")  # type: ignore[arg-type]
    pod = LightPod.from_dict(POD)
    assert client.create(pod).metadata.uid
    client.wait(LightPod, "web", for_conditions=["Ready"])
    client.patch(LightPod, "web", {"metadata": {"annotations": {"a": "b"}}})
    assert client.get(LightPod, "web").metadata.annotations["a"] == "b"
    assert [p.metadata.name for p in client.list(LightPod, labels={"app": "web"})] == ["web"]
    applied = client.apply(LightPod(metadata=ObjectMeta(name="web", labels={"tier": "front"}), spec=None))
    assert applied.metadata.labels["tier"] == "front"
    operation, seen = next(iter(client.watch(LightPod, server_timeout=5)))
    assert (operation, seen.metadata.name) == ("ADDED", "web")
    assert isinstance(list(client.log("web")), list)
    assert namespace in {n.metadata.name for n in client.list(LightNamespace)}
    machines = create_namespaced_resource(*KUBEVIRT, "VirtualMachineInstance", MACHINES)
    client.create(machines(VMI))
    eventually(lambda: (client.get(machines, "guest").status or {}).get("phase") == "Running", "a running machine")
    client.delete(machines, "guest")
    client.delete(LightPod, "web", grace_period=0)
    with pytest.raises(lightkube.ApiError) as missing:
        client.get(LightPod, "nope")
    assert missing.value.status.reason == "NotFound"


# kr8s


def test_kr8s(kubeconfig: str, namespace: str) -> None:
    api = kr8s.api(kubeconfig=kubeconfig, namespace=namespace)
    assert "isoplane" in api.version()["gitVersion"]
    assert "VirtualMachineInstance" in {resource["kind"] for resource in api.api_resources()}
    pod = Kr8sPod(placed(POD, "web", namespace), api=api)
    pod.create()
    pod.wait("condition=Ready", timeout=WAIT)
    pod.label({"tier": "front"})
    pod.annotate({"a": "b"})
    assert [p.name for p in api.get("pods", namespace=namespace, label_selector="tier=front")] == ["web"]
    assert isinstance(list(pod.logs()), list)
    machine_class = new_class("VirtualMachineInstance", version="kubevirt.io/v1", asyncio=False, plural=MACHINES)
    machine = machine_class(placed(VMI, "guest", namespace), api=api)
    machine.create()
    eventually(lambda: machine.refresh() or machine.raw.get("status", {}).get("phase") == "Running", "a machine")
    assert [m.name for m in api.get("virtualmachineinstances.kubevirt.io", namespace=namespace)] == ["guest"]
    machine.delete()
    pod.delete()
    eventually(lambda: not pod.exists(), "the pod's end")


# kopf


def test_kopf(
    api: kubernetes.client.ApiClient, kubeconfig: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    registry = kopf.OperatorRegistry()
    stop, ready = threading.Event(), threading.Event()
    seen: set[tuple[str, str]] = set()

    @kopf.on.login(registry=registry)
    def login(**options: Any) -> Any:
        return kopf.login_with_kubeconfig(**options)

    @kopf.on.create("pods", registry=registry)
    @kopf.on.create(*KUBEVIRT, MACHINES, registry=registry)
    def created(body: Any, patch: Any, **_: Any) -> None:
        seen.add((body["kind"], body["metadata"]["name"]))
        patch.metadata.annotations["stock/seen"] = body["kind"]

    def operate() -> None:
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = False
        asyncio.run(
            kopf.operator(
                registry=registry, settings=settings, namespaces=[namespace], standalone=True,
                stop_flag=stop, ready_flag=ready,
            )
        )  # fmt: skip

    thread = threading.Thread(target=operate, daemon=True)
    thread.start()
    try:
        assert ready.wait(WAIT)
        core, custom = kubernetes.client.CoreV1Api(api), kubernetes.client.CustomObjectsApi(api)
        core.create_namespaced_pod(namespace, POD)
        custom.create_namespaced_custom_object(*KUBEVIRT, namespace, MACHINES, VMI)

        def annotated() -> bool:
            pod = core.read_namespaced_pod("web", namespace).metadata.annotations or {}
            machine = custom.get_namespaced_custom_object(*KUBEVIRT, namespace, MACHINES, "guest")
            other = machine["metadata"].get("annotations", {})
            return (pod.get("stock/seen"), other.get("stock/seen")) == ("Pod", "VirtualMachineInstance")

        eventually(annotated, "the operator's annotations")
        assert {("Pod", "web"), ("VirtualMachineInstance", "guest")} <= seen
    finally:
        stop.set()
        thread.join(WAIT)
    assert not thread.is_alive()
