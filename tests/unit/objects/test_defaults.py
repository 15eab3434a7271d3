"""What the server fills in."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from isoplane.objects import kinds
from isoplane.objects.defaulting.pod import pull_policy
from isoplane.objects.defaults import apply_defaults
from isoplane.objects.validation import validate_update


def test_a_pod() -> None:
    pod: dict[str, Any] = {
        "metadata": {"name": "web", "creationTimestamp": None},
        "spec": {
            "nodeSelector": {"disk": None},
            "containers": [
                {
                    "name": "web",
                    "image": "web:1",
                    "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                    "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 3},
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                }
            ],
            "volumes": [{"name": "empty", "emptyDir": None}, {"name": "c", "configMap": {"name": "c"}}],
        },
    }
    apply_defaults(kinds.PODS, pod)
    assert pod == {
        "metadata": {"name": "web"},
        "spec": {
            "nodeSelector": {"disk": ""},
            "containers": [
                {
                    "name": "web",
                    "image": "web:1",
                    "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {
                        "limits": {"cpu": 1, "memory": "1Gi"},
                        "requests": {"cpu": "500m", "memory": "1Gi"},
                    },
                    "livenessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1,
                        "periodSeconds": 3,
                        "successThreshold": 1,
                        "failureThreshold": 3,
                    },
                    "env": [
                        {"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
                    ],
                }
            ],
            "volumes": [
                {"name": "empty", "emptyDir": {}},
                {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "enableServiceLinks": True,
        },
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("web", "Always"), ("web:latest", "Always"), ("web:1", "IfNotPresent"), ("host:5000/web", "Always"),
        ("host:5000/web:1", "IfNotPresent"), ("web@sha256:00", "IfNotPresent"), (None, "Always"), (5, "Always"),
    ],
)  # fmt: skip
def test_pull_policy_follows_the_tag(image: Any, policy: str) -> None:
    assert pull_policy(image) == policy


def test_a_machine_gets_topology_network_and_disk_targets() -> None:
    vmi: dict[str, Any] = {
        "spec": {
            "domain": {"resources": {"requests": {"cpu": "1500m"}}, "devices": {"disks": [{"name": "root"}]}},
            "volumes": [{"name": "root", "containerDisk": {"image": "disk"}}],
        }
    }
    apply_defaults(kinds.VIRTUALMACHINEINSTANCES, vmi)
    spec = vmi["spec"]
    assert spec["domain"]["cpu"] == {"sockets": 2, "cores": 1, "threads": 1}
    assert spec["domain"]["devices"]["disks"] == [{"name": "root", "disk": {}}]
    assert spec["domain"]["devices"]["interfaces"] == [{"name": "default", "masquerade": {}}]
    assert spec["networks"] == [{"name": "default", "pod": {}}]
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["volumes"][0]["containerDisk"]["imagePullPolicy"] == "Always"


def test_a_machine_without_a_network_keeps_none() -> None:
    vmi: dict[str, Any] = {"spec": {"domain": {"devices": {"autoattachPodInterface": False}}}}
    apply_defaults(kinds.VIRTUALMACHINEINSTANCES, vmi)
    assert "networks" not in vmi["spec"]


def test_secrets_fold_their_plain_text() -> None:
    secret: dict[str, Any] = {"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}}
    apply_defaults(kinds.SECRETS, secret)
    assert secret == {"type": "Opaque", "data": {"a": "eQ==", "b": "eg=="}}


def test_namespaces_are_labelled_by_name() -> None:
    namespace: dict[str, Any] = {"metadata": {"name": "team"}}
    apply_defaults(kinds.NAMESPACES, namespace)
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}


@pytest.mark.parametrize(
    ("spec", "types"),
    [({}, ["Ingress"]), ({"egress": [{}]}, ["Ingress", "Egress"]), ({"policyTypes": ["Egress"]}, ["Egress"])],
)
def test_policy_types_follow_the_rules(spec: dict[str, Any], types: list[str]) -> None:
    policy = {"spec": {"podSelector": {}, **spec}}
    apply_defaults(kinds.NETWORKPOLICIES, policy)
    assert policy["spec"]["policyTypes"] == types


def test_limit_ranges_derive_defaults() -> None:
    limits: dict[str, Any] = {"spec": {"limits": [{"type": "Container", "max": {"cpu": 2}, "min": {"memory": "1Mi"}}]}}
    apply_defaults(kinds.LIMITRANGES, limits)
    assert limits["spec"]["limits"][0]["default"] == {"cpu": 2}
    assert limits["spec"]["limits"][0]["defaultRequest"] == {"cpu": 2, "memory": "1Mi"}


def test_a_volume_that_nothing_takes_becomes_a_disk_as_kubevirt_makes_one() -> None:
    volumes = [{"name": name, "emptyDisk": {"capacity": "1Mi"}} for name in ("root", "shared", "data", "more")]
    devices = {"disks": [{"name": "data", "cdrom": {}}], "filesystems": [{"name": "shared", "virtiofs": {}}]}
    made: dict[str, Any] = {"spec": {"domain": {"devices": devices}, "volumes": volumes}}
    stored = copy.deepcopy(made)
    apply_defaults(kinds.VIRTUALMACHINEINSTANCES, made)
    disks = made["spec"]["domain"]["devices"]["disks"]
    assert [disk["name"] for disk in disks] == ["data", "root", "more"]
    assert disks[1] == {"name": "root", "disk": {}}
    again = copy.deepcopy(made)
    apply_defaults(kinds.VIRTUALMACHINEINSTANCES, again)
    assert again == made

    for old in (stored, made):
        # One that was stored before may still be labelled: what defaults add is no change of its author's.
        assert not [
            cause for cause in validate_update(kinds.VIRTUALMACHINEINSTANCES, made, old) if "spec" in cause.field
        ]
    made["spec"]["domain"]["devices"]["disks"].pop()
    assert [cause.field for cause in validate_update(kinds.VIRTUALMACHINEINSTANCES, made, stored)] == ["spec"]
