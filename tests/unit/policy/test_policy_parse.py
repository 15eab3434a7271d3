# ruff: noqa: E501 - tables of one-line manifests
"""Every wrong field is named with its path, all of them at once; snapshots stand for what they should."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.errors import BadRequest, Invalid
from isoplane.policy import clusterpolicy, parse, snapshot


def load(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return loaded


def fields(spec: str) -> list[str]:
    return [c.field for c in parse.problems_of({"metadata": {"name": "p", "namespace": "a"}, "spec": load(spec)})]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{podSelector: {matchLabels: {a: 1}}}", "spec.podSelector.matchLabels"),
        ("{podSelector: {matchExpressions: [{key: a, operator: Is}]}}", "spec.podSelector"),
        ("{podSelector: {labels: {a: b}}}", "spec.podSelector.labels"),
        ("{policyTypes: [ingress]}", "spec.policyTypes[0]"),
        ("{ingress: [{to: []}]}", "spec.ingress[0].to"),
        ("{ingress: [{from: [{}]}]}", "spec.ingress[0].from[0]"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}]}]}", "spec.ingress[0].from[0].ipBlock.cidr"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.256/8}}]}]}", "spec.ingress[0].from[0].ipBlock.cidr"),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}]}",
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        (
            "{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/8']}}]}]}",
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}", "spec.ingress[0].from[0]"),
        ("{egress: [{ports: [{protocol: ICMP}]}]}", "spec.egress[0].ports[0].protocol"),
        ("{egress: [{ports: [{port: 0}]}]}", "spec.egress[0].ports[0].port"),
        ("{egress: [{ports: [{port: 65536}]}]}", "spec.egress[0].ports[0].port"),
        ("{egress: [{ports: [{port: Web}]}]}", "spec.egress[0].ports[0].port"),
        ("{egress: [{ports: [{port: 80, endPort: 79}]}]}", "spec.egress[0].ports[0].endPort"),
        ("{egress: [{ports: [{port: web, endPort: 90}]}]}", "spec.egress[0].ports[0].endPort"),
        ("{egress: [{ports: [{endPort: 90}]}]}", "spec.egress[0].ports[0].port"),
        ("{egress: {}}", "spec.egress"),
    ],
)
def test_the_path_of_a_problem(spec: str, path: str) -> None:
    assert path in fields(spec)


def test_all_problems_at_once_as_a_status() -> None:
    with pytest.raises(Invalid) as caught:
        parse.network_policy(
            {"metadata": {"name": "P"}, "spec": {"egress": [{"ports": [{"port": 0}, {"port": 70000}]}]}}
        )
    assert len(caught.value.causes) == 3
    assert caught.value.message.startswith('NetworkPolicy.networking.k8s.io "P" is invalid: metadata.name')


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda s: (
            st.lists(s, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    (
                        "spec",
                        "metadata",
                        "name",
                        "podSelector",
                        "matchLabels",
                        "ingress",
                        "from",
                        "ports",
                        "port",
                        "ipBlock",
                        "cidr",
                    )
                ),
                s,
                max_size=3,
            )
        ),
    )
)
def test_anything_is_read_or_refused_never_broken(value: Any) -> None:
    obj = value if isinstance(value, dict) else {"metadata": {"name": "p"}, "spec": value}
    parse.problems_of(obj)
    clusterpolicy.problems_of(obj)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("{tier: Other, priority: 1, subject: {namespaces: {}}}", "spec.tier"),
        ("{tier: Admin, priority: 1001, subject: {namespaces: {}}}", "spec.priority"),
        ("{tier: Admin, priority: 1, subject: {}}", "spec.subject"),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}]}]}",
            "spec.ingress[0].action",
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: []}]}",
            "spec.ingress[0].from",
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{networks: [10.0.0.0/8]}]}]}",
            "spec.ingress[0].from[0].networks",
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: [a.b]}]}]}",
            "spec.egress[0].to[0].domainNames",
        ),
        (
            "{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {}}], protocols: [{tcp: {destinationPort: {range: {start: 9, end: 8}}}}]}]}",
            "spec.egress[0].protocols[0].tcp.destinationPort.range",
        ),
    ],
)
def test_the_path_of_a_cluster_policys_problem(spec: str, path: str) -> None:
    assert path in [c.field for c in clusterpolicy.problems_of({"metadata": {"name": "p"}, "spec": load(spec)})]


def ids(*objects: str) -> list[str]:
    return [e.id for e in snapshot.from_objects(map(load, objects)).endpoints]


def test_what_stands_for_what() -> None:
    vm = "{kind: VirtualMachine, metadata: {name: x}, spec: {template: {metadata: {labels: {a: b}}}}}"
    vmi = "{kind: VirtualMachineInstance, metadata: {name: x, uid: u}}"
    owner = "{kind: VirtualMachineInstance, apiVersion: kubevirt.io/v1, name: x, uid: u, controller: true}"
    labels = "{kubevirt.io: virt-launcher, kubevirt.io/created-by: u}"
    launcher = f"{{kind: Pod, metadata: {{name: virt-launcher-x-1, labels: {labels}, ownerReferences: [{owner}]}}}}"
    assert ids(vm) == ["vm/default/x"]
    assert ids(vm, vmi, launcher) == ["vmi/default/x"]
    assert ids(launcher) == ["pod/default/virt-launcher-x-1"], "nobody stands for it"
    deployment = "{kind: Deployment, metadata: {name: d}, spec: {template: {metadata: {labels: {a: b}}}}}"
    replicas = "{kind: ReplicaSet, metadata: {name: d-1, ownerReferences: [{kind: Deployment, name: d}]}}"
    pod = "{kind: Pod, metadata: {name: d-1-x, ownerReferences: [{kind: ReplicaSet, name: d-1}]}}"
    assert ids(deployment) == ["deployment/default/d"]
    assert ids(deployment, replicas) == ["deployment/default/d"]
    assert ids(deployment, replicas, pod) == ["pod/default/d-1-x"]


@pytest.mark.parametrize(
    ("objects", "told"),
    [
        (["{kind: Pod, metadata: {name: x}}"] * 2, "Pod default/x is given twice"),
        (
            ["{kind: NetworkPolicy, metadata: {name: x}, spec: {podSelector: {}}}"] * 2,
            "NetworkPolicy default/x is given twice",
        ),
        (["{kind: Namespace, metadata: {name: x}}"] * 2, "Namespace x is given twice"),
        (["{kind: Pod, metadata: {name: X_}}"], "metadata.name: Invalid value"),
        (["{metadata: {name: x}}"], "no kind"),
        (["{kind: Pod, metadata: {name: x}, status: {podIP: 10.0.0}}"], "10.0.0"),
        (
            ["{kind: Pod, metadata: {name: x}, spec: {containers: [{ports: [{containerPort: 0}]}]}}"],
            "between 1 and 65535",
        ),
        (
            [
                "{kind: Pod, metadata: {name: x}, status: {podIP: 10.0.0.1}}",
                "{kind: Pod, metadata: {name: y}, status: {podIP: 10.0.0.1}}",
            ],
            "both have the address",
        ),
    ],
)
def test_snapshots_refuse_what_they_cannot_mean(objects: list[str], told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        ids(*objects)
