"""ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) from an object to typed rules.

Tiers Admin and Baseline stand around NetworkPolicy; inside a tier a lower priority number decides first, then the
name, then the order of rules.  ``domainNames`` would need to see DNS answers: it is refused, never half enforced.
Source: network-policy-api apis/v1alpha2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects import names
from isoplane.objects.errors import Cause
from isoplane.objects.selectors import EVERYTHING, Selector
from isoplane.policy.fields import Problems
from isoplane.policy.parse import invalid
from isoplane.policy.rules import (
    ACCEPT,
    ADMIN,
    BASELINE,
    DENY,
    PASS,
    PORT_PROTOCOLS,
    Block,
    ClusterPolicy,
    Peer,
    PortMatch,
    Rule,
)

_LIMIT = 25
_ACTIONS = (ACCEPT, DENY, PASS)


def cluster_network_policy(obj: Mapping[str, Any]) -> ClusterPolicy:
    """The policy that an object describes. Raises Invalid with one cause for each wrong field."""
    policy, problems = _read(obj)
    if problems.causes:
        raise invalid(obj, "ClusterNetworkPolicy", "policy.networking.k8s.io", problems.causes)
    return policy


def problems_of(obj: Mapping[str, Any]) -> tuple[Cause, ...]:
    """What is wrong with the object; empty when it is good."""
    return tuple(_read(obj)[1].causes)


def _read(obj: Mapping[str, Any]) -> tuple[ClusterPolicy, Problems]:
    problems = Problems()
    name = problems.text(problems.mapping(obj.get("metadata"), "metadata").get("name"), "metadata.name")
    if problem := names.dns_subdomain(name):
        problems.add("metadata.name", f'Invalid value: "{name}": {problem}')
    spec = problems.mapping(obj.get("spec"), "spec")
    problems.known(spec, "spec", ("tier", "priority", "subject", "ingress", "egress"))
    tier, priority = spec.get("tier"), spec.get("priority")
    if tier not in (ADMIN, BASELINE):
        problems.unsupported("spec.tier", tier, (ADMIN, BASELINE))
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 1000:
        problems.add("spec.priority", f"Invalid value: {priority}: must be a number between 0 and 1000")
        priority = 0
    spaces, pods = _selection(spec.get("subject"), "spec.subject", problems)
    policy = ClusterPolicy(
        name=name,
        tier=str(tier),
        priority=priority,
        namespaces=spaces,
        pods=pods,
        ingress=_rules(spec, name, "ingress", "from", problems),
        egress=_rules(spec, name, "egress", "to", problems),
    )
    return policy, problems


def _selection(value: Any, path: str, problems: Problems) -> tuple[Selector, Selector]:
    """``namespaces`` or ``pods``, exactly one: selectors over namespaces and over the pods in them."""
    item = problems.mapping(value, path)
    given = [key for key in ("namespaces", "pods") if item.get(key) is not None]
    if len(given) != 1:
        problems.required(path, "Required value: exactly one of namespaces and pods")
        return EVERYTHING, EVERYTHING
    if given == ["namespaces"]:
        return problems.selector(item["namespaces"], f"{path}.namespaces"), EVERYTHING
    pods = problems.mapping(item["pods"], f"{path}.pods")
    problems.known(pods, f"{path}.pods", ("namespaceSelector", "podSelector"))
    if pods.get("podSelector") is None:
        problems.required(f"{path}.pods.podSelector", "Required value: {} selects all pods")
    return (
        problems.selector(pods.get("namespaceSelector"), f"{path}.pods.namespaceSelector"),
        problems.selector(pods.get("podSelector"), f"{path}.pods.podSelector"),
    )


def _bounded(value: Any, path: str, problems: Problems) -> list[Any]:
    items = problems.items(value, path)
    if len(items) > _LIMIT:
        problems.add(path, f"Too many: {len(items)}: must have at most {_LIMIT} items", "FieldValueTooMany")
    return items


def _rules(spec: Mapping[str, Any], policy: str, key: str, peer_key: str, problems: Problems) -> tuple[Rule, ...]:
    rules = []
    for index, item in enumerate(_bounded(spec.get(key), f"spec.{key}", problems)):
        path = f"spec.{key}[{index}]"
        rule = problems.mapping(item, path)
        problems.known(rule, path, ("name", "action", peer_key, "protocols"))
        action = rule.get("action")
        if action not in _ACTIONS:
            problems.unsupported(f"{path}.action", action, _ACTIONS)
        peers: list[Peer] = []
        for i, peer in enumerate(_bounded(rule.get(peer_key), f"{path}.{peer_key}", problems)):
            peers += _peers(peer, f"{path}.{peer_key}[{i}]", key == "egress", problems)
        if not rule.get(peer_key):
            problems.required(f"{path}.{peer_key}", "Required value: at least one peer")
        written = rule.get("protocols")
        ports = [
            _protocol(protocol, f"{path}.protocols[{i}]", problems)
            for i, protocol in enumerate(_bounded(written, f"{path}.protocols", problems))
        ]
        if isinstance(written, list) and not written:
            problems.required(f"{path}.protocols", "Required value: leave it out to match every protocol")
        if any(p.name for p in ports) and any(p.block or p.nodes for p in peers):
            problems.forbidden(f"{path}.protocols", "Forbidden: networks and nodes have no named ports")
        name = problems.text(rule.get("name"), f"{path}.name")
        rules.append(Rule(f"{policy}/{key}[{index}]", tuple(peers), tuple(ports) or None, str(action), name))
    return tuple(rules)


def _peers(value: Any, path: str, egress: bool, problems: Problems) -> list[Peer]:
    item = problems.mapping(value, path)
    if item.get("domainNames") is not None:
        problems.unsupported(f"{path}.domainNames", "domainNames", ("namespaces", "pods", "nodes", "networks"))
        return []
    allowed = ("namespaces", "pods", "nodes", "networks") if egress else ("namespaces", "pods")
    problems.known(item, path, allowed)
    given = [key for key in allowed if item.get(key) is not None]
    if len(given) != 1:
        problems.required(path, f"Required value: exactly one of {', '.join(allowed)}")
        return []
    if given == ["nodes"]:
        return [Peer(nodes=problems.selector(item["nodes"], f"{path}.nodes"))]
    if given == ["networks"]:
        listed = _bounded(item["networks"], f"{path}.networks", problems)
        if not listed:
            problems.required(f"{path}.networks", "Required value: at least one CIDR")
        cidrs = [problems.cidr(cidr, f"{path}.networks[{i}]") for i, cidr in enumerate(listed)]
        return [Peer(block=Block(cidr)) for cidr in cidrs if cidr]
    spaces, pods = _selection(item, path, problems)
    return [Peer(namespaces=spaces, pods=pods)]


def _protocol(value: Any, path: str, problems: Problems) -> PortMatch:
    item = problems.mapping(value, path)
    problems.known(item, path, ("tcp", "udp", "sctp", "destinationNamedPort"))
    if len(item) != 1:
        problems.required(path, "Required value: exactly one of tcp, udp, sctp and destinationNamedPort")
        return PortMatch("TCP")
    key = next(iter(item))
    if key == "destinationNamedPort":
        name = problems.text(item[key], f"{path}.{key}")
        if problem := names.port_name(name):
            problems.add(f"{path}.{key}", f'Invalid value: "{name}": {problem}')
        return PortMatch("", name=name)
    protocol = key.upper()
    if protocol not in PORT_PROTOCOLS:
        return PortMatch("TCP")
    port = problems.mapping(problems.mapping(item[key], f"{path}.{key}").get("destinationPort"), f"{path}.{key}")
    where = f"{path}.{key}.destinationPort"
    if not port:
        return PortMatch(protocol)
    problems.known(port, where, ("number", "range"))
    if len(port) != 1:
        problems.required(where, "Required value: exactly one of number and range")
        return PortMatch(protocol)
    if "number" in port:
        number = problems.port(port["number"], f"{where}.number")
        return PortMatch(protocol, number, number)
    bounds = problems.mapping(port["range"], f"{where}.range")
    low = problems.port(bounds.get("start"), f"{where}.range.start")
    high = problems.port(bounds.get("end"), f"{where}.range.end")
    if low >= high:
        problems.add(f"{where}.range", f"Invalid value: start {low} must be less than end {high}")
    return PortMatch(protocol, low, max(low, high))
