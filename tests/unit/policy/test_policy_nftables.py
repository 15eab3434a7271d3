"""The nftables text, read back and walked, says what the reference says; and nft loads it."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from nft_reader_support import Nft, Packet

from isoplane.policy.compile import compile_tables
from isoplane.policy.interfaces import EndpointInterface, NodeNetwork
from isoplane.policy.model import Cluster
from isoplane.policy.nftables import render_nftables, ruleset
from isoplane.policy.verdict import Connection, judge
from policy_strategies_support import NODE_IPS, clusters, nasty, packets, scaled
from support import require

NODE = NodeNetwork("n1", NODE_IPS, guarded=("isp",))


def attach(cluster: Cluster) -> list[EndpointInterface]:
    """VMIs hang on a bridge, reached through one interface; pods each on their own."""
    return [
        EndpointInterface(e.id, e.ips, "br-vm" if e.kind == "vmi" else f"isp-{e.name}", ofport=int(e.kind == "vmi"))
        for e in cluster.endpoints
        if e.governed
    ]


def as_packet(connection: Connection, attached: dict[str, EndpointInterface]) -> Packet | None:
    """How the host's kernel sees it: None when it never does (to oneself)."""
    source, destination = connection.source, connection.destination
    if source == destination or (source.endpoint is not None and source.endpoint is destination.endpoint):
        return None
    if source.ip in NODE_IPS:
        hook, iif = "output", "lo"
    else:
        hook = "input" if destination.ip in NODE_IPS else "forward"
        iif = attached[source.endpoint.id].device if source.governed and source.endpoint else "uplink"
    oif = attached[destination.endpoint.id].device if destination.governed and destination.endpoint else "uplink"
    protocol = "icmp" if connection.protocol == "OTHER" else connection.protocol.lower()
    return Packet(hook, iif, oif, source.ip, destination.ip, protocol, connection.port)


@given(nasty())
@settings(max_examples=scaled(25), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_text_equals_reference(cluster: Cluster) -> None:
    interfaces = attach(cluster)
    attached = {a.endpoint: a for a in interfaces}
    rules = Nft.read(render_nftables(compile_tables(cluster), interfaces, NODE))
    for family in (4, 6):
        for connection in packets(cluster, family):
            packet = as_packet(connection, attached)
            if packet is not None:
                assert rules.passes(packet) == judge(cluster, connection).allowed, connection


def test_source_guard() -> None:
    from isoplane.policy.model import Endpoint, cluster

    snapshot = cluster([Endpoint("pod", "a", "one", {}, ("10.0.0.1",)), Endpoint("pod", "a", "two", {}, ("10.0.0.2",))])
    rules = Nft.read(render_nftables(compile_tables(snapshot), attach(snapshot), NODE))

    def passes(iif: str, saddr: str, daddr: str = "10.0.0.2", oif: str = "isp-two") -> bool:
        return rules.passes(Packet("forward", iif, oif, saddr, daddr, "tcp", 80))

    assert passes("isp-one", "10.0.0.1")
    assert not passes("isp-one", "10.0.0.2", "192.0.2.1", "uplink")
    assert not passes("isp-one", "192.0.2.1"), "an address of nobody"
    assert not passes("isp-new", "10.0.0.9"), "not attached yet"
    assert not passes("uplink", "10.0.0.1"), "a workload's address from outside"
    assert not passes("uplink", "192.0.2.1", "10.0.0.9", "isp-new"), "towards one that is not attached yet"
    assert passes("uplink", "192.0.2.1")


def test_attached_and_unknown_is_closed() -> None:
    rules = Nft.read(
        render_nftables(compile_tables(Cluster()), [EndpointInterface("pod/a/x", ("10.0.0.1",), "isp-x")], NODE)
    )
    assert not rules.passes(Packet("forward", "isp-x", "uplink", "10.0.0.1", "192.0.2.1", "tcp", 80))
    assert not rules.passes(Packet("forward", "uplink", "isp-x", "192.0.2.1", "10.0.0.1", "tcp", 80))


@pytest.mark.root
@given(before=clusters(), after=clusters())
@settings(max_examples=scaled(8), phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_nft_loads_whole_and_updates(before: Cluster, after: Cluster) -> None:
    """The kernel takes the whole text, and from any ruleset to any other the update leads to the same listing."""
    require("nft", "unshare", root=True)
    old, new = (ruleset(compile_tables(c), attach(c), NODE) for c in (before, after))
    listing = "nft -s list table inet isoplane | sort"
    script = f"""set -e
nft -f - <<'END'
{old.text()}END
nft -f - <<'END'
{new.update(old)}END
updated=$({listing})
nft -f - <<'END'
{new.text()}END
[ "$updated" = "$({listing})" ] || {{ diff <(echo "$updated") <({listing}); exit 1; }}
"""
    done = subprocess.run(["unshare", "-n", "bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
