# ruff: noqa: E501 - tables of one-line manifests
"""The corner cases of the NetworkPolicy API one by one, judged by the reference and by the table alike."""

from __future__ import annotations

from typing import Any

import yaml

from isoplane.policy import snapshot
from isoplane.policy.compile import compile_tables
from isoplane.policy.model import Cluster
from isoplane.policy.reach import Reach
from isoplane.policy.universe import primary
from isoplane.policy.verdict import Connection, Party, judge, party

BASE = """
{kind: Namespace, metadata: {name: a, labels: {team: red}}}
---
{kind: Namespace, metadata: {name: b, labels: {team: blue}}}
---
{kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}}
---
{kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 10.9.0.2}]}}
---
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
kind: Pod
metadata: {name: client, namespace: a, labels: {app: client}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
---
kind: VirtualMachineInstance
metadata: {name: vm, namespace: b, labels: {app: client}}
spec: {domain: {devices: {interfaces: [{name: default, ports: [{name: http, port: 9090}]}]}}}
status: {nodeName: n1, interfaces: [{ipAddress: 10.0.0.3, ipAddresses: [10.0.0.3, "fd00::3"]}]}
---
kind: Pod
metadata: {name: host, namespace: b, labels: {app: client}}
spec: {nodeName: n2, hostNetwork: true}
status: {podIP: 10.9.0.2}
---
kind: Pod
metadata: {name: done, namespace: a, labels: {app: client}}
status: {phase: Succeeded, podIP: 10.0.0.4}
"""


def given(*specs: str, namespace: str = "a") -> Cluster:
    objects = list(yaml.load_all(BASE, Loader=yaml.CSafeLoader))
    for number, spec in enumerate(specs):
        loaded: dict[str, Any] = yaml.load(spec, Loader=yaml.CSafeLoader)
        loaded.setdefault("podSelector", {})
        objects.append(
            {"kind": "NetworkPolicy", "metadata": {"name": f"p{number}", "namespace": namespace}, "spec": loaded}
        )
    return snapshot.from_objects(objects)


def allowed(cluster: Cluster, source: str, destination: str, port: str = "80/TCP") -> bool:
    """Ends are names in the snapshot or addresses; every way of answering must say the same."""
    number, _, protocol = port.partition("/")
    ends = [_end(cluster, end) for end in (source, destination)]
    connection = Connection(ends[0], ends[1], protocol, int(number))
    answer = judge(cluster, connection).allowed
    reach = Reach(cluster)
    places = {s.party: i for i, s in enumerate(reach.parties)}
    if ends[0] in places and ends[1] in places:
        assert bool(reach.matrix(protocol, int(number))[places[ends[0]]] >> places[ends[1]] & 1) is answer
    compile_tables(cluster)
    return answer


def _end(cluster: Cluster, name: str) -> Party:
    for endpoint in cluster.endpoints:
        if endpoint.name == name:
            return primary(endpoint)
    return party(cluster, name)


def test_01_absent_and_empty_peers_are_everyone_and_no_rules_are_nobody() -> None:
    for peers in ("{}", "{from: []}"):
        assert allowed(given(f"ingress: [{peers}]"), "192.0.2.1", "web")
    assert not allowed(given("ingress: []"), "192.0.2.1", "web")
    assert not allowed(given("{}"), "client", "web"), "no ingress at all isolates too"


def test_02_nil_and_empty_selectors_differ() -> None:
    every_pod_here = given("ingress: [{from: [{podSelector: {}}]}]")
    assert allowed(every_pod_here, "client", "web")
    assert not allowed(every_pod_here, "vm", "web")
    assert allowed(given("ingress: [{from: [{namespaceSelector: {}}]}]"), "vm", "web")
    assert not allowed(given("ingress: [{from: [{namespaceSelector: {}}]}]"), "192.0.2.1", "web"), (
        "an address is no pod"
    )


def test_03_two_selectors_in_one_item_and_in_two() -> None:
    one = given(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: client}}}]}]"
    )
    two = given(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: client}}}]}]"
    )
    assert (allowed(one, "vm", "web"), allowed(one, "client", "web")) == (True, False)
    assert (allowed(two, "vm", "web"), allowed(two, "client", "web")) == (True, True)


def test_04_policy_types_default() -> None:
    assert allowed(given("ingress: [{}]"), "web", "192.0.2.1"), "egress is not governed"
    assert not allowed(given("egress: [{to: [{podSelector: {}}]}]"), "web", "192.0.2.1")
    assert not allowed(given("egress: [{to: [{podSelector: {}}]}]"), "vm", "web"), "ingress always is"
    assert allowed(given("{policyTypes: [Egress], egress: [{}]}"), "vm", "web")


def test_05_a_block_covers_pods_and_nodes() -> None:
    cluster = given("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]")
    assert allowed(cluster, "vm", "web")
    assert allowed(cluster, "10.9.0.2", "web")
    assert allowed(cluster, "host", "web")


def test_06_an_exception_is_no_denial() -> None:
    hole = "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.3/32]}}]}]"
    assert not allowed(given(hole), "vm", "web")
    assert allowed(given(hole, "ingress: [{from: [{namespaceSelector: {}}]}]"), "vm", "web")


def test_07_ipv4_everything_does_not_open_ipv6() -> None:
    cluster = given("ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]")
    assert allowed(cluster, "192.0.2.1", "10.0.0.1")
    assert not allowed(cluster, "2001:db8::1", "fd00::1")


