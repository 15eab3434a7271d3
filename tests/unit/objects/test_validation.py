"""What is refused, with which field and in which words; and that nothing a client sends can crash the checks."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects import kinds
from isoplane.objects.defaults import apply_defaults
from isoplane.objects.errors import BadRequest, Invalid
from isoplane.objects.kinds import Resource
from isoplane.objects.schema.structure import Node
from isoplane.objects.validation import _known, invalid, unknown_fields, validate, validate_update, without_unknown

CONTAINER = {"name": "web", "image": "web:1"}
GOOD: dict[str, tuple[Resource, dict[str, Any]]] = {
    "pod": (kinds.PODS, {
        "metadata": {"name": "web", "namespace": "default", "creationTimestamp": None},
        "spec": {
            "containers": [{
                **CONTAINER, "ports": [{"containerPort": 80, "name": "http"}],
                "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": 1, "memory": "64Mi"}},
                "env": [{"name": "A", "value": "b"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "readinessProbe": {"httpGet": {"port": "http"}},
            }],
            "initContainers": [{"name": "init", "image": "init:1"}],
            "volumes": [{"name": "data", "emptyDir": None}],
        },
    }),
    "vmi": (kinds.VIRTUALMACHINEINSTANCES, {
        "metadata": {"name": "vm"},
        "spec": {
            "domain": {
                "memory": {"guest": "128Mi"},
                "devices": {"disks": [{"name": "root"}, {"name": "seed", "cdrom": {"bus": "sata"}}]},
            },
            "volumes": [
                {"name": "root", "containerDisk": {"image": "disk:1"}},
                {"name": "seed", "cloudInitNoCloud": {"userData": "#cloud-config"}},
            ],
        },
    }),
    "vm": (kinds.VIRTUALMACHINES, {
        "metadata": {"name": "vm"},
        "spec": {
            "runStrategy": "Always",
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"domain": {
                "memory": {"guest": "1Gi"}, "cpu": {"cores": 2},
                "firmware": {"kernelBoot": {"container": {"image": "kernel:1", "kernelPath": "/vmlinuz"}}},
            }}},
        },
    }),
    "namespace": (kinds.NAMESPACES, {"metadata": {"name": "team-a"}}),
    "configmap": (kinds.CONFIGMAPS, {"metadata": {"name": "c"}, "data": {"a.txt": "x"}, "binaryData": {"b": "AAE="}}),
    "secret": (kinds.SECRETS, {"metadata": {"name": "s"}, "stringData": {"password": "x"}, "type": "kubernetes.io/basic-auth"}),
    "resourcequota": (kinds.RESOURCEQUOTAS, {
        "metadata": {"name": "q"},
        "spec": {"hard": {"requests.cpu": "4", "pods": "10", "count/virtualmachines.kubevirt.io": 3, "limits.memory": "1Gi"}},
    }),
    "limitrange": (kinds.LIMITRANGES, {
        "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": 2}, "min": {"cpu": "100m"}, "default": {"cpu": 1}}]},
    }),
    "priorityclass": (kinds.PRIORITYCLASSES, {"metadata": {"name": "high"}, "value": 1000}),
    "networkpolicy": (kinds.NETWORKPOLICIES, {
        "metadata": {"name": "n"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{
                "from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                "ports": [{"port": 80, "endPort": 90}, {"port": "http", "protocol": "UDP"}],
            }],
        },
    }),
    "clusternetworkpolicy": (kinds.CLUSTERNETWORKPOLICIES, {
        "metadata": {"name": "cnp"},
        "spec": {
            "tier": "Admin", "priority": 10, "subject": {"namespaces": {}},
            "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}],
                        "protocols": [{"tcp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}]}],
        },
    }),
    "pdb": (kinds.PODDISRUPTIONBUDGETS, {"metadata": {"name": "p"}, "spec": {"minAvailable": "50%", "selector": {}}}),
    "lease": (kinds.LEASES, {
        "metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "renewTime": "2026-01-01T00:00:00.123456Z"},
    }),
    "node": (kinds.NODES, {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2", "pods": 110}}}),
    "quotapolicy": (kinds.QUOTAPOLICIES, {
        "metadata": {"name": "default"},
        "spec": {"evictionThreshold": 100, "guaranteed": {"requests.cpu": "2"}, "cohort": "default",
                 "lendingLimit": {"requests.cpu": 1}, "vmAccounting": "GuestOnly"},
    }),
    "cohort": (kinds.COHORTS, {"metadata": {"name": "default"}, "spec": {"overcommit": {"cpu": 5, "memory": "1.2"}}}),
}  # fmt: skip


def good(kind: str) -> tuple[Resource, dict[str, Any]]:
    resource, body = GOOD[kind]
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, **copy.deepcopy(body)}
    return resource, obj


def put(obj: Any, path: str, value: Any) -> None:
    """Set a dotted path, numbers being list places; a value of ... deletes."""
    steps: list[Any] = [int(step) if step.isdigit() else step.replace("|", ".") for step in path.split(".")]
    for step in steps[:-1]:
        obj = obj.setdefault(step, {}) if isinstance(obj, dict) else obj[step]
    if value is ...:
        del obj[steps[-1]]
    else:
        obj[steps[-1]] = value


@pytest.mark.parametrize("kind", GOOD)
def test_good_objects_pass(kind: str) -> None:
    resource, obj = good(kind)
    assert unknown_fields(resource, obj) == []
    apply_defaults(resource, obj)
    assert validate(resource, obj) == []
    assert validate_update(resource, obj, copy.deepcopy(obj)) == []
    again = copy.deepcopy(obj)
    apply_defaults(resource, again)
    assert again == obj


BAD: list[tuple[str, str, Any, str, str]] = [
    # kind, path to set, value, field of the cause, part of its message
    ("pod", "metadata.name", "Web", "metadata.name", 'Invalid value: "Web": a lowercase RFC 1123 subdomain'),
    ("pod", "metadata.name", ..., "metadata.name", "Required value: name or generateName is required"),
    ("pod", "metadata.labels", {"a b": "c"}, "metadata.labels", "name part must consist of"),
    ("pod", "metadata.labels", {"a": "-"}, "metadata.labels", "a valid label must be"),
    ("pod", "metadata.annotations", {"a": "x" * 262145},
     "metadata.annotations", "Too long: may not be more than 262144"),
    ("pod", "metadata.ownerReferences", [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "1"}],
     "metadata.ownerReferences[0].name", "name must not be empty"),
    ("pod", "metadata.finalizers", ["mine"], "metadata.finalizers[0]", "neither a standard finalizer name nor"),
    ("pod", "metadata.creationTimestamp", "yesterday", "metadata.creationTimestamp", "RFC 3339"),
    ("pod", "spec", ..., "spec", "Required value"),
    ("pod", "spec", "x", "spec", 'Invalid value: "x": must be of type object'),
    ("pod", "spec.containers", [], "spec.containers", "Required value"),
    ("pod", "spec.containers", ..., "spec.containers", "Required value"),
    ("pod", "spec.containers.0.image", ..., "spec.containers[0].image", "Required value"),
    ("pod", "spec.containers.0.image", 5, "spec.containers[0].image", "Invalid value: 5: must be of type string"),
    ("pod", "spec.containers.0.name", "Web_1", "spec.containers[0].name", "RFC 1123 label"),
    ("pod", "spec.initContainers.0.name", "web", "spec.containers[0].name", 'Duplicate value: "web"'),
    ("pod", "spec.containers.0.imagePullPolicy", "Maybe", "spec.containers[0].imagePullPolicy",
     'Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", "Never"'),
    ("pod", "spec.containers.0.ports.0.containerPort", 0, "spec.containers[0].ports[0].containerPort",
     "must be between 1 and 65535, inclusive"),
    ("pod", "spec.containers.0.ports.0.containerPort", ...,
     "spec.containers[0].ports[0].containerPort", "Required value"),
    ("pod", "spec.containers.0.ports.0.protocol", "HTTP", "spec.containers[0].ports[0].protocol",
     'supported values: "SCTP", "TCP", "UDP"'),
    ("pod", "spec.containers.0.resources.requests.cpu", "2", "spec.containers[0].resources.requests",
     'Invalid value: "2": must be less than or equal to cpu limit of 1'),
    ("pod", "spec.containers.0.resources.requests.cpu", "-1", "spec.containers[0].resources.requests[cpu]",
     "must be greater than or equal to 0"),
    ("pod", "spec.containers.0.resources.requests.cpu", "1 GB", "spec.containers[0].resources.requests[cpu]",
     "quantities must match the regular expression"),
    ("pod", "spec.containers.0.resources.limits.memory", "1e99",
     "spec.containers[0].resources.limits[memory]", "less than 2^63"),
    ("pod", "spec.containers.0.resources.limits.gpu", 1, "spec.containers[0].resources.limits[gpu]",
     "must be a standard resource for containers"),
    ("pod", "spec.containers.0.volumeMounts.0.name", "other",
     "spec.containers[0].volumeMounts[0].name", 'Not found: "other"'),
    ("pod", "spec.containers.0.env.0.name", "A=B", "spec.containers[0].env[0].name", "other than '='"),
    ("pod", "spec.containers.0.env.1.value", "x", "spec.containers[0].env[1].valueFrom", "when `value` is not empty"),
    ("pod", "spec.containers.0.readinessProbe", {"periodSeconds": 1}, "spec.containers[0].readinessProbe",
     "must specify a handler type"),
    ("pod", "spec.containers.0.readinessProbe.httpGet.port", 99999, "spec.containers[0].readinessProbe.httpGet.port",
     "between 1 and 65535"),
    ("pod", "spec.containers.0.livenessProbe", {"tcpSocket": {"port": 1}, "successThreshold": 2},
     "spec.containers[0].livenessProbe.successThreshold", "must be 1"),
    ("pod", "spec.restartPolicy", "Sometimes", "spec.restartPolicy", '"Always", "OnFailure", "Never"'),
    ("pod", "spec.volumes.0", {"name": "data", "hostPath": {"path": "/a/../b"}},
     "spec.volumes[0].hostPath.path", "must not contain '..'"),
    ("pod", "spec.volumes.0", {"name": "data", "emptyDir": {}, "hostPath": {"path": "/"}}, "spec.volumes[0].hostPath",
     "may not specify more than 1 volume type"),
    ("pod", "spec.terminationGracePeriodSeconds", -1,
     "spec.terminationGracePeriodSeconds", "greater than or equal to 0"),
    ("pod", "spec.terminationGracePeriodSeconds", 2**70, "spec.terminationGracePeriodSeconds", "less than or equal to"),
    ("pod", "spec.activeDeadlineSeconds", 0, "spec.activeDeadlineSeconds", "between 1 and"),
    ("pod", "spec.tolerations", [{"operator": "Equal"}], "spec.tolerations[0].operator", "operator must be Exists"),
    ("pod", "spec.affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
     "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms", "Required value"),
    ("vmi", "spec.domain.memory", ..., "spec.domain.memory.guest", "no memory requested"),
    ("vmi", "spec.domain.memory.guest", "-1Gi", "spec.domain.memory.guest", "greater than or equal to 0"),
    ("vmi", "spec.domain.memory.guest", 1, "spec.domain.memory.guest", "must be at least 1Mi"),
    ("vmi", "spec.domain.resources", {"limits": {"memory": "64Mi"}},
     "spec.domain.memory.guest", "less than the memory limit"),
    ("vmi", "spec.domain.cpu", {"cores": 1000}, "spec.domain.cpu", "must not be more than 710"),
    ("vmi", "spec.domain.cpu", {"cores": -1}, "spec.domain.cpu.cores", "greater than or equal to 0"),
    ("vmi", "spec.volumes.0", {"name": "root", "emptyDisk": {"capacity": "1Gi"}},
     "spec.domain.devices.disks", "nothing to boot from"),
    ("vmi", "spec.volumes", [], "spec.domain.devices.disks[0].name", 'Not found: "root"'),
    ("vmi", "spec.volumes.0.emptyDisk", {"capacity": "1Gi"},
     "spec.volumes[0]", "must have exactly one source type set"),
    ("vmi", "spec.networks", [{"name": "a"}], "spec.networks[0]", "exactly one of the network types"),
    ("vmi", "spec.domain.devices.interfaces", [{"name": "x", "masquerade": {}}],
     "spec.domain.devices.interfaces[0].name", "Not found"),
    ("vmi", "spec.domain", ..., "spec.domain", "Required value"),
    ("vmi", "spec.domain.cpu", {"cores": "two"}, "spec.domain.cpu.cores", "must be of type integer"),
    ("vm", "spec.running", True, "spec.running", "Running and RunStrategy are mutually exclusive"),
    ("vm", "spec.runStrategy", "Often", "spec.runStrategy", 'Unsupported value: "Often"'),
    ("vm", "spec.runStrategy", ..., "spec.runStrategy", "one of running or runStrategy must be specified"),
    ("vm", "spec.template", ..., "spec.template", "Required value"),
    ("vm", "spec.template.spec.domain.firmware.kernelBoot.container", {"image": "x"},
     "spec.template.spec.domain.firmware.kernelBoot.container", "at least one of kernelPath"),
    ("namespace", "metadata.name", "a.b", "metadata.name", "RFC 1123 label"),
    ("namespace", "metadata.namespace", "x", "metadata.namespace", "Forbidden: not allowed on this type"),
    ("configmap", "data", {"a/b": "x"}, "data[a/b]", "a valid config key must consist of"),
    ("configmap", "data", {"a": "x" * 1048577}, "", "Too long"),
    ("configmap", "data", {"b": "x"}, "data[b]", "duplicate of key present in binaryData"),
    ("configmap", "data", {"a": 5}, "data.a", "must be of type string"),
    ("configmap", "binaryData", {"x": "%%"}, "binaryData[x]", "must be base64 encoded"),
    ("secret", "stringData", {"x": "y"}, "data[username]", "Required value"),
    ("secret", "type", "kubernetes.io/tls", "data[tls.crt]", "Required value"),
    ("resourcequota", "spec.hard", {"pods": "1.5"}, "spec.hard[pods]", "must be an integer"),
    ("resourcequota", "spec.hard", {"beer": 1}, "spec.hard[beer]", "must be a standard resource for quota"),
    ("resourcequota", "spec.hard", {"cpu": "-1"}, "spec.hard[cpu]", "greater than or equal to 0"),
    ("limitrange", "spec.limits.0.max", {"cpu": "500m"},
     "spec.limits[0].default[cpu]", "default value 1 is greater than max value 500m"),
    ("priorityclass", "value", 1000000001, "value", "maximum allowed value of a user defined priority is 1000000000"),
    ("priorityclass", "metadata.name", "system-x", "metadata.name", "reserved for system use only"),
    ("networkpolicy", "spec.ingress.0.ports.0.endPort", 70,
     "spec.ingress[0].ports[0].endPort", "must be greater than or equal to `port`"),
    ("networkpolicy", "spec.ingress.0.ports.1.endPort", 70,
     "spec.ingress[0].ports[1].endPort", "`port` is non-numeric"),
    ("networkpolicy", "spec.ingress.0.from.1.ipBlock.cidr", "10.0.0.0",
     "spec.ingress[0].from[1].ipBlock.cidr", "must be a valid CIDR"),
    ("networkpolicy", "spec.ingress.0.from.1.ipBlock.except", ["11.0.0.0/8"],
     "spec.ingress[0].from[1].ipBlock.except[0]", "strict subset"),
    ("networkpolicy", "spec.ingress.0.from.0", {}, "spec.ingress[0].from[0]", "must specify a peer"),
    ("networkpolicy", "spec.podSelector", {"matchExpressions": [{"key": "a", "operator": "Like"}]},
     "spec.podSelector", "is not an operator"),
    ("networkpolicy", "spec.policyTypes", ["Sideways"], "spec.policyTypes[0]", 'supported values: "Ingress", "Egress"'),
    ("clusternetworkpolicy", "spec.tier", "Root", "spec.tier", 'supported values: "Admin", "Baseline"'),
    ("clusternetworkpolicy", "spec.priority", 1001, "spec.priority", "less than or equal to 1000"),
    ("clusternetworkpolicy", "spec.subject", {}, "spec.subject", "Required value: must have at least 1"),
    ("clusternetworkpolicy", "spec.egress.0.protocols.0.tcp.destinationPort.range.start", 10,
     "spec.egress[0].protocols[0].tcp.destinationPort.range", "less than End port"),
    ("pdb", "spec.maxUnavailable", 1, "spec", "cannot be both set"),
    ("pdb", "spec.minAvailable", "150%", "spec.minAvailable", "must not be greater than 100%"),
    ("quotapolicy", "spec.lendingLimit", {"requests.cpu": 3},
     "spec.lendingLimit[requests|cpu]", "at most the guaranteed 2"),
    ("quotapolicy", "spec.vmAccounting", "Free", "spec.vmAccounting", 'Unsupported value: "Free"'),
    ("quotapolicy", "spec.evictionThreshold", "high", "spec.evictionThreshold", "must be of type integer"),
    ("cohort", "spec.overcommit", {"cpu": "much"}, "spec.overcommit[cpu]", "must be a decimal number"),
    ("cohort", "spec.overcommit", {"cpu": 0}, "spec.overcommit[cpu]", "greater than 0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "path", "value", "field", "text"), BAD, ids=lambda v: v[:40] if isinstance(v, str) else None
)
def test_bad_objects_name_the_field(kind: str, path: str, value: Any, field: str, text: str) -> None:
    resource, obj = good(kind)
    put(obj, path, value)
    apply_defaults(resource, obj)
    causes = validate(resource, obj)
    assert any(c.field == field.replace("|", ".") and text in c.message for c in causes), causes


def test_duplicate_and_conflicting_fields_of_machines() -> None:
    resource, obj = good("vmi")
    obj["spec"]["networks"] = [{"name": "a", "pod": {}}, {"name": "a", "pod": {}}]
    obj["spec"]["domain"]["devices"]["interfaces"] = [{"name": "a", "bridge": {}, "masquerade": {}, "macAddress": "x"}]
    fields = [cause.field for cause in validate(resource, obj)]
    assert "spec.networks[1].name" in fields
    assert "spec.domain.devices.interfaces[0]" in fields
    assert "spec.domain.devices.interfaces[0].macAddress" in fields


UPDATES: list[tuple[str, str, Any, str, str]] = [
    ("pod", "spec.containers.0.image", "web:2", "", ""),
    ("pod", "spec.initContainers.0.image", "init:2", "", ""),
    ("pod", "spec.activeDeadlineSeconds", 5, "", ""),
    ("pod", "spec.tolerations", [{"key": "a", "operator": "Exists"}], "", ""),
    ("pod", "metadata.labels", {"new": "label"}, "", ""),
    ("pod", "spec.containers.0.command", ["x"], "spec", "pod updates may not change fields other than"),
    (
        "pod",
        "spec.containers",
        [CONTAINER, {"name": "b", "image": "b"}],
        "spec.containers",
        "may not add or remove containers",
    ),
    ("pod", "spec.hostname", "x", "spec", "changed: hostname"),
    ("pod", "spec.schedulingGates", [{"name": "a/b"}], "spec.schedulingGates", "only deletion is allowed"),
    ("pod", "spec.terminationGracePeriodSeconds", 1, "spec", "terminationGracePeriodSeconds"),
    ("pod", "metadata.uid", "other", "metadata.uid", "field is immutable"),
    ("vmi", "spec.domain.memory.guest", "256Mi", "spec", "the spec is immutable; changed: domain"),
    ("vm", "spec.template.spec.domain.memory.guest", "2Gi", "", ""),
    ("secret", "type", "Opaque", "type", "field is immutable"),
    ("priorityclass", "value", 5, "value", "may not be changed in an update"),
    ("resourcequota", "spec.scopes", ["BestEffort"], "spec.scopes", "field is immutable"),
    ("resourcequota", "spec.hard", {"pods": 1}, "", ""),
]


@pytest.mark.parametrize(("kind", "path", "value", "field", "text"), UPDATES)
def test_updates(kind: str, path: str, value: Any, field: str, text: str) -> None:
    resource, old = good(kind)
    apply_defaults(resource, old)
    old["metadata"]["uid"] = "1"
    new = copy.deepcopy(old)
    put(new, path, value)
    apply_defaults(resource, new)
    causes = validate_update(resource, new, old)
    if not field:
        assert causes == []
    else:
        assert [c.field for c in causes] == [field]
        assert text in causes[0].message


def test_gates_may_go_and_requirements_of_gated_pods_may_narrow() -> None:
    resource, old = good("pod")
    old["spec"]["schedulingGates"] = [{"name": "isoplane.io/quota"}]
    new = copy.deepcopy(old)
    del new["spec"]["schedulingGates"]
    assert validate_update(resource, new, old) == []
    new["spec"]["nodeSelector"] = {"a": "b"}
    assert validate_update(resource, new, old) == []


def test_immutable_data_stays() -> None:
    for resource in (kinds.CONFIGMAPS, kinds.SECRETS):
        old = {"metadata": {"name": "c"}, "immutable": True, "data": {"a": "eA=="}}
        new = {**old, "data": {"a": "eQ=="}, "immutable": False}
        assert {c.field for c in validate_update(resource, new, old)} == {"immutable", "data"}


def test_no_finalizer_is_added_in_deletion() -> None:
    resource, old = good("pod")
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = ["a/b"]
    assert [c.field for c in validate_update(resource, new, old)] == ["metadata.finalizers"]


def test_unknown_fields_are_named_with_their_path() -> None:
    resource, obj = good("pod")
    put(obj, "spec.foo", 1)
    put(obj, "spec.containers.0.imagee", "x")
    put(obj, "metadata.labels", {"free": "choice"})
    put(obj, "bar", {"deep": 1})
    assert unknown_fields(resource, obj) == [
        'unknown field "spec.containers[0].imagee"', 'unknown field "spec.foo"', 'unknown field "bar"',
    ]  # fmt: skip
    apply_defaults(resource, obj)
    assert validate(resource, obj) == []


def test_fields_beyond_the_hundredth_are_dropped_too() -> None:
    resource, obj = good("pod")
    for index in range(300):
        put(obj, f"spec.x{index}", 1)
    before = copy.deepcopy(obj)
    known, found = without_unknown(resource, obj)
    assert len(found) == 100
    assert known == good("pod")[1]
    assert obj == before
    assert known["metadata"] is obj["metadata"]


def test_a_place_that_keeps_unknown_fields_keeps_them() -> None:
    """Many places of the schemas are free by their type; one that also declares fields is free by its extension."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}}},
        "x-kubernetes-preserve-unknown-fields": True,
    }
    node = Node(schema, "", {})
    assert node.form == "object"
    assert node.keeps_unknown
    known = _known({"free": 1, "a": {"b": "x", "c": 1}}, node, "", found := [])
    assert known == {"free": 1, "a": {"b": "x"}}
    assert found == ['unknown field "a.c"']


