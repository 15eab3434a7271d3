"""What a node's engines are given when workloads and policies come and go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from isoplane.node.network.engines.iptables import join, split
from isoplane.node.network.engines.protocol import Connection
from isoplane.node.network.rules import NodeRules
from isoplane.node.network.settings import FabricSettings, Ranges
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.policy.compile import compile_tables
from isoplane.policy.iptables import Steps
from isoplane.policy.model import Cluster, Endpoint, Node, cluster
from isoplane.policy.parse import network_policy

RANGES = Ranges.of("10.9.0.0/24")
ENGINES = ("nftables", "openvswitch")


def _rules(engines: Sequence[str] = ENGINES) -> NodeRules:
    settings = FabricSettings(Path("/nowhere"))
    return NodeRules("n", settings, RANGES, engines, lambda plug: f"{'vmi' if plug.ofport else 'pod'}/a/{plug.name}")


def _plug(name: str, number: int, bridged: bool = False) -> NetworkInterface:
    address = f"10.9.0.{number + 128 * bridged}"
    return NetworkInterface(
        uid=name, namespace="a", name=name, address=address, mac=f"0a:58:0a:09:00:{number:02x}",
        host_interface=f"iv{name}", ofport=number * bridged,
    )  # fmt: skip


PLUGS = [_plug("one", 2), _plug("two", 3), _plug("first", 2, True), _plug("second", 3, True)]


def _cluster(plugs: Sequence[NetworkInterface], *allowed: str) -> Cluster:
    """Everybody is isolated; in comes who is named."""
    peers = [{"podSelector": {"matchLabels": {"app": name}}} for name in allowed]
    policy = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "a"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": peers}] if peers else []},
    }
    endpoints = [
        Endpoint("vmi" if p.ofport else "pod", "a", p.name, {"app": p.name}, (p.address,), node="n") for p in plugs
    ]
    return cluster(endpoints, policies=[network_policy(policy)], nodes=[Node("n", (RANGES.node,))])


def test_closing_first_is_for_changes_that_forbid_and_allow() -> None:
    rules = _rules()
    assert rules.render(compile_tables(_cluster(PLUGS, "one")), PLUGS).closing == {}
    wider = rules.render(compile_tables(_cluster(PLUGS, "one", "two")), PLUGS)
    assert wider.closing == {}
    assert not wider.forbids
    assert all(rules.update is not None for rules in wider.rules.values())
    assert rules.render(compile_tables(_cluster(PLUGS, "two")), PLUGS).closing == {}
    swapped = rules.render(compile_tables(_cluster(PLUGS, "one")), PLUGS)
    assert swapped.closing.keys() == set(ENGINES)
    assert swapped.forbids
    nobody = _rules().render(compile_tables(_cluster(PLUGS)), PLUGS)
    assert swapped.closing.keys() == nobody.rules.keys()


def test_whoever_comes_or_goes_costs_a_difference_and_no_more() -> None:
    rules = _rules()
    first = rules.render(compile_tables(_cluster(PLUGS[:3], "one")), PLUGS[:3])
    more = rules.render(compile_tables(_cluster(PLUGS, "one")), PLUGS)
    assert more.closing == {}
    assert not more.forbids
    assert more.rules["nftables"].base == first.rules["nftables"].revision
    assert len(more.rules["nftables"].update or "") < len(more.rules["nftables"].text) / 2
    less = rules.render(compile_tables(_cluster(PLUGS[:3], "one")), PLUGS[:3])
    assert less.closing == {}
    assert less.revision == first.revision


def test_an_open_pod_is_nothing_to_the_switch() -> None:
    rules = _rules()
    open_pods = [Endpoint("pod", "a", n, {}, (f"10.9.0.{i}",), node="n") for i, n in ((2, "one"), (3, "two"))]
    before = rules.render(compile_tables(cluster(open_pods[:1])), PLUGS[:1])
    after = rules.render(compile_tables(cluster(open_pods)), PLUGS[:2])
    assert after.revision != before.revision
    assert after.rules["nftables"].revision != before.rules["nftables"].revision
    assert after.rules["openvswitch"].revision == before.rules["openvswitch"].revision


def test_a_workloads_revision_is_its_own() -> None:
    rules = _rules()
    before = rules.render(compile_tables(_cluster(PLUGS, "one")), PLUGS).endpoints
    after = rules.render(
        compile_tables(_cluster([*PLUGS, _plug("three", 4)], "one")), [*PLUGS, _plug("three", 4)]
    ).endpoints
    assert before is not None
    assert after is not None
    assert {uid: after[uid] for uid in before} == before
    changed = rules.render(compile_tables(_cluster(PLUGS, "two")), PLUGS).endpoints
    assert changed is not None
    assert all(changed[uid] != before[uid] for uid in before)
    unknown = rules.render(compile_tables(_cluster(PLUGS[:1])), PLUGS).endpoints
    assert unknown is not None
    assert unknown.keys() == {"one"}


@pytest.mark.parametrize("engine", ["nftables", "iptables", "openvswitch"])
def test_every_engine_is_given_its_own_text(engine: str) -> None:
    rendered = _rules([engine]).render(compile_tables(_cluster(PLUGS, "one")), PLUGS)
    assert rendered.rules.keys() == {engine}
    assert "10.9.0.2" in rendered.rules[engine].text


def test_connections_are_judged_as_the_tables_say() -> None:
    permits = _rules().render(compile_tables(_cluster(PLUGS, "one")), PLUGS).permits
    assert permits(Connection("TCP", "10.9.0.2", 40000, "10.9.0.130", 80))
    assert not permits(Connection("TCP", "10.9.0.3", 40000, "10.9.0.130", 80))
    assert not permits(Connection("1", "10.9.0.131", 0, "10.9.0.2", 0))
    assert permits(Connection("TCP", RANGES.node, 40000, "10.9.0.130", 80)), "the node reaches its own"
    assert permits(Connection("TCP", "10.9.0.130", 40000, "192.0.2.1", 80))
    assert not permits(Connection("TCP", "192.0.2.1", 40000, "10.9.0.130", 80))


def test_the_steps_of_iptables_survive_as_one_text() -> None:
    steps = Steps("create a\n", "*raw\nCOMMIT\n", "", "destroy b\n")
    assert split(join(steps)) == steps
    with pytest.raises(ValueError, match="no rules for iptables"):
        split("table inet t {\n}\n")
