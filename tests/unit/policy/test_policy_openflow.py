"""The OpenFlow text, read back and walked, says what the reference says; and Open vSwitch loads it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from flow_reader_support import Flows
from hypothesis import HealthCheck, Phase, given, settings

from isoplane.policy.compile import compile_tables
from isoplane.policy.interfaces import EndpointInterface, NodeNetwork
from isoplane.policy.model import Cluster, Endpoint, cluster
from isoplane.policy.openflow import render_openflow
from isoplane.policy.parse import network_policy
from isoplane.policy.verdict import Connection, judge
from policy_strategies_support import NODE_IPS, clusters, nasty, packets, scaled
from support import require

NODE = NodeNetwork("n1", NODE_IPS, bridge_mac="0a:00:00:00:00:01")


def attach(cluster: Cluster) -> list[EndpointInterface]:
    """VMIs on the bridge, pods beyond its local port."""
    found = []
    for number, endpoint in enumerate((e for e in cluster.endpoints if e.governed), start=1):
        on_bridge = endpoint.kind == "vmi"
        mac = f"0a:58:00:00:00:{number:02x}" if on_bridge else ""
        found.append(EndpointInterface(endpoint.id, endpoint.ips, "br-vm", number if on_bridge else 0, mac))
    return found


def as_packet(connection: Connection, attached: dict[str, EndpointInterface]) -> tuple[dict[str, Any], str] | None:
    """(what the bridge sees, where it should leave); None when the connection does not touch the bridge."""
    source, destination = connection.source, connection.destination
    if source == destination or (source.endpoint is not None and source.endpoint is destination.endpoint):
        return None
    ends = [attached[p.endpoint.id] if p.endpoint and p.governed else None for p in (source, destination)]
    ports = [end.ofport if end else 0 for end in ends]
    if ports == [0, 0]:
        return None
    six = ":" in source.ip
    fields = ("ipv6_src", "ipv6_dst") if six else ("nw_src", "nw_dst")
    packet = {
        "in_port": ports[0] or "LOCAL",
        "dl_src": ends[0].mac if ends[0] and ends[0].ofport else NODE.bridge_mac,
        "dl_type": "86dd" if six else "0800",
        "proto": "icmp" if connection.protocol == "OTHER" else connection.protocol.lower(),
        fields[0]: source.ip,
        fields[1]: destination.ip,
    }
    if connection.protocol != "OTHER":
        packet |= {"tp_src": 40000, "tp_dst": connection.port}
    return packet, str(ports[1] or "LOCAL")


@given(nasty())
@settings(max_examples=scaled(25), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_text_equals_reference(cluster: Cluster) -> None:
    interfaces = attach(cluster)
    attached = {a.endpoint: a for a in interfaces}
    flows = Flows(render_openflow(compile_tables(cluster), interfaces, NODE))
    for family in (4, 6):
        for connection in packets(cluster, family):
            seen = as_packet(connection, attached)
            if seen is None:
                continue
            walk = flows.walk(seen[0])
            allowed = judge(cluster, connection).allowed
            assert walk.outputs == ([seen[1]] if allowed else []), connection
            assert walk.committed == allowed, connection


def two_vms(*policies: dict[str, Any]) -> Flows:
    one = Endpoint("vmi", "a", "one", {"app": "one"}, ("10.0.0.1", "fd00::1"))
    two = Endpoint("vmi", "a", "two", {"app": "two"}, ("10.0.0.2", "fd00::2"))
    snapshot = cluster([one, two], policies=map(network_policy, policies))
    return Flows(render_openflow(compile_tables(snapshot), attach(snapshot), NODE))


ONE = {"in_port": 1, "dl_src": "0a:58:00:00:00:01", "dl_type": "0800"}
TWO = {"in_port": 2, "dl_src": "0a:58:00:00:00:02", "dl_type": "0800"}
TCP = {"proto": "tcp", "tp_src": 40000, "tp_dst": 80}


def policy(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "a"}, "spec": {"podSelector": {}, **spec}}


def test_spoofed_senders_are_dropped() -> None:
    flows = two_vms()
    good = {**ONE, **TCP, "nw_src": "10.0.0.1", "nw_dst": "10.0.0.2"}
    assert flows.walk(good).outputs == ["2"]
    assert flows.walk({**good, "nw_src": "10.0.0.2", "nw_dst": "192.0.2.1"}).outputs == []
    assert flows.walk({**good, "nw_src": "192.0.2.1"}).outputs == []
    assert flows.walk({**good, "dl_src": TWO["dl_src"]}).outputs == []
    assert flows.walk({**good, "vlan": True}).outputs == []
    assert flows.walk({**good, "in_port": "LOCAL"}).outputs == [], "a guest's address from the host's side"
    assert flows.walk({**good, "in_port": 7}).outputs == [], "a port that is not attached"


def test_delivery_is_by_address_not_by_mac() -> None:
    walk = two_vms().walk({**ONE, **TCP, "nw_src": "10.0.0.1", "nw_dst": "10.0.0.2", "dl_dst": "0a:58:00:00:00:09"})
    assert (walk.outputs, walk.mac) == (["2"], "0a:58:00:00:00:02")


def test_arp_and_dhcp_and_discovery_survive_default_deny() -> None:
    flows = two_vms(policy(policyTypes=["Ingress", "Egress"]))
    arp = {**ONE, "dl_type": "0806", "arp_sha": ONE["dl_src"], "arp_spa": "10.0.0.1", "arp_op": 1}
    assert flows.walk({**arp, "arp_tpa": "10.0.0.2"}).outputs == ["2"]
    assert flows.walk({**arp, "arp_tpa": "10.0.9.1"}).outputs == ["LOCAL"]
    assert flows.walk({**arp, "arp_spa": "10.0.0.2", "arp_tpa": "10.0.9.1"}).outputs == []
    dhcp = {**ONE, "proto": "udp", "tp_src": 68, "tp_dst": 67, "nw_src": "0.0.0.0", "nw_dst": "255.255.255.255"}
    assert flows.walk(dhcp).outputs == ["LOCAL"]
    offer = {"in_port": "LOCAL", "dl_type": "0800", "proto": "udp", "tp_src": 67, "tp_dst": 68, "nw_src": "10.0.9.1"}
    assert flows.walk({**offer, "dl_dst": ONE["dl_src"], "nw_dst": "10.0.0.1"}).outputs == ["1"]
    false = {**ONE, "proto": "udp", "tp_src": 67, "tp_dst": 68, "nw_src": "10.0.0.1", "nw_dst": "10.0.0.2"}
    assert two_vms().walk(false).outputs == [], "a guest that answers DHCP"
    assert two_vms().walk({**false, "tp_dst": 69}).outputs == ["2"]
    solicit = {**ONE, "dl_type": "86dd", "proto": "icmp", "icmp_type": 135, "icmp_code": 0, "nd_sll": ONE["dl_src"]}
    assert flows.walk({**solicit, "ipv6_src": "fd00::1", "nd_target": "fd00::2"}).outputs == ["2"]
    assert flows.walk({**solicit, "ipv6_src": "fd00::2", "nd_target": "fd00::3"}).outputs == []
    assert flows.walk({**ONE, **TCP, "nw_src": "10.0.0.1", "nw_dst": "10.0.0.2"}).outputs == []


def test_only_connections_that_were_judged_pass_as_established() -> None:
    flows = two_vms(policy(policyTypes=["Ingress", "Egress"]))
    reply = {**TWO, "proto": "tcp", "tp_src": 80, "tp_dst": 40000, "nw_src": "10.0.0.2", "nw_dst": "10.0.0.1"}
    established = frozenset({"trk", "est", "rpl"})
    assert flows.walk(reply, established, mark=1).outputs == ["1"]
    assert flows.walk(reply, established, mark=0).outputs == []
    assert flows.walk(reply, frozenset({"trk", "inv"}), mark=1).outputs == []


def test_echo_requests_of_icmpv6_are_judged_one_by_one() -> None:
    """No connection of ICMPv6 can be cut, so the next request after a change must not pass as established."""
    request = {**ONE, "dl_type": "86dd", "proto": "icmp", "icmp_type": 128, "icmp_code": 0}
    request |= {"ipv6_src": "fd00::1", "ipv6_dst": "fd00::2"}
    answer = {**TWO, "dl_type": "86dd", "proto": "icmp", "icmp_type": 129, "icmp_code": 0}
    answer |= {"ipv6_src": "fd00::2", "ipv6_dst": "fd00::1"}
    established, replied = frozenset({"trk", "est"}), frozenset({"trk", "est", "rpl"})
    assert two_vms().walk(request, established, mark=1).outputs == ["2"]
    shut = two_vms(policy(policyTypes=["Ingress"]))
    assert shut.walk(request, established, mark=1).outputs == []
    assert shut.walk(answer, replied, mark=1).outputs == ["1"], "what was asked before the change is answered"


def test_sctp_is_judged_packet_by_packet() -> None:
    """Tracking knows the pair of hosts only, so a reply must come from a port that was allowed."""
    allow = policy(
        podSelector={"matchLabels": {"app": "two"}},
        ingress=[{"ports": [{"protocol": "SCTP", "port": 80}]}],
    )
    deny = {**policy(podSelector={"matchLabels": {"app": "one"}}), "metadata": {"name": "q", "namespace": "a"}}
    flows = two_vms(allow, deny)
    established = frozenset({"trk", "est"})
    sent = {**ONE, "proto": "sctp", "tp_src": 40000, "nw_src": "10.0.0.1", "nw_dst": "10.0.0.2"}
    back = {**TWO, "proto": "sctp", "tp_dst": 40000, "nw_src": "10.0.0.2", "nw_dst": "10.0.0.1"}
    assert flows.walk({**sent, "tp_dst": 80}).outputs == ["2"]
    assert flows.walk({**sent, "tp_dst": 81}, established, mark=1).outputs == []
    assert flows.walk({**back, "tp_src": 80}, established | {"rpl"}, mark=1).outputs == ["1"]
    assert flows.walk({**back, "tp_src": 81}, established | {"rpl"}, mark=1).outputs == []
    assert flows.walk({**back, "tp_src": 80}).outputs == [], "no connection yet"


@pytest.mark.root
@given(clusters())
@settings(max_examples=scaled(6), phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_ovs_parses(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> None:
    require("ovs-ofctl")
    text = render_openflow(compile_tables(cluster), attach(cluster), NODE)
    path = Path(tmp_path_factory.mktemp("flows")) / "flows"
    path.write_text(text)
    done = subprocess.run(
        ["ovs-ofctl", "-O", "OpenFlow14", "parse-flows", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= len(text.splitlines())