def test_errors_say_what_kubernetes_says() -> None:
    resource, obj = good("pod")
    apply_defaults(resource, obj)
    del obj["spec"]["containers"][0]["image"]
    error = invalid(resource, "web", validate(resource, obj))
    assert isinstance(error, Invalid)
    assert error.message == 'Pod "web" is invalid: spec.containers[0].image: Required value'
    assert error.to_status()["details"]["causes"] == [
        {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers[0].image"}
    ]
    obj["spec"]["containers"] = "x"
    error = invalid(resource, "web", validate(resource, obj))
    assert isinstance(error, BadRequest)
    assert error.message.startswith('Pod in version "v1" cannot be handled as a Pod: spec.containers: ')
    resource, obj = good("vm")
    obj["spec"] = {}
    assert invalid(resource, "vm", validate(resource, obj)).message.startswith(
        'VirtualMachine.kubevirt.io "vm" is invalid: [spec.'
    )


leaves = st.none() | st.booleans() | st.integers(-2, 70000) | st.sampled_from(["", "a", "-", "1Gi", "x" * 300, 1.5])
junk = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_no_damage_to_an_object_crashes_the_checks(kind: str, data: st.DataObject) -> None:
    resource, obj = good(kind)
    old = copy.deepcopy(obj)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(obj)[1:]))
        parent = obj
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = data.draw(junk)
    before = copy.deepcopy(obj)
    known, found = without_unknown(resource, obj)
    assert obj == before
    assert unknown_fields(resource, known) == []
    assert bool(found) == (known != obj)
    apply_defaults(resource, obj)
    causes = validate(resource, obj)
    if causes:
        invalid(resource, "x", causes).to_status()
    else:
        validate_update(resource, obj, old)
        json.dumps(obj)
