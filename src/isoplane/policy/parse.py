"""NetworkPolicy (networking.k8s.io/v1) from an object to typed rules, with every problem named by its field path.

The API server calls ``problems_of`` at admission, everyone else ``network_policy``.  The rules of the API live here:
policyTypes' default, nil against empty, endPort, named ports, exceptions inside their block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from isoplane.objects import names
from isoplane.objects.errors import Cause, Invalid
from isoplane.policy.collector import collector_paused
from isoplane.policy.fields import Problems
from isoplane.policy.rules import (
    DIRECTIONS,
    EGRESS,
    INGRESS,
    PORT_PROTOCOLS,
    Block,
    Peer,
    Policy,
    PortMatch,
    Rule,
)


def network_policy(obj: Mapping[str, Any]) -> Policy:
    """The policy that an object describes. Raises Invalid with one cause for each wrong field."""
    policy, problems = _read(obj)
    if problems.causes:
        raise invalid(obj, "NetworkPolicy", "networking.k8s.io", problems.causes)
    return policy


def network_policies(objects: Iterable[Mapping[str, Any]]) -> list[Policy]:
    """The policies that many objects describe. Raises Invalid for the first that is wrong."""
    with collector_paused():
        return [network_policy(obj) for obj in objects]


def problems_of(obj: Mapping[str, Any]) -> tuple[Cause, ...]:
    """What is wrong with the object; empty when it is good."""
    return tuple(_read(obj)[1].causes)


def invalid(obj: Mapping[str, Any], kind: str, group: str, causes: list[Cause]) -> Invalid:
    """The 422 that the API answers, in Kubernetes' words."""
    metadata = obj.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
    listed = "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
    details = {"name": name, "group": group, "kind": kind}
    return Invalid(f'{kind}.{group} "{name}" is invalid: {listed}', causes=causes, details=details)


def _read(obj: Mapping[str, Any]) -> tuple[Policy, Problems]:
    problems = Problems()
    metadata = problems.mapping(obj.get("metadata"), "metadata")
    name = problems.text(metadata.get("name"), "metadata.name")
    namespace = problems.text(metadata.get("namespace"), "metadata.namespace") or "default"
    if problem := names.dns_subdomain(name):
        problems.add("metadata.name", f'Invalid value: "{name}": {problem}')
    if problem := names.dns_label(namespace):
        problems.add("metadata.namespace", f'Invalid value: "{namespace}": {problem}')
    if not obj.get("spec"):
        problems.required("spec", "Required value: a NetworkPolicy without a spec selects nothing knowable")
    spec = problems.mapping(obj.get("spec"), "spec")
    problems.known(spec, "spec", ("podSelector", "policyTypes", "ingress", "egress"))
    subjects = problems.selector(spec.get("podSelector"), "spec.podSelector")
    types = _policy_types(spec, problems)
    rules = {direction: _rules(spec, f"{namespace}/{name}", namespace, direction, problems) for direction in DIRECTIONS}
    policy = Policy(
        namespace=namespace,
        name=name,
        subjects=subjects,
        ingress=rules[INGRESS] if INGRESS in types else None,
        egress=rules[EGRESS] if EGRESS in types else None,
        ignored=tuple(rule for direction in DIRECTIONS if direction not in types for rule in rules[direction]),
        types_written=bool(spec.get("policyTypes")),
        empty_egress=spec.get("egress") == [],
    )
    return policy, problems


def _policy_types(spec: Mapping[str, Any], problems: Problems) -> frozenset[str]:
    """Absent: Ingress always, Egress only when there are egress rules."""
    written = problems.items(spec.get("policyTypes"), "spec.policyTypes")
    if not written:
        return frozenset(DIRECTIONS if spec.get("egress") else (INGRESS,))
    if len(written) > len(DIRECTIONS):
        problems.add("spec.policyTypes", "Invalid value: may not specify more than two policyTypes")
    for index, item in enumerate(written):
        if item not in DIRECTIONS:
            problems.unsupported(f"spec.policyTypes[{index}]", item, DIRECTIONS)
    return frozenset(str(item) for item in written)