def test_08_named_ports() -> None:
    egress = given("{policyTypes: [Egress], egress: [{ports: [{port: http}]}]}")
    assert allowed(egress, "client", "web", "8080/TCP")
    assert allowed(egress, "client", "vm", "9090/TCP"), "each destination by its own declaration"
    assert not allowed(egress, "client", "vm", "8080/TCP")
    assert not allowed(egress, "client", "192.0.2.1", "8080/TCP")
    assert not allowed(given("ingress: [{ports: [{port: dns}]}]"), "client", "web", "53/TCP"), "declared for UDP"
    assert allowed(given("ingress: [{ports: [{port: dns, protocol: UDP}]}]"), "client", "web", "53/UDP")
    assert not allowed(given("ingress: [{ports: [{port: nobody}]}]"), "client", "web", "53/TCP")


def test_09_end_port_at_its_bounds() -> None:
    cluster = given("ingress: [{ports: [{port: 1000, endPort: 1009}]}]")
    answers = [allowed(cluster, "client", "web", f"{n}/TCP") for n in (999, 1000, 1009, 1010)]
    assert answers == [False, True, True, False]


def test_10_a_protocol_without_port_and_isolation_of_the_others() -> None:
    cluster = given("ingress: [{ports: [{protocol: UDP}]}]")
    assert allowed(cluster, "client", "web", "7/UDP")
    assert not allowed(cluster, "client", "web", "7/TCP")


def test_11_icmp_matches_only_rules_without_ports() -> None:
    assert not allowed(given("ingress: [{ports: [{port: 80}]}]"), "client", "web", "0/OTHER")
    assert allowed(given("ingress: [{from: [{podSelector: {}}]}]"), "client", "web", "0/OTHER")


def test_13_traffic_to_oneself() -> None:
    assert allowed(given("{policyTypes: [Ingress, Egress]}"), "web", "web")


def test_14_the_node_reaches_its_own_pods_and_others_do_not() -> None:
    cluster = given("{policyTypes: [Ingress, Egress]}")
    assert allowed(cluster, "10.9.0.1", "web")
    assert not allowed(cluster, "10.9.0.2", "web")
    assert not allowed(cluster, "web", "10.9.0.1"), "the exemption is for probes, not for the pod"


def test_15_host_network_is_neither_subject_nor_peer() -> None:
    assert not allowed(given("ingress: [{from: [{namespaceSelector: {}}]}]"), "host", "web")
    assert allowed(given("{policyTypes: [Ingress, Egress]}", namespace="b"), "host", "web")
    assert allowed(given("{policyTypes: [Ingress, Egress]}", namespace="b"), "client", "host")


def test_21_the_name_label_of_a_namespace_is_always_there() -> None:
    spec = "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}]}]"
    assert allowed(given(spec), "vm", "web")
    assert not allowed(given(spec), "client", "web")


def test_25_every_address_of_a_workload_is_judged_alike() -> None:
    """Machines do not migrate from node to node here; a workload with two addresses is the same peer and subject at each."""
    cluster = given("ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]")
    for source, target in (("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")):
        assert allowed(cluster, source, target)
        assert not allowed(cluster, "10.0.0.3" if "." in source else "fd00::3", target)


def test_26_finished_pods_leave_the_peer_sets() -> None:
    cluster = given("ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]")
    assert allowed(cluster, "10.0.0.2", "web")
    assert not allowed(cluster, "10.0.0.4", "web")
    assert "pod/a/done" not in compile_tables(cluster).endpoints


def wide(tier: str, priority: int, *ingress: str) -> dict[str, Any]:
    rules = [yaml.load(rule, Loader=yaml.CSafeLoader) for rule in ingress]
    spec = {"tier": tier, "priority": priority, "subject": {"namespaces": {}}, "ingress": rules}
    return {"kind": "ClusterNetworkPolicy", "metadata": {"name": f"{tier.lower()}-{priority}"}, "spec": spec}


def with_wide(*objects: dict[str, Any], spec: str | None = None) -> Cluster:
    manifests = [*yaml.load_all(BASE, Loader=yaml.CSafeLoader), *objects]
    if spec:
        loaded = yaml.load(spec, Loader=yaml.CSafeLoader)
        manifests.append({"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "a"}, "spec": loaded})
    return snapshot.from_objects(manifests)


BLUE = "{action: %s, from: [{namespaces: {matchLabels: {team: blue}}}]}"
OPEN, SHUT = "{podSelector: {}, ingress: [{}]}", "{podSelector: {}}"


def test_an_administrators_denial_cannot_be_undone_by_a_tenant() -> None:
    assert not allowed(with_wide(wide("Admin", 1, BLUE % "Deny"), spec=OPEN), "vm", "web")
    assert allowed(with_wide(wide("Admin", 1, BLUE % "Accept"), spec=SHUT), "vm", "web")
    assert not allowed(
        with_wide(wide("Admin", 1, BLUE % "Pass"), wide("Admin", 2, BLUE % "Accept"), spec=SHUT), "vm", "web"
    )
    assert not allowed(with_wide(wide("Admin", 2, BLUE % "Accept"), wide("Admin", 1, BLUE % "Deny")), "vm", "web")


def test_the_baseline_holds_only_where_no_tenant_speaks() -> None:
    assert not allowed(with_wide(wide("Baseline", 1, BLUE % "Deny")), "vm", "web")
    assert allowed(with_wide(wide("Baseline", 1, BLUE % "Deny"), spec=OPEN), "vm", "web")
    assert allowed(with_wide(wide("Admin", 1, BLUE % "Pass")), "vm", "web"), "in the end all may talk"
