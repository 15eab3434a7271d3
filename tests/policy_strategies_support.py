"""Small and nasty clusters for property tests: few names, many collisions, every feature, and bounds that touch."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st

from isoplane.policy.clusterpolicy import cluster_network_policy
from isoplane.policy.model import Cluster, Endpoint, NamedPort, Node, cluster
from isoplane.policy.parse import network_policy
from isoplane.policy.rules import PROTOCOLS
from isoplane.policy.table import Tables
from isoplane.policy.verdict import Connection, Party, party


def scaled(examples: int) -> int:
    """Examples of a property; ISOPLANE_EXAMPLES multiplies them for a long search."""
    return int(examples * float(os.environ.get("ISOPLANE_EXAMPLES", "1")))


SPACES = ("a", "b")
V4 = [f"10.0.0.{n}" for n in range(1, 7)]
V6 = [f"fd00::{n:x}" for n in range(1, 7)]
OUTSIDE = ["10.0.0.4", "10.0.0.5", "10.0.0.9", "10.0.1.1", "192.0.2.1", "fd00::4", "fd00::9", "2001:db8::1"]
NODE_IPS = ("10.0.9.1", "fd00:9::1")
PORT_NAMES = ("web", "dns")
PORT_NUMBERS = (1, 53, 80, 81, 1023, 65535)
_BLOCKS = {
    "0.0.0.0/0": ["10.0.0.0/30", "10.0.0.2/32", "128.0.0.0/1"],
    "10.0.0.0/29": ["10.0.0.0/30", "10.0.0.4/31", "10.0.0.2/32"],
    "10.0.0.0/30": ["10.0.0.1/32", "10.0.0.2/31"],
    "10.0.0.2/32": [],
    "10.0.9.0/24": ["10.0.9.1/32"],
    "::/0": ["fd00::/64", "fd00::2/128"],
    "fd00::/126": ["fd00::2/127", "fd00::1/128"],
    "fd00::3/128": [],
}


def labels() -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("x", "y")), max_size=2)


def selectors() -> st.SearchStrategy[dict[str, Any]]:
    values = st.lists(st.sampled_from(("x", "y")), min_size=1, max_size=2, unique=True)
    key = st.sampled_from(("app", "tier"))
    expressions = st.one_of(
        st.builds(
            lambda k, o, v: {"key": k, "operator": o, "values": v}, key, st.sampled_from(("In", "NotIn")), values
        ),
        st.builds(lambda k, o: {"key": k, "operator": o}, key, st.sampled_from(("Exists", "DoesNotExist"))),
    )
    return st.one_of(
        st.just({}),
        st.builds(lambda m: {"matchLabels": m}, labels()),
        st.builds(lambda e: {"matchExpressions": [e]}, expressions),
    )


def space_selectors() -> st.SearchStrategy[dict[str, Any]]:
    named = st.sampled_from(SPACES).map(lambda n: {"matchLabels": {"kubernetes.io/metadata.name": n}})
    return st.one_of(named, selectors())


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    cidr = draw(st.sampled_from(sorted(_BLOCKS)))
    holes = draw(st.lists(st.sampled_from(_BLOCKS[cidr]), max_size=2, unique=True)) if _BLOCKS[cidr] else []
    return {"ipBlock": {"cidr": cidr, **({"except": holes} if holes else {})}}


def peers() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(lambda s: {"podSelector": s}, selectors()),
        st.builds(lambda s: {"namespaceSelector": s}, space_selectors()),
        st.builds(lambda n, s: {"namespaceSelector": n, "podSelector": s}, space_selectors(), selectors()),
        blocks(),
    )


@st.composite
def ports(draw: st.DrawFn) -> dict[str, Any]:
    port: dict[str, Any] = {}
    if draw(st.booleans()):
        port["protocol"] = draw(st.sampled_from(("TCP", "UDP", "SCTP")))
    kind = draw(st.sampled_from(("none", "number", "range", "name")))
    if kind == "name":
        port["port"] = draw(st.sampled_from(PORT_NAMES))
    elif kind != "none":
        port["port"] = draw(st.sampled_from(PORT_NUMBERS))
        if kind == "range":
            port["endPort"] = draw(st.sampled_from([n for n in PORT_NUMBERS if n >= port["port"]]))
    return port


@st.composite
def rules(draw: st.DrawFn, peer_key: str) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    if draw(st.integers(0, 3)):
        rule[peer_key] = draw(st.lists(peers(), max_size=3))
    if draw(st.booleans()):
        rule["ports"] = draw(st.lists(ports(), max_size=3))
    return rule


@st.composite
def policies(draw: st.DrawFn, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"podSelector": draw(selectors())}
    if draw(st.booleans()):
        spec["policyTypes"] = draw(
            st.lists(st.sampled_from(("Ingress", "Egress")), min_size=1, max_size=2, unique=True)
        )
    for key, peer_key in (("ingress", "from"), ("egress", "to")):
        if draw(st.booleans()):
            spec[key] = draw(st.lists(rules(peer_key), max_size=3))
    return {
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": draw(st.sampled_from(SPACES))},
        "spec": spec,
    }


@st.composite
def cluster_rules(draw: st.DrawFn, peer_key: str) -> dict[str, Any]:
    selection = st.one_of(
        st.builds(lambda s: {"namespaces": s}, space_selectors()),
        st.builds(lambda n, s: {"pods": {"namespaceSelector": n, "podSelector": s}}, space_selectors(), selectors()),
    )
    addressed = st.one_of(
        st.just({"nodes": {}}),
        st.lists(st.sampled_from(sorted(_BLOCKS)), min_size=1, max_size=2, unique=True).map(lambda n: {"networks": n}),
    )
    protocol = st.one_of(
        st.sampled_from(("tcp", "udp", "sctp")).map(lambda p: {p: {}}),
        st.builds(
            lambda p, n: {p: {"destinationPort": {"number": n}}},
            st.sampled_from(("tcp", "udp")),
            st.sampled_from(PORT_NUMBERS),
        ),
        st.just({"tcp": {"destinationPort": {"range": {"start": 53, "end": 81}}}}),
    )
    named = st.sampled_from(PORT_NAMES).map(lambda n: {"destinationNamedPort": n})
    by_address = peer_key == "to" and draw(st.booleans())
    rule: dict[str, Any] = {
        "action": draw(st.sampled_from(("Accept", "Deny", "Pass"))),
        peer_key: draw(st.lists(addressed if by_address else selection, min_size=1, max_size=2)),
    }
    if draw(st.booleans()):
        rule["protocols"] = draw(
            st.lists(protocol if by_address else st.one_of(protocol, named), min_size=1, max_size=2)
        )
    return rule


@st.composite
def cluster_policies(draw: st.DrawFn, name: str) -> dict[str, Any]:
    return {
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "tier": draw(st.sampled_from(("Admin", "Baseline"))),
            "priority": draw(st.integers(0, 2)),
            "subject": {"namespaces": draw(space_selectors())},
            "ingress": draw(st.lists(cluster_rules("from"), max_size=2)),
            "egress": draw(st.lists(cluster_rules("to"), max_size=2)),
        },
    }


@st.composite
def endpoints(draw: st.DrawFn, index: int) -> Endpoint:
    families = draw(st.sampled_from(("4", "6", "46")))
    named = st.builds(
        NamedPort,
        st.sampled_from(PORT_NAMES),
        st.sampled_from(("TCP", "UDP")),
        st.sampled_from(PORT_NUMBERS),
    )
    host_network = draw(st.integers(0, 9)) == 0
    declared = tuple(draw(st.lists(named, max_size=2)))
    listed = tuple(sorted({(p.protocol, p.number) for p in declared}))
    own = (*([V4[index]] if "4" in families else []), *([V6[index]] if "6" in families else []))
    return Endpoint(
        kind=draw(st.sampled_from(("pod", "vmi"))),
        namespace=draw(st.sampled_from(SPACES)),
        name=f"e{index}",
        labels=draw(labels()),
        ips=NODE_IPS if host_network else own,
        ports=declared,
        exposed=listed if listed and draw(st.booleans()) else None,
        host_network=host_network,
        node="n1",
        finished=draw(st.integers(0, 9)) == 0,
    )


@st.composite
def clusters(draw: st.DrawFn, with_cluster_policies: bool = True) -> Cluster:
    """A cluster of up to five addressed endpoints on one node, with up to four policies."""
    count = draw(st.integers(1, 5))
    found = [network_policy(draw(policies(f"p{n}"))) for n in range(draw(st.integers(0, 4)))]
    wide = []
    if with_cluster_policies and draw(st.booleans()):
        wide = [cluster_network_policy(draw(cluster_policies(f"c{n}"))) for n in range(draw(st.integers(1, 3)))]
    return cluster(
        [draw(endpoints(n)) for n in range(count)],
        {name: draw(labels()) for name in SPACES},
        found,
        wide,
        [Node("n1", NODE_IPS)],
    )


@st.composite
def blocky(draw: st.DrawFn) -> Cluster:
    """Clusters that are all about addresses: nested blocks with exceptions, one policy's hole in another's block."""
    rule = st.lists(blocks(), min_size=1, max_size=3).flatmap(
        lambda peers: st.sampled_from([{}, {"ports": [{"port": 80}]}]).map(lambda ports: {"peers": peers, **ports})
    )
    found = []
    for number in range(draw(st.integers(1, 2))):
        spec: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        for key, peer_key in (("ingress", "from"), ("egress", "to")):
            drawn = draw(st.lists(rule, max_size=2))
            spec[key] = [{peer_key: r["peers"], **{k: v for k, v in r.items() if k == "ports"}} for r in drawn]
        found.append(network_policy({"metadata": {"name": f"p{number}", "namespace": "a"}, "spec": spec}))
    members = [Endpoint("vmi" if n % 2 else "pod", "a", f"e{n}", {}, (V4[n], V6[n]), node="n1") for n in range(3)]
    return cluster(members, {}, found, nodes=[Node("n1", NODE_IPS)])


def nasty() -> st.SearchStrategy[Cluster]:
    """Everything above, for the tests of equality."""
    return st.one_of(clusters(), clusters(), blocky())


def packets(snapshot: Cluster, family: int) -> list[Connection]:
    """One packet of every class that can differ: each pair of addresses, each protocol, each side of each bound."""
    marker = ":" if family == 6 else "."
    live = [ip for e in snapshot.endpoints if e.governed for ip in e.ips]
    ips = [ip for ip in dict.fromkeys([*live, *OUTSIDE, *NODE_IPS]) if marker in ip]
    parties = [party(snapshot, ip) for ip in ips]
    numbers = {1, 2, 52, 53, 80, 81, 82, 1023, 1024, 65535}
    if not any(rule.ports for rule in snapshot.rules()) and not any(e.exposed for e in snapshot.endpoints):
        numbers = {80}
    return [
        Connection(source, destination, protocol, port)
        for source in parties
        for destination in parties
        if source.endpoint or destination.endpoint
        for protocol in PROTOCOLS
        for port in ([0] if protocol == "OTHER" else sorted(numbers))
    ]


def by_tables(tables: Tables, connection: Connection, direction: str) -> tuple[bool, tuple[str, ...]] | None:
    """What the tables answer for one direction; None where no table applies (outside, itself, the node)."""
    from isoplane.policy.addresses import address

    source, destination = connection.source, connection.destination
    subject, peer = (source, destination) if direction == "Egress" else (destination, source)
    if not subject.governed or source == destination or subject.endpoint is None:
        return None
    if source.endpoint is destination.endpoint:
        return None
    if direction == "Ingress" and source.ip in NODE_IPS:
        return None
    entry = tables.endpoints[subject.endpoint.id]
    table = entry.egress if direction == "Egress" else entry.ingress
    return table.judge(*address(peer.ip), connection.protocol, connection.port)


__all__ = ["NODE_IPS", "OUTSIDE", "Party", "by_tables", "clusters", "nasty", "packets", "scaled"]
