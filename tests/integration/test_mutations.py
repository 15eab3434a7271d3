"""Objects with one value replaced by another of any JSON type: refused with a sentence, or taken; never an internal error."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from controllers_support import machine_spec, pod, vm, vmi
from isoplane.client import kubeconfig
from isoplane.http.request_options import Call, DeleteOptions, check_shape
from isoplane.objects import kinds
from isoplane.objects.decode import JSON
from isoplane.objects.errors import AlreadyExists, ApiError, BadRequest, Internal
from isoplane.objects.kinds import BUILT_IN, CONFIGMAPS, PODS, VIRTUALMACHINES, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.schema.validator import misplaced_values, type_causes
from isoplane.plane import admission_plugins
from isoplane.server.admission import Chain
from isoplane.server.apiserver import ApiServer
from isoplane.server.bootstrap import bootstrap
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.verbs import Verbs
from isoplane.store import Store

ROUNDS = 20_000
DEEP: Any = "x"
for _ in range(90):
    DEEP = {"a": [DEEP]}
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 1.5, 1e308, -0.0, "", "x", "1", "-1", "9E", "1e400",
    "1Ki", "\ud7ff\x00", "a" * 70_000, [], [None], [1], ["x"], ["x", "x"], [[]], [{}], [{"name": "x"}, {"name": "x"}], {},
    {"x": None}, {"x": "y"}, {"cpu": "x"}, {"cpu": -1, "memory": []}, {"": {"": []}}, "2020-01-01T00:00:00Z", DEEP,
)  # fmt: skip


def of(resource: Resource, name: str, **fields: Any) -> Object:
    meta = {"name": name} | ({"namespace": "default"} if resource.namespaced else {})
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta, **fields}


def examples() -> Iterator[Object]:
    """A valid object of each kind that can be created, with something in every part that has rules."""
    amounts = {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}
    selector = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}
    ports = [{"protocol": "TCP", "port": 80, "endPort": 90}, {"port": "http"}]
    specs: dict[str, Object] = {
        "ConfigMap": {"data": {"a": "b"}, "binaryData": {"c": "ZA=="}},
        "Secret": {"data": {"a": "ZA=="}, "stringData": {"b": "c"}, "type": "Opaque"},
        "Node": {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}, "status": {"capacity": amounts}},
        "ResourceQuota": {
            "spec": {
                "hard": {"cpu": "4", "requests.memory": "1Gi", "pods": "9", "count/configmaps": "99999"},
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]
                },
            }
        },
        "TenantQuota": {
            "spec": {
                "hard": {"cpu": "4", "requests.memory": "1Gi", "pods": "9"},
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]
                },
            }
        },
        "LimitRange": {
            "spec": {
                "limits": [{"type": "Container", "default": {"cpu": "1"}, "min": {"cpu": "1m"}, "max": {"cpu": "64"}}]
            }
        },
        "PriorityClass": {"value": 5, "preemptionPolicy": "Never", "description": "d"},
        "NetworkPolicy": {
            "spec": {
                "podSelector": selector,
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"from": [{"podSelector": selector, "namespaceSelector": {}}], "ports": ports},
                    {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
                ],
                "egress": [{"to": [{"namespaceSelector": selector}], "ports": ports}],
            }
        },
        "PodDisruptionBudget": {"spec": {"minAvailable": "50%", "selector": selector}},
        "Lease": {
            "spec": {"holderIdentity": "x", "leaseDurationSeconds": 5, "renewTime": "2020-01-01T00:00:00.000000Z"}
        },
        "Event": {
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "x"},
            "reason": "r",
            "message": "m",
        },
        "ClusterNetworkPolicy": {
            "spec": {
                "tier": "Admin",
                "priority": 5,
                "subject": {"namespaces": selector},
                "ingress": [{"action": "Deny", "from": [{"namespaces": selector}]}],
            }
        },
        "QuotaPolicy": {"spec": {}},
        "Cohort": {"spec": {}},
    }
    for resource in BUILT_IN:
        if resource.computed or "create" not in resource.verbs:
            continue
        if resource.kind in ("Pod", "VirtualMachine", "VirtualMachineInstance"):
            continue
        yield of(resource, "default", **specs.get(resource.kind, {}))
    probe = {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5}
    container: Object = {
        "name": "c", "image": "demo/web:1", "command": ["x"], "ports": [{"containerPort": 80, "name": "http"}],
        "env": [{"name": "A", "value": "$(B)"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "resources": {"requests": {"cpu": "10m", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "livenessProbe": probe, "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}],
        "securityContext": {"runAsUser": 1, "capabilities": {"add": ["NET_ADMIN"]}},
        "lifecycle": {"preStop": {"exec": {"command": ["x"]}}},
    }  # fmt: skip
    yield pod(
        "default",
        containers=[container],
        initContainers=[{**container, "name": "i", "restartPolicy": "Always"}],
        volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "configMap": {"name": "m"}}],
        tolerations=[{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        nodeSelector={"a": "b"},
        securityContext={"fsGroup": 5, "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
        schedulingGates=[{"name": "example.com/gate"}],
    )
    yield vmi("default")
    spec = machine_spec()
    spec["domain"]["cpu"] = {"cores": 2}
    spec["domain"]["resources"] = {"requests": {"memory": "64Mi"}}
    spec["networks"] = [{"name": "n", "pod": {}}]
    spec["domain"]["devices"] = {"interfaces": [{"name": "n", "bridge": {}}]}
    yield vm("default", "Halted", template={"metadata": {"labels": {"a": "b"}}, "spec": spec})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(child, (*path, key))


def with_value(obj: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(obj)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = copy.deepcopy(value)
    return made


def nested(path: tuple[Any, ...], value: Any) -> Any:
    """A merge patch that writes one value (lists as a whole are not its concern)."""
    for key in reversed(path):
        value = {key: value} if isinstance(key, str) else [value]
    return value


async def ask(verbs: Verbs, resource: Resource, obj: Object, path: tuple[Any, ...], value: Any, how: int) -> None:
    namespace = "default" if resource.namespaced else ""
    call = Call(dry_run=True, field_validation=("Strict", "Warn", "Ignore")[how % 3])
    changed = with_value(obj, path, value)
    pointer = "/" + "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in path)
    status = "status" if "status" in resource.subresources and how % 2 else ""
    match how % 7:
        case 0 | 1:
            if isinstance(changed.get("metadata"), dict) and changed["metadata"].get("name") == "default":
                changed["metadata"]["name"] = "another"
            await verbs.create(resource, namespace, changed, call)
        case 2:
            await verbs.update(resource, namespace, "default", changed, call, status)
        case 3:
            await verbs.patch(resource, namespace, "default", nested(path, value), "merge", call, status)
        case 4:
            await verbs.patch(resource, namespace, "default", nested(path, value), "strategic", call, status)
        case 5:
            operation = {"op": "replace", "path": pointer, "value": value}
            await verbs.patch(resource, namespace, "default", [operation], "json", call, status)
        case 6:
            call.force = True
            await verbs.patch(resource, namespace, "default", changed, "apply", call, status)


async def act(verbs: Verbs, resource: Resource, subresource: str, body: Object) -> None:
    check_shape(body)
    await verbs.act(resource, "default", "default", subresource, body, Call(dry_run=True))


async def test_a_wrong_value_anywhere_is_refused_in_words(tmp_path: Path) -> None:
    store = Store.open(tmp_path, None)
    verbs = Verbs(store, Chain(admission_plugins(QuotaAdmission())))
    await bootstrap(verbs)
    chance = random.Random(4)
    made = list(examples())
    for obj in made:
        resource = kinds.of(obj)
        with contextlib.suppress(AlreadyExists):  # The plane has a namespace of that name.
            await verbs.create(resource, "default" if resource.namespaced else "", copy.deepcopy(obj), Call())
    broken: Counter[str] = Counter()
    refused = 0
    for round_ in range(ROUNDS):
        obj = made[round_ % len(made)]
        resource = kinds.of(obj)
        path, value = chance.choice(list(places(obj))), chance.choice(VALUES)
        try:
            await ask(verbs, resource, obj, path, value, chance.randrange(42))
        except Internal as error:
            broken[f"{resource.kind} {path} {str(value)[:40]!r}: {error}"] += 1
        except ApiError as error:
            refused += 1
            if error.code >= 500 or len(error.message) < 5:
                broken[f"{path}: {error!r}"] += 1
        except Exception as error:
            broken[f"{resource.kind} {path} {str(value)[:40]!r}: {error!r}"] += 1
    for resource, subresource, body in (
        (PODS, "binding", {"target": {"kind": "Node", "name": "n"}}),
        (PODS, "eviction", {"metadata": {"name": "default"}, "deleteOptions": {"gracePeriodSeconds": 1}}),
        (VIRTUALMACHINES, "stop", {"gracePeriod": 1}),
        (VIRTUALMACHINES, "start", {"paused": False}),
    ):
        for path in places(body):
            for value in VALUES:
                try:
                    await act(verbs, resource, subresource, with_value(body, path, value))
                except ApiError as error:
                    broken[f"{subresource} {path}: {error!r}"] += error.code >= 500
                except Exception as error:
                    broken[f"{subresource} {path} {str(value)[:40]!r}: {error!r}"] += 1
    for value in VALUES:
        for field in ("gracePeriodSeconds", "preconditions", "propagationPolicy", "orphanDependents", "dryRun"):
            try:
                DeleteOptions.read({field: value})
            except ApiError:
                refused += 1
    await store.close()
    assert not +broken, "\n".join(+broken)
    assert refused > ROUNDS // 4


REVIEW = {"kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
ASKED: tuple[tuple[str, str, Object], ...] = (
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", REVIEW),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": "default"}}),
    ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {"metadata": {}}),
    (
        "PUT",
        "/api/v1/namespaces/default/finalize",
        {"metadata": {"name": "default"}, "spec": {"finalizers": ["kubernetes"]}},
    ),
    ("DELETE", "/api/v1/namespaces/default/pods/none", {"preconditions": {"uid": "x"}, "gracePeriodSeconds": 1}),
    ("POST", "/api/v1/namespaces/default/pods/default/binding", {"target": {"kind": "Node", "name": "n"}}),
    *(
        ("PUT", f"/apis/subresources.kubevirt.io/v1/namespaces/default/{kind}/default/{action}", body)
        for kind, action, body in (
            ("virtualmachines", "restart", {"gracePeriodSeconds": 0}),
            ("virtualmachines", "stop", {"gracePeriod": 1}),
            ("virtualmachineinstances", "pause", {"dryRun": ["All"]}),
            ("virtualmachineinstances", "unpause", {"dryRun": ["All"]}),
        )
    ),
)


async def test_wrong_values_over_http_are_answered_in_words(tmp_path: Path) -> None:
    server = ApiServer(
        tmp_path / "data", "127.0.0.1:0", tmp_path / "kubeconfig", admission=admission_plugins(QuotaAdmission())
    )
    await server.start()
    context = kubeconfig.load(tmp_path / "kubeconfig", "").context
    assert context is not None
    chance = random.Random(7)
    made = list(examples())
    for obj in made:
        with contextlib.suppress(AlreadyExists):
            resource = kinds.of(obj)
            await server.local_api.create(
                resource, copy.deepcopy(obj), namespace="default" if resource.namespaced else ""
            )
    requests = [(method, path, body, JSON) for method, path, body in ASKED for _ in range(40)]
    for obj in made * 40:
        resource = kinds.of(obj)
        root = f"/apis/{resource.api_version}" if resource.group else "/api/v1"
        path = f"{root}/namespaces/default/{resource.plural}" if resource.namespaced else f"{root}/{resource.plural}"
        media = f"application/{chance.choice(('merge', 'strategic-merge', 'apply'))}-patch+json"
        media = media.replace("apply-patch+json", "apply-patch+yaml")
        for method, where, form in (("POST", "", JSON), ("PUT", "/default", JSON), ("PATCH", "/default", media)):
            requests.append((method, f"{path}{where}?dryRun=All&fieldManager=x&force=true", obj, form))
    codes: Counter[int] = Counter()
    async with httpx.AsyncClient(base_url=server.url, verify=context, timeout=60) as client:
        for method, path, body, form in requests:
            changed = with_value(body, chance.choice(list(places(body))), chance.choice(VALUES))
            if form.startswith(("application/merge", "application/strategic")):
                path = path.replace("&force=true", "")
            answer = await client.request(
                method, path, content=json.dumps(changed).encode(), headers={"content-type": form}
            )
            codes[answer.status_code] += 1
            assert answer.status_code < 500, (method, path, changed, answer.text)
            assert isinstance(answer.json(), dict)
    await server.stop()
    assert codes[400] + codes[422] > len(requests) // 5, codes


def test_what_nests_too_deep_is_told_in_process_too() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = {"a": [deep]}
    for check in (misplaced_values, type_causes):
        with pytest.raises(BadRequest, match="nests deeper"):
            check(CONFIGMAPS, {"metadata": {"name": "x"}, "data": deep})
