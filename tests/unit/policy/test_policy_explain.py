"""What explain proposes works, on the object as it would be patched; and differences are exact."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from isoplane.policy.change import beyond, changes_for
from isoplane.policy.clusterpolicy import cluster_network_policy
from isoplane.policy.diff import OPENED, Difference, diff
from isoplane.policy.explain import Explanation, explain
from isoplane.policy.model import Cluster, Endpoint, NamedPort, cluster
from isoplane.policy.parse import network_policy
from isoplane.policy.rules import DIRECTIONS
from isoplane.policy.universe import Party, primary
from isoplane.policy.verdict import Connection, judge, judge_direction
from policy_strategies_support import cluster_policies, clusters, packets, policies, scaled


def patched(obj: dict[str, Any], patch: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """JSON patch, the operation add only."""
    result = copy.deepcopy(obj)
    for step in patch:
        assert step["op"] == "add"
        *parents, last = step["path"].split("/")[1:]
        target: Any = result
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        if isinstance(target, list):
            target.insert(len(target) if last == "-" else int(last), step["value"])
        else:
            target[last] = step["value"]
    return result


@given(clusters(), st.data())
@settings(max_examples=scaled(10))
def test_proposed_patches_allow_the_direction(base: Cluster, data: st.DataObject) -> None:
    objects = [data.draw(policies(f"p{n}")) for n in range(3)]
    wide = [data.draw(cluster_policies("c0"))]

    def snapshot(listed: list[dict[str, Any]], cluster_listed: list[dict[str, Any]]) -> Cluster:
        return cluster(
            base.endpoints,
            base.namespaces,
            map(network_policy, listed),
            map(cluster_network_policy, cluster_listed),
            base.nodes,
        )

    before = snapshot(objects, wide)
    blocked = [c for family in (4, 6) for c in packets(before, family) if not judge(before, c).allowed]
    for connection in blocked[:: max(1, len(blocked) // 20)]:
        for direction in DIRECTIONS:
            if judge_direction(before, connection, direction).allowed:
                continue
            for change in changes_for(before, connection, direction):
                namespaced = change.kind == "NetworkPolicy"
                after = snapshot(
                    [patched(o, change.patch) if namespaced and _id(o) == change.policy else o for o in objects],
                    [
                        patched(o, change.patch) if not namespaced and o["metadata"]["name"] == change.policy else o
                        for o in wide
                    ],
                )
                assert judge_direction(after, connection, direction).allowed, (change, connection)
                found = diff(before, after).differences
                assert set(found) == set(change.opens), (change, connection)
                assert all(each.change == OPENED for each in found), (change, connection)


def asked(cluster_: Cluster, source: str, destination: str, protocol: str, port: int) -> Explanation:
    parties = {e.id: primary(e) for e in cluster_.endpoints}
    return explain(cluster_, parties[source], parties[destination], protocol, port)


@given(clusters(), st.data())
@settings(max_examples=scaled(20))
def test_all_that_is_proposed_closes_nothing_and_opens_what_is_told(base: Cluster, data: st.DataObject) -> None:
    objects = [data.draw(policies(f"p{n}")) for n in range(data.draw(st.integers(1, 3)))]
    before = cluster(base.endpoints, base.namespaces, map(network_policy, objects), (), base.nodes)
    verdicts = [(c, judge(before, c)) for c in packets(before, 4)]
    blocked = [c for c, verdict in verdicts if not verdict.allowed and not verdict.ingress.unexposed]
    for connection in blocked[:: max(1, len(blocked) // 10)]:
        told = explain(before, connection.source, connection.destination, connection.protocol, connection.port)
        changed = objects
        for change in told.changes:
            changed = [patched(o, change.patch) if _id(o) == change.policy else o for o in changed]
        after = cluster(base.endpoints, base.namespaces, map(network_policy, changed), (), base.nodes)
        assert judge(after, connection).allowed
        found = diff(before, after).differences
        assert sorted(found, key=str) == sorted(merged(c.opens for c in told.changes), key=str)
        assert set(told.also_opens) == set(beyond((d for c in told.changes for d in c.opens), connection))


def merged(opened: Iterable[Iterable[Difference]]) -> list[Difference]:
    """Differences told one after the other, as one comparison tells them."""
    ports: dict[tuple[str, str, str], set[int]] = {}
    for each in (d for found in opened for d in found):
        assert each.change == OPENED
        ports.setdefault((each.source, each.destination, each.protocol), set()).update(range(each.low, each.high + 1))
    found = []
    for key, numbers in ports.items():
        first = [n for n in sorted(numbers) if n - 1 not in numbers]
        last = [n for n in sorted(numbers) if n + 1 not in numbers]
        found += [Difference(OPENED, *key, low, high) for low, high in zip(first, last, strict=True)]
    return found


def workloads(*specs: str) -> Cluster:
    pods = [
        Endpoint("pod", "a", "web", {"app": "web"}, ("10.0.0.5",), (NamedPort("http", "TCP", 8080),)),
        Endpoint("pod", "a", "fe", {"app": "frontend"}, ("10.0.0.6",)),
        Endpoint("pod", "a", "nolabel", {}, ("10.0.0.7",)),
        Endpoint("pod", "b", "fe", {"app": "frontend"}, ("10.0.1.6",)),
        Endpoint("pod", "b", "nolabel", {}, ("10.0.1.8",)),
        Endpoint("pod", "b", "other", {"app": "other"}, ("10.0.1.7",), (NamedPort("http", "TCP", 9090),)),
    ]
    found = [
        network_policy({"metadata": {"name": f"p{n}", "namespace": "a"}, "spec": yaml.load(s, Loader=yaml.CSafeLoader)})
        for n, s in enumerate(specs)
    ]
    return cluster(pods, {}, found)


OWN = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}]}]}"


def test_a_peer_of_another_namespace_is_added_and_nothing_is_closed() -> None:
    told = asked(workloads(OWN), "pod/b/fe", "pod/a/web", "TCP", 8080)
    (change,) = told.changes
    assert change.patch == (
        {
            "op": "add",
            "path": "/spec/ingress/-",
            "value": {
                "from": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "b"}},
                        "podSelector": {"matchLabels": {"app": "frontend"}},
                    }
                ],
                "ports": [{"protocol": "TCP", "port": 8080}],
            },
        },
    )
    assert [(d.source, d.destination, d.ports) for d in change.opens] == [("pod/b/fe", "pod/a/web", "8080")]
    assert told.also_opens == ()


def test_a_workload_without_labels_is_told_apart_by_what_it_lacks() -> None:
    told = asked(workloads(OWN), "pod/b/nolabel", "pod/a/web", "TCP", 8080)
    (peer,) = told.changes[0].patch[0]["value"]["from"]
    assert peer["podSelector"] == {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}
    assert told.also_opens == ()


def test_what_else_is_opened_is_told() -> None:
    told = asked(workloads("{podSelector: {}}"), "pod/b/fe", "pod/a/web", "TCP", 8080)
    assert {(d.source, d.destination, d.ports) for d in told.also_opens} == {
        ("pod/b/fe", "pod/a/fe", "8080"),
        ("pod/b/fe", "pod/a/nolabel", "8080"),
    }


def test_named_ports_are_told_with_their_numbers() -> None:
    rule = "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"
    told = asked(workloads(rule), "pod/a/fe", "pod/b/other", "TCP", 9090)
    assert told.verdict.allowed
    assert told.port_name == "http"
    assert told.named == ("port http of a/p0/egress[0] is 9090/TCP at pod/b/other",)
    blocked = asked(workloads(rule), "pod/a/fe", "pod/b/other", "TCP", 8080)
    assert (blocked.port_name, blocked.named) == ("", told.named)
    nobody = asked(workloads(rule), "pod/a/web", "pod/b/fe", "TCP", 8080)
    assert nobody.named == ("port http of a/p0/egress[0] is declared by nothing in pod/b/fe",)


def _id(obj: dict[str, Any]) -> str:
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


@given(clusters(), st.data())
@settings(max_examples=scaled(10))
def test_isolation_by_networkpolicy_always_has_a_way_out(base: Cluster, data: st.DataObject) -> None:
    before = cluster(base.endpoints, base.namespaces, [network_policy(data.draw(policies("p")))], (), base.nodes)
    for connection in packets(before, 4)[::7]:
        for direction in DIRECTIONS:
            judgement = judge_direction(before, connection, direction)
            if not judgement.allowed:
                # No policy makes an interface list one more port.
                assert bool(changes_for(before, connection, direction)) is not judgement.unexposed, connection


@given(clusters(), st.data())
@settings(max_examples=scaled(15))
def test_diff_is_the_difference_of_references(old: Cluster, data: st.DataObject) -> None:
    changed = [network_policy(data.draw(policies("p0"))), *old.policies[1:]]
    new = cluster(old.endpoints, old.namespaces, {p.id: p for p in changed}.values(), old.cluster_policies, old.nodes)
    found = diff(old, new)
    told = {(d.change, d.source, d.destination, d.protocol): [] for d in found.differences}  # type: ignore[var-annotated]
    for d in found.differences:
        told[d.change, d.source, d.destination, d.protocol].append((d.low, d.high))
    ends = [e for e in old.endpoints if e.governed]
    for source in ends:
        for destination in ends:
            for protocol, port in (("TCP", 53), ("TCP", 80), ("TCP", 65535), ("UDP", 53), ("OTHER", 0)):
                connection = Connection(
                    Party(source, source.ips[0]), Party(destination, destination.ips[0]), protocol, port
                )
                before, after = (judge(c, connection).allowed for c in (old, new))
                for change, expected in (("opened", after and not before), ("closed", before and not after)):
                    spans = told.get((change, source.id, destination.id, protocol), [])
                    assert any(low <= port <= high for low, high in spans) is expected


def test_diff_sees_the_outside_and_survives_other_workloads() -> None:
    def snapshot(cidr: str, *names: str) -> Cluster:
        spec = {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": cidr}}]}],
        }
        spec["ingress"] = [{"from": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": 80}]}]
        policy = network_policy({"metadata": {"name": "p", "namespace": "a"}, "spec": spec})
        endpoints = [Endpoint("pod", "a", name, {}, (f"10.1.0.{number}",)) for number, name in names_of(names)]
        return cluster(endpoints, policies=[policy])

    def names_of(names: tuple[str, ...]) -> list[tuple[int, str]]:
        return [(ord(name[0]), name) for name in names]

    found = diff(snapshot("192.0.2.0/24", "b", "x"), snapshot("0.0.0.0/0", "a", "b"))
    assert (found.added, found.removed) == (("pod/a/a",), ("pod/a/x",))
    told = {(d.change, d.source, d.destination, d.protocol, d.ports) for d in found.differences}
    assert told == {
        ("opened", "pod/a/b", "ip:0.0.0.0/0", protocol, "all") for protocol in ("TCP", "UDP", "SCTP", "OTHER")
    } | {("opened", "ip:0.0.0.0/0", "pod/a/b", "TCP", "80")}
