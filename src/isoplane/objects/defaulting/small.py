"""Defaults of the kinds with a field or two to fill in. Source: Kubernetes pkg/apis/*/v1/defaults.go."""

from __future__ import annotations

import base64
from typing import Any

from isoplane.objects.accounting import GUEST_PLUS_OVERHEAD, NEWEST_KUBEVIRT
from isoplane.objects.defaulting.shape import mapping, mappings


def namespace(obj: dict[str, Any]) -> None:
    meta = mapping(obj, "metadata")
    if meta is None or not isinstance(name := meta.get("name"), str) or not name:
        return
    labels = meta.setdefault("labels", {})
    if isinstance(labels, dict):
        labels["kubernetes.io/metadata.name"] = name


def node(obj: dict[str, Any]) -> None:
    status = mapping(obj, "status")
    if status is not None and (capacity := mapping(status, "capacity")):
        status.setdefault("allocatable", dict(capacity))


def secret(obj: dict[str, Any]) -> None:
    """The type, and ``stringData`` folded into ``data``: it is a way to write, never read back."""
    obj.setdefault("type", "Opaque")
    plain = mapping(obj, "stringData")
    if plain is None or not all(isinstance(value, str) for value in plain.values()):
        return
    data = obj.setdefault("data", {})
    if isinstance(data, dict):
        for key, value in plain.items():
            data[key] = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()
        del obj["stringData"]


def limitrange(obj: dict[str, Any]) -> None:
    for limit in mappings(mapping(obj, "spec"), "limits"):
        if limit.get("type") != "Container":
            continue
        default = {**(mapping(limit, "max") or {}), **(mapping(limit, "default") or {})}
        request = {**(mapping(limit, "min") or {}), **default, **(mapping(limit, "defaultRequest") or {})}
        if default and isinstance(limit.get("default", {}), dict):
            limit["default"] = default
        if request and isinstance(limit.get("defaultRequest", {}), dict):
            limit["defaultRequest"] = request


def priorityclass(obj: dict[str, Any]) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def networkpolicy(obj: dict[str, Any]) -> None:
    spec = mapping(obj, "spec")
    if spec is None:
        return
    for direction in ("ingress", "egress"):
        for rule in mappings(spec, direction):
            for port in mappings(rule, "ports"):
                port.setdefault("protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def quotapolicy(obj: dict[str, Any]) -> None:
    spec = mapping(obj, "spec")
    if spec is not None:
        spec.setdefault("vmAccounting", GUEST_PLUS_OVERHEAD)
        spec.setdefault("kubevirtVersion", NEWEST_KUBEVIRT)
