"""The matrix says what the reference says, pair by pair; classes stand for their members."""

from __future__ import annotations

from hypothesis import given, settings

from isoplane.policy.model import Cluster, Endpoint, NamedPort, cluster
from isoplane.policy.parse import network_policy
from isoplane.policy.reach import Reach, pieces_of, ports_of
from isoplane.policy.universe import bits_of, positions_of
from isoplane.policy.verdict import Connection, judge
from policy_strategies_support import clusters, nasty, scaled


@given(nasty())
@settings(max_examples=scaled(120))
def test_matrix_equals_reference(cluster: Cluster) -> None:
    reach = Reach(cluster, outside=True)
    for protocol, low, high in pieces_of([cluster]):
        for port in {low, high}:
            matrix = reach.matrix(protocol, port)
            for i, source in enumerate(reach.parties):
                for j, destination in enumerate(reach.parties):
                    if source.endpoint is None and destination.endpoint is None:
                        continue
                    connection = Connection(source.party, destination.party, protocol, port)
                    assert bool(matrix[i] >> j & 1) == judge(cluster, connection).allowed, connection


@given(clusters())
@settings(max_examples=scaled(20))
def test_one_member_of_a_class_answers_for_all(cluster: Cluster) -> None:
    reach = Reach(cluster)
    ports = ports_of(cluster)
    classes = reach.classes(ports)
    assert sorted(m for c in classes for m in c) == list(range(len(reach.parties)))
    for port in ports:
        matrix = reach.matrix(*port)
        for sources in classes:
            for destinations in classes:
                found = {matrix[i] >> j & 1 for i in sources for j in destinations if i != j}
                assert len(found) <= 1


def test_sets_of_positions() -> None:
    for positions in ([], [0], [1, 7, 8, 9, 64]):
        assert list(positions_of(bits_of(positions))) == positions


def test_without_any_port_one_stands_for_all() -> None:
    assert ports_of(cluster([Endpoint("pod", "a", "x")])) == [("TCP", 80)]


def test_ports_are_those_declared_and_those_named_in_policies() -> None:
    policy = network_policy(
        {
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 10, "endPort": 20}, {"protocol": "UDP"}]}]},
        }
    )
    endpoint = Endpoint("pod", "a", "x", ports=(NamedPort("dns", "UDP", 53),))
    assert ports_of(cluster([endpoint], policies=[policy])) == [("TCP", 10), ("TCP", 20), ("UDP", 53)]


def test_workloads_without_an_address_match_selectors_and_no_block() -> None:
    def policy(name: str, peer: dict[str, object]) -> dict[str, object]:
        return {
            "metadata": {"name": name, "namespace": "a"},
            "spec": {"podSelector": {"matchLabels": {"app": name}}, "ingress": [{"from": [peer]}]},
        }

    snapshot = cluster(
        [Endpoint("pod", "a", n, {"app": n}) for n in ("block", "label", "client")],
        policies=[
            network_policy(policy("block", {"ipBlock": {"cidr": "0.0.0.0/0"}})),
            network_policy(policy("label", {"podSelector": {"matchLabels": {"app": "client"}}})),
        ],
    )
    answers = {(r.source, r.destination): r.allowed for r in Reach(snapshot).rows([("TCP", 80)])}
    assert answers["a/client", "a/label"]
    assert not answers["a/client", "a/block"]
