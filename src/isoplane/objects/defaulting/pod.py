"""Defaults of a Pod. Source: Kubernetes pkg/apis/core/v1/defaults.go."""

from __future__ import annotations

from typing import Any

from isoplane.objects.defaulting.shape import mapping, mappings

_FILE_MODE = 0o644
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_FILE_SOURCES = ("secret", "configMap", "downwardAPI", "projected")


def apply(obj: dict[str, Any]) -> None:
    spec = mapping(obj, "spec")
    if spec is None:
        return
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("enableServiceLinks", True)
    host_network = spec.get("hostNetwork") is True
    for field in ("initContainers", "containers"):
        for container in mappings(spec, field):
            _container(container, host_network)
    for volume in mappings(spec, "volumes"):
        _volume(volume)


def pull_policy(image: Any) -> str:
    """Always for the tag ``latest`` or none at all, else IfNotPresent."""
    reference = image if isinstance(image, str) else ""
    if "@" in reference:
        return "IfNotPresent"
    tag = reference.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def probe(value: dict[str, Any] | None) -> None:
    """Defaults of one probe, of a container or of a virtual machine."""
    if value is None:
        return
    for field, default in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not value.get(field):
            value[field] = default
    _handler(value)


def _container(container: dict[str, Any], host_network: bool) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image"))
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    if limits := mapping(resources, "limits"):
        requests = resources.setdefault("requests", {})
        if isinstance(requests, dict):
            for name, amount in limits.items():
                requests.setdefault(name, amount)
    for port in mappings(container, "ports"):
        port.setdefault("protocol", "TCP")
        if host_network and "containerPort" in port:
            port.setdefault("hostPort", port["containerPort"])
    for name in _PROBES:
        probe(mapping(container, name))
    for hook in (mapping(container, "lifecycle") or {}).values():
        _handler(hook)
    for variable in mappings(container, "env"):
        if "valueFrom" in variable:
            _field_reference(mapping(variable, "valueFrom"))


def _handler(handler: Any) -> None:
    if (action := mapping(handler, "httpGet")) is not None:
        action.setdefault("path", "/")
        action.setdefault("scheme", "HTTP")
    if (action := mapping(handler, "grpc")) is not None:
        action.setdefault("service", "")


def _field_reference(source: dict[str, Any] | None) -> None:
    if (reference := mapping(source, "fieldRef")) is not None:
        reference.setdefault("apiVersion", "v1")


def _volume(volume: dict[str, Any]) -> None:
    if len(volume) <= 1:
        volume["emptyDir"] = {}
    for field in _FILE_SOURCES:
        if (source := mapping(volume, field)) is not None:
            source.setdefault("defaultMode", _FILE_MODE)
    for item in mappings(mapping(volume, "downwardAPI"), "items"):
        _field_reference(item)
    for source in mappings(mapping(volume, "projected"), "sources"):
        if (token := mapping(source, "serviceAccountToken")) is not None:
            token.setdefault("expirationSeconds", 3600)
        for item in mappings(mapping(source, "downwardAPI"), "items"):
            _field_reference(item)
    if (path := mapping(volume, "hostPath")) is not None:
        path.setdefault("type", "")