def _rules(
    spec: Mapping[str, Any], policy: str, namespace: str, direction: str, problems: Problems
) -> tuple[Rule, ...]:
    key, peer_key = ("ingress", "from") if direction == INGRESS else ("egress", "to")
    written = spec.get(key)
    if written is None:
        return ()
    rules = []
    for index, item in enumerate(problems.items(written, f"spec.{key}")):
        path = f"spec.{key}[{index}]"
        rule = problems.mapping(item, path)
        problems.known(rule, path, ("ports", peer_key))
        peers = [
            _peer(peer, f"{path}.{peer_key}[{i}]", namespace, problems)
            for i, peer in enumerate(problems.items(rule.get(peer_key), f"{path}.{peer_key}"))
        ]
        ports = [
            _port(port, f"{path}.ports[{i}]", problems)
            for i, port in enumerate(problems.items(rule.get("ports"), f"{path}.ports"))
        ]
        # Absent and empty mean the same here: every peer, every port.
        rules.append(Rule(f"{policy}/{key}[{index}]", tuple(peers) or None, tuple(ports) or None))
    return tuple(rules)


def _peer(value: Any, path: str, namespace: str, problems: Problems) -> Peer:
    item = problems.mapping(value, path)
    problems.known(item, path, ("podSelector", "namespaceSelector", "ipBlock"))
    # A selector that is present and empty selects everything; one that is absent (or null) is not there.
    pods, spaces, block = (item.get(key) for key in ("podSelector", "namespaceSelector", "ipBlock"))
    if pods is None and spaces is None and block is None:
        problems.required(path, "Required value: must specify a peer (podSelector, namespaceSelector or ipBlock)")
        return Peer()
    if block is not None:
        if pods is not None or spaces is not None:
            problems.forbidden(path, "Forbidden: may not specify both ipBlock and another peer")
        return Peer(block=_block(block, f"{path}.ipBlock", problems))
    return Peer(
        namespace=namespace if spaces is None else None,
        namespaces=None if spaces is None else problems.selector(spaces, f"{path}.namespaceSelector"),
        pods=None if pods is None else problems.selector(pods, f"{path}.podSelector"),
    )


def _block(value: Any, path: str, problems: Problems) -> Block | None:
    item = problems.mapping(value, path)
    problems.known(item, path, ("cidr", "except"))
    cidr = problems.cidr(item.get("cidr"), f"{path}.cidr")
    excepts = []
    for index, written in enumerate(problems.items(item.get("except"), f"{path}.except")):
        hole = problems.cidr(written, f"{path}.except[{index}]")
        if hole is None or cidr is None:
            continue
        if not cidr.covers(hole) or hole.length == cidr.length:
            problems.add(f"{path}.except[{index}]", f'Invalid value: "{written}": must be a strict subset of {cidr}')
        excepts.append(hole)
    return Block(cidr, tuple(excepts)) if cidr else None


def _port(value: Any, path: str, problems: Problems) -> PortMatch:
    item = problems.mapping(value, path)
    problems.known(item, path, ("protocol", "port", "endPort"))
    protocol = "TCP" if item.get("protocol") is None else item["protocol"]
    if protocol not in PORT_PROTOCOLS:
        problems.unsupported(f"{path}.protocol", protocol, PORT_PROTOCOLS)
        protocol = "TCP"
    port, end = item.get("port"), item.get("endPort")
    if port is None:
        if end is not None:
            problems.required(f"{path}.port", "Required value: must be specified when endPort is")
        return PortMatch(protocol)
    if isinstance(port, str):
        if problem := names.port_name(port):
            problems.add(f"{path}.port", f'Invalid value: "{port}": {problem}')
        if end is not None:
            problems.forbidden(f"{path}.endPort", "Forbidden: may not be specified when port is a name")
        return PortMatch(protocol, name=port)
    low = problems.port(port, f"{path}.port")
    high = low if end is None else problems.port(end, f"{path}.endPort")
    if high < low and end is not None:
        problems.add(f"{path}.endPort", f"Invalid value: {end}: must be greater than or equal to port {port}")
        high = low
    return PortMatch(protocol, low, high)
