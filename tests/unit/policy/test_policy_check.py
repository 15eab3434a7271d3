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
        ("{podSelector: {}, policyTypes: [Egress], egress: [{to: [], ports: [{port: 53, protocol: UDP}]}]}", []),
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
    out = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}, {ports: [{port: 53, protocol: UDP}]}]}"
    shut = "{podSelector: {matchLabels: {app: web}}}"
    assert codes(out) == []
    assert codes(out, shut) == [("contradictory", "spec.egress[0]")]


def test_cluster_policies() -> None:
    first = "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"
    later = "{tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{pods: {podSelector: {}}}], protocols: [{tcp: {}}]}]}"
    assert codes(wide=f"{first}---{later}") == [("shadowed", "spec.ingress[0]")]
    assert codes(wide=f"{first}---{first}")[-1] == ("ambiguous", "spec.priority")
