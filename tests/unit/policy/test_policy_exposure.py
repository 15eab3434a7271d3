"""A masquerade interface that lists ports lets in these alone, and every tool says so in the same words."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.node.denials import denial
from isoplane.node.network.packet import Seen
from isoplane.policy.compile import compile_tables
from isoplane.policy.diff import diff
from isoplane.policy.endpoints import endpoint_of
from isoplane.policy.explain import explain
from isoplane.policy.model import Cluster
from isoplane.policy.packets import PacketJudge
from isoplane.policy.reach import Reach
from isoplane.policy.snapshot import from_objects
from isoplane.policy.verdict import party
from isoplane.workload.vmi import MachineAdapter

POD, GUEST, NODE = "10.0.0.2", "10.0.0.3", "10.0.0.1"
LISTED = [{"name": "http", "port": 8080}, {"protocol": "UDP", "port": 53}]
REASON = "not a port of the interface, which lists 8080/TCP, 53/UDP"
OPEN_TO_ALL = {
    "kind": "NetworkPolicy",
    "metadata": {"name": "open", "namespace": "a"},
    "spec": {"podSelector": {}, "ingress": [{}]},
}
GUARDED = {
    "kind": "NetworkPolicy",
    "metadata": {"name": "guarded", "namespace": "a"},
    "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 8080}, {"port": 22}]}]},
}
ADMIN = {
    "kind": "ClusterNetworkPolicy",
    "metadata": {"name": "admin"},
    "spec": {
        "tier": "Admin",
        "priority": 1,
        "subject": {"namespaces": {}},
        "ingress": [{"name": "all", "action": "Accept", "from": [{"namespaces": {}}]}],
    },
}


def guest(interface: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "guest", "namespace": "a", "uid": "u1"},
        "spec": {
            "domain": {"devices": {"interfaces": [{"name": "default", **interface}]}, "memory": {"guest": "64Mi"}},
            "networks": [{"name": "default", "pod": {}}],
        },
        "status": {"nodeName": "n1", "interfaces": [{"ipAddress": GUEST}]},
    }


def snapshot(interface: dict[str, Any], *policies: dict[str, Any]) -> Cluster:
    pod = {
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": "a"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        "status": {"podIP": POD},
    }
    node = {
        "kind": "Node",
        "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE}]},
    }
    return from_objects([pod, guest(interface), node, *policies])


@pytest.mark.parametrize("policies", [(), (OPEN_TO_ALL,), (ADMIN,), (OPEN_TO_ALL, ADMIN)])
def test_only_listed_ports_are_let_in(policies: tuple[dict[str, Any], ...]) -> None:
    cluster = snapshot({"masquerade": {}, "ports": LISTED}, *policies)
    judge = PacketJudge(compile_tables(cluster), [NODE])
    reach = Reach(cluster)
    names = [someone.name for someone in reach.parties]
    client, machine = names.index("a/client"), names.index("a/guest")
    for protocol, port, open_ in (
        ("TCP", 8080, True),
        ("UDP", 53, True),
        ("TCP", 53, False),
        ("TCP", 22, False),
        ("SCTP", 8080, False),
        ("OTHER", 0, False),
    ):
        told = explain(cluster, party(cluster, POD), party(cluster, GUEST), protocol, port)
        assert told.verdict.allowed is open_, (protocol, port)
        assert (told.verdict.ingress.reason == REASON) is not open_
        assert told.changes == (), "no policy makes an interface list one more port"
        assert bool(reach.matrix(protocol, port)[client] >> machine & 1) is open_
        assert judge.judge(POD, GUEST, protocol, port).allowed is open_
        assert judge.judge(NODE, GUEST, protocol, port).allowed, "probes come from the node"
        assert judge.judge(GUEST, POD, protocol, port).allowed, "what goes out is not bounded"


def test_policies_bound_it_further() -> None:
    cluster = snapshot({"masquerade": {}, "ports": LISTED}, GUARDED)
    judge = PacketJudge(compile_tables(cluster))
    passing = [port for port in (22, 53, 8080) if judge.judge(POD, GUEST, "TCP", port).allowed]
    assert passing == [8080]
    assert not judge.judge(POD, GUEST, "UDP", 53).allowed, "listed, and no rule allows it"
    told = explain(cluster, party(cluster, POD), party(cluster, GUEST), "UDP", 53)
    assert told.changes, "this a policy can change"


@pytest.mark.parametrize(
    "interface", [{"masquerade": {}}, {"masquerade": {}, "ports": []}, {"bridge": {}, "ports": LISTED}]
)
def test_other_interfaces_are_not_bounded(interface: dict[str, Any]) -> None:
    cluster = snapshot(interface)
    assert PacketJudge(compile_tables(cluster)).judge(POD, GUEST, "TCP", 22).allowed
    assert [e.exposed for e in cluster.endpoints] == [None, None]


def test_the_live_view_and_manifests_say_the_same() -> None:
    obj = guest({"masquerade": {}, "ports": LISTED})
    (offline,) = from_objects([obj]).endpoints
    live = endpoint_of(MachineAdapter().networked(obj), (GUEST,))
    assert live.exposed == offline.exposed == (("TCP", 8080), ("UDP", 53))
    assert (live.id, live.ips, live.ports) == (offline.id, offline.ips, offline.ports)


def test_a_dropped_packet_is_told_with_this_reason() -> None:
    judge = PacketJudge(compile_tables(snapshot({"masquerade": {}, "ports": LISTED}, OPEN_TO_ALL)))
    found = denial(judge, Seen(POD, GUEST, "TCP", 22))
    assert str(found) == f"Ingress from pod/a/client on 22/TCP was dropped: {REASON}"


def test_listing_a_port_more_opens_it() -> None:
    before = snapshot({"masquerade": {}, "ports": LISTED})
    after = snapshot({"masquerade": {}, "ports": [*LISTED, {"port": 22}]})
    found = [(d.change, d.destination, d.protocol, d.low, d.high) for d in diff(before, after).differences]
    assert set(found) == {("opened", "vmi/a/guest", "TCP", 22, 22)}


def test_a_template_is_bounded_as_its_instance() -> None:
    obj = guest({"masquerade": {}, "ports": LISTED})
    machine = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "vm", "namespace": "a"},
        "spec": {"template": {"spec": obj["spec"]}},
    }
    (endpoint,) = from_objects([machine]).endpoints
    assert endpoint.exposed == (("TCP", 8080), ("UDP", 53))


def test_a_reason_names_few_ports_of_many() -> None:
    cluster = snapshot({"masquerade": {}, "ports": [{"port": number} for number in range(1000, 1020)]})
    told = explain(cluster, party(cluster, POD), party(cluster, GUEST), "TCP", 22)
    assert told.verdict.ingress.reason.endswith("1007/TCP and 12 more")
