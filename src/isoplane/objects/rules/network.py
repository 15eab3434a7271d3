"""NetworkPolicy and ClusterNetworkPolicy: ports, ranges, addresses and selectors that can be meant."""

from __future__ import annotations

import ipaddress
from typing import Any

from isoplane.objects import names
from isoplane.objects.rules.meta import check_selector
from isoplane.objects.rules.report import Report

_PROTOCOLS = ("TCP", "UDP", "SCTP")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_policy(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    check_selector("spec.podSelector", spec.get("podSelector"), report)
    types = spec.get("policyTypes") or ()
    if len(types) > 2:
        report.too_many("spec.policyTypes", len(types), 2)
    for index, kind in enumerate(types):
        report.one_of(f"spec.policyTypes[{index}]", kind, ("Ingress", "Egress"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            for at, port in enumerate(rule.get("ports") or ()):
                _port(f"{path}.ports[{at}]", port, report)
            for at, peer in enumerate(rule.get(peers) or ()):
                _peer(f"{path}.{peers}[{at}]", peer, report)


def _port(path: str, port: dict[str, Any], report: Report) -> None:
    report.one_of(f"{path}.protocol", port.get("protocol"), _PROTOCOLS)
    number, end = port.get("port"), port.get("endPort")
    if isinstance(number, int):
        report.port(f"{path}.port", number)
        if end is not None:
            report.port(f"{path}.endPort", end)
            if end < number:
                report.invalid(f"{path}.endPort", end, "must be greater than or equal to `port`")
    elif number is not None:
        report.text(f"{path}.port", number, names.port_name(str(number)))
        if end is not None:
            report.required(f"{path}.endPort", "may not be specified when `port` is non-numeric")
    elif end is not None:
        report.required(f"{path}.endPort", "may not be specified when `port` is not specified")


def _peer(path: str, peer: dict[str, Any], report: Report) -> None:
    block = peer.get("ipBlock")
    selectors = [field for field in ("podSelector", "namespaceSelector") if peer.get(field) is not None]
    if block is None and not selectors:
        report.required(path, "must specify a peer")
    if block is not None and selectors:
        report.forbidden(path, "may not specify both ipBlock and another peer")
    for field in selectors:
        check_selector(f"{path}.{field}", peer[field], report)
    if block is None:
        return
    network = cidr(f"{path}.ipBlock.cidr", block.get("cidr"), report)
    for index, text in enumerate(block.get("except") or ()):
        where = f"{path}.ipBlock.except[{index}]"
        hole = cidr(where, text, report)
        if network is None or hole is None:
            continue
        if network.version != hole.version or not _strictly_inside(hole, network):
            report.invalid(where, text, f"must be a strict subset of `cidr`: {block.get('cidr')}")


def cidr(path: str, text: Any, report: Report) -> _Network | None:
    """An address range; None (and noted) when it is none."""
    if not text:
        report.required(path)
        return None
    try:
        if "/" not in str(text):
            raise ValueError
        return ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        report.invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
        return None


def _strictly_inside(inner: _Network, outer: _Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer) and inner != outer
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer) and inner != outer
    return False


def check_cluster_policy(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    _pods("spec.subject", spec.get("subject") or {}, report)
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            named = False
            for at, protocol in enumerate(rule.get("protocols") or ()):
                named = named or protocol.get("destinationNamedPort") is not None
                _protocol(f"{path}.protocols[{at}]", protocol, report)
            for at, peer in enumerate(rule.get(peers) or ()):
                _cluster_peer(f"{path}.{peers}[{at}]", peer, rule, named, report)


def _cluster_peer(path: str, peer: dict[str, Any], rule: dict[str, Any], named: bool, report: Report) -> None:
    _pods(path, peer, report)
    check_selector(f"{path}.nodes", peer.get("nodes"), report)
    for index, text in enumerate(peer.get("networks") or ()):
        cidr(f"{path}.networks[{index}]", text, report)
    outside = [field for field in ("networks", "nodes", "domainNames") if peer.get(field) is not None]
    if named and outside:
        text = "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for them"
        report.invalid(path, outside, text)
    if peer.get("domainNames") is not None and rule.get("action") != "Accept":
        report.invalid(f"{path}.domainNames", peer["domainNames"], "domainNames are only supported for Accept rules")


def _pods(path: str, peer: dict[str, Any], report: Report) -> None:
    check_selector(f"{path}.namespaces", peer.get("namespaces"), report)
    if pods := peer.get("pods"):
        check_selector(f"{path}.pods.namespaceSelector", pods.get("namespaceSelector"), report)
        check_selector(f"{path}.pods.podSelector", pods.get("podSelector"), report)


def _protocol(path: str, protocol: dict[str, Any], report: Report) -> None:
    if (name := protocol.get("destinationNamedPort")) is not None:
        report.text(f"{path}.destinationNamedPort", name, names.port_name(name))
    for kind in ("tcp", "udp", "sctp"):
        port = (protocol.get(kind) or {}).get("destinationPort") or {}
        span = port.get("range")
        if span and span["start"] >= span["end"]:
            report.invalid(f"{path}.{kind}.destinationPort.range", span, "Start port must be less than End port")
