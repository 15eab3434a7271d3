# ruff: noqa: E501 - tables of one-line manifests
"""Each piece of advice where it is due, and none where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from isoplane.policy import check, snapshot

WORKLOADS = """
{kind: Pod, metadata: {name: web, namespace: a, labels: {app: web}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}}
---
{kind: Pod, metadata: {name: client, namespace: a, labels: {app: client}}}
---
{kind: VirtualMachine, metadata: {name: shared, namespace: b}, spec: {template: {metadata: {labels: {app: shared}}}}}
---
{kind: Pod, metadata: {name: agent, namespace: a, labels: {app: agent}}, spec: {hostNetwork: true}}
"""


def codes(*specs: str, wide: str = "") -> list[tuple[str, str]]:
    objects: list[dict[str, Any]] = list(yaml.load_all(WORKLOADS, Loader=yaml.CSafeLoader))
    for number, spec in enumerate(specs):
        loaded = yaml.load(spec, Loader=yaml.CSafeLoader)
        objects.append({"kind": "NetworkPolicy", "metadata": {"name": f"p{number}", "namespace": "a"}, "spec": loaded})
    for number, spec in enumerate(filter(None, wide.split("---"))):
        objects.append(
            {
                "kind": "ClusterNetworkPolicy",
                "metadata": {"name": f"c{number}"},
                "spec": yaml.load(spec, Loader=yaml.CSafeLoader),
            }
        )
    return [(f.code, f.path) for f in check.check(snapshot.from_objects(objects)) if f.severity == check.WARNING]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{podSelector: {}}", []),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]}", []),
        ("{podSelector: {matchLabels: {app: wbe}}}", [("selects-nothing", "spec.podSelector")]),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: x}}}]}]}", [("selects-nothing", "spec.ingress[0].from[0]")]),
        ("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {name: b}}}]}]}", [("selects-nothing", "spec.ingress[0].from[0]")]),
        ("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}, {podSelector: {matchLabels: {app: shared}}}]}]}", [("namespace-missing", "spec.ingress[0].from[1]")]),
        ("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}, {podSelector: {matchLabels: {app: client}}}]}]}", []),
        ("{podSelector: {}, ingress: [{}]}", [("too-wide", "spec.ingress[0]")]),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}", [("too-wide", "spec.ingress[0].from[0]")]),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 80}]}]}", []),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: dns}]}]}", [("port-unserved", "spec.ingress[0].ports[0]")]),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: http, protocol: UDP}]}]}", [("port-unserved", "spec.ingress[0].ports[0]")]),
        ("{podSelector: {}, policyTypes: [Ingress], egress: [{}]}", [("contradictory", "spec.egress[0]")]),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}", [("no-dns", "spec.egress")]),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{to: [], ports: [{port: 53, protocol: UDP}, {port: 53}]}]}", []),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{to: [], ports: [{port: 53, protocol: UDP}]}]}", [("no-dns", "spec.egress")]),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}", [("no-dns", "spec.egress")]),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: dns, protocol: UDP}, {port: dns-tcp}]}]}", [("port-unserved", "spec.egress[0].ports[0]"), ("port-unserved", "spec.egress[0].ports[1]")]),
        ("{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}", [("no-dns", "spec.egress")]),
        ("{podSelector: {matchLabels: {app: web}}, egress: [{to: [], ports: [{port: 53, protocol: UDP}, {port: 53}]}]}", [("default-types", "spec.policyTypes")]),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}], egress: []}", [("default-types", "spec.egress")]),
        ("{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 8080}]}]}", [("port-undeclared", "spec.ingress[0].ports[0]")]),
        ("{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80, protocol: UDP}]}]}", [("port-undeclared", "spec.ingress[0].ports[0]")]),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 8080}]}]}", []),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [client, agent]}]}}]}]}", [("host-network", "spec.ingress[0].from[0]")]),
        ("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}]}", [("shadowed", "spec.ingress[1]")]),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 10.1.0.0/16}}]}]}", [("shadowed", "spec.ingress[0].from[1]")]),
        ("{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}", [("host-network", "spec.podSelector")]),
    ],
)  # fmt: skip
def test_one_policy(spec: str, expected: list[tuple[str, str]]) -> None:
    assert codes(spec) == expected


def test_across_policies() -> None:
    narrow = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}"
    broad = "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"
    assert codes(narrow, broad) == [("shadowed", "spec.ingress[0]")]
    assert codes(broad, broad) == [("shadowed", "spec.ingress[0]")], "of two equal ones only the later"


def test_one_side_allows_what_the_other_denies() -> None:
    out = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}, {ports: [{port: 53, protocol: UDP}, {port: 53}]}]}"
    shut = "{podSelector: {matchLabels: {app: web}}}"
    assert codes(out) == []
    assert codes(out, shut) == [("contradictory", "spec.egress[0]")]


def test_cluster_policies() -> None:
    first = "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"
    later = "{tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{pods: {podSelector: {}}}], protocols: [{tcp: {}}]}]}"
    assert codes(wide=f"{first}---{later}") == [("shadowed", "spec.ingress[0]")]
    assert codes(wide=f"{first}---{first}")[-1] == ("ambiguous", "spec.priority")


PLACED = """
{kind: Pod, metadata: {name: web, namespace: a}, status: {podIP: 10.0.0.5}}
---
{kind: Pod, metadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}, spec: {containers: [{ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53}, {name: metrics, containerPort: 9153}]}]}, status: {podIP: 10.0.2.2}}
"""


@pytest.mark.parametrize(
    ("egress", "expected"),
    [
        ("{to: [{podSelector: {}}]}", ["no-dns"]),
        ("{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}", ["no-dns"]),
        ("{to: [{ipBlock: {cidr: 8.8.8.8/32}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}", []),
        ("{to: [{ipBlock: {cidr: 10.0.2.0/24}}]}", ["block-covers-workloads"]),
        ("{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}", ["no-dns"]),
        ("{ports: [{port: 53, protocol: UDP}]}", ["no-dns"]),
        ("{ports: [{port: dns, protocol: UDP}, {port: dns-tcp}]}", []),
        ("{ports: [{port: metrics}]}", ["no-dns"]),
        ("{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]}", []),
        ("{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: dns}}}], ports: [{port: 53, protocol: UDP}]}", ["no-dns", "selects-nothing"]),
    ],
)  # fmt: skip
def test_name_servers_that_are_there_must_be_reached(egress: str, expected: list[str]) -> None:
    objects: list[dict[str, Any]] = list(yaml.load_all(PLACED, Loader=yaml.CSafeLoader))
    spec = yaml.load(f"{{podSelector: {{}}, policyTypes: [Egress], egress: [{egress}]}}", Loader=yaml.CSafeLoader)
    objects.append({"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "a"}, "spec": spec})
    found = check.check(snapshot.from_objects(objects))
    assert [f.code for f in found if f.severity == check.WARNING] == expected
