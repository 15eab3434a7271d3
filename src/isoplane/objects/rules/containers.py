"""The containers of a Pod: names, images, ports, environment, mounts, probes. Source: pkg/apis/core/validation."""

from __future__ import annotations

from typing import Any

from isoplane.objects import names
from isoplane.objects.rules import downward, probes, resources, security
from isoplane.objects.rules.report import Report

PROTOCOLS = ("SCTP", "TCP", "UDP")
_HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def check_all(spec: dict[str, Any], volumes: set[str], report: Report) -> None:
    """``containers`` and ``initContainers`` of a Pod's spec; ``volumes`` are the names that may be mounted."""
    taken: set[str] = set()
    host_ports: set[tuple[str, str, int]] = set()
    for field in ("initContainers", "containers"):
        init = field == "initContainers"
        for index, container in enumerate(spec.get(field) or ()):
            path = f"spec.{field}[{index}]"
            name = container.get("name") or ""
            if not name:
                report.required(f"{path}.name")
            elif name in taken:
                report.duplicate(f"{path}.name", name)
            else:
                report.text(f"{path}.name", name, names.dns_label(name))
            taken.add(name)
            _check(path, container, volumes, report, init=init)
            for at, port in enumerate(container.get("ports") or ()):
                _port(f"{path}.ports[{at}]", port, report, bool(spec.get("hostNetwork")))
                if not init and port.get("hostPort"):
                    key = (port.get("hostIP") or "", port.get("protocol") or "TCP", port["hostPort"])
                    if key in host_ports:
                        report.duplicate(f"{path}.ports[{at}].hostPort", port["hostPort"])
                    host_ports.add(key)
    if not spec.get("containers"):
        report.required("spec.containers")
    if spec.get("ephemeralContainers"):
        report.forbidden("spec.ephemeralContainers", "cannot be set on create")


def _check(path: str, container: dict[str, Any], volumes: set[str], report: Report, *, init: bool) -> None:
    image = container.get("image") or ""
    if not image:
        report.required(f"{path}.image")
    elif image != image.strip():
        report.invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    report.one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), ("Always", "IfNotPresent", "Never"))
    report.one_of(
        f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), ("File", "FallbackToLogsOnError")
    )
    resources.check(f"{path}.resources", container.get("resources"), report)
    security.check_container(path, container, report)
    if environment := container.get("env"):
        _environment(path, environment, report)
    for index, source in enumerate(container.get("envFrom") or ()):
        if (source.get("configMapRef") is None) == (source.get("secretRef") is None):
            report.invalid(f"{path}.envFrom[{index}]", source, "must specify one of: `configMapRef` or `secretRef`")
    if mounts := container.get("volumeMounts"):
        _mounts(path, mounts, volumes, report)
    restart = container.get("restartPolicy")
    sidecar = init and restart == "Always"
    if restart and not sidecar:
        if init:
            report.unsupported(f"{path}.restartPolicy", restart, ("Always",))
        else:
            report.forbidden(f"{path}.restartPolicy", "may not be set for non-init containers")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe and init and not sidecar:
            report.forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")
        elif probe:
            probes.check(f"{path}.{name}", probe, report, single_success=name != "readinessProbe")
    for hook, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            probes.check_handler(f"{path}.lifecycle.{hook}", handler, report, _HOOKS)
    _names_of_ports(path, container.get("ports") or (), report)


def _port(path: str, port: dict[str, Any], report: Report, host_network: bool) -> None:
    report.port(f"{path}.containerPort", port.get("containerPort"))
    if name := port.get("name"):
        report.text(f"{path}.name", name, names.port_name(name))
    if port.get("hostPort"):
        report.port(f"{path}.hostPort", port["hostPort"])
        if host_network and port["hostPort"] != port.get("containerPort"):
            report.invalid(
                f"{path}.hostPort", port["hostPort"], "must match `containerPort` when `hostNetwork` is true"
            )
    report.one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS)


def _names_of_ports(path: str, ports: Any, report: Report) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name")
        if name and name in seen:
            report.duplicate(f"{path}.ports[{index}].name", name)
        seen.add(name)


def _environment(path: str, environment: list[dict[str, Any]], report: Report) -> None:
    for index, variable in enumerate(environment):
        where, name = f"{path}.env[{index}]", variable.get("name") or ""
        if not name:
            report.required(f"{where}.name")
        elif "=" in name or not name.isprintable() or not name.isascii():
            report.invalid(f"{where}.name", name, "must consist only of printable ASCII characters other than '='")
        source = variable.get("valueFrom")
        if source is None:
            continue
        found = [field for field in _ENV_SOURCES if source.get(field) is not None]
        if variable.get("value"):
            report.invalid(f"{where}.valueFrom", "", "may not be specified when `value` is not empty")
        elif len(found) != 1:
            text = (
                "may not have more than one field specified at a time"
                if found
                else f"must specify one of: {_ENV_SOURCES}"
            )
            report.invalid(f"{where}.valueFrom", "", text)
        for field in ("configMapKeyRef", "secretKeyRef"):
            if source.get(field) is not None and not source[field].get("key"):
                report.required(f"{where}.valueFrom.{field}.key")
        downward.check_field(f"{where}.valueFrom.fieldRef", source.get("fieldRef"), report, variable=True)
        amount = source.get("resourceFieldRef")
        downward.check_resource(f"{where}.valueFrom.resourceFieldRef", amount, report, variable=True)


def _mounts(path: str, mounts: list[dict[str, Any]], volumes: set[str], report: Report) -> None:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"{path}.volumeMounts[{index}]"
        name, target = mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            report.required(f"{where}.name")
        elif name not in volumes:
            report.not_found(f"{where}.name", name)
        if not target:
            report.required(f"{where}.mountPath")
        elif target in seen:
            report.invalid(f"{where}.mountPath", target, "must be unique")
        seen.add(target)
        if mount.get("subPath") and mount.get("subPathExpr"):
            report.invalid(
                f"{where}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
            )
        _recursive(where, mount, report)
        for field in ("subPath", "subPathExpr"):
            check_relative(f"{where}.{field}", mount.get(field), report)


def _recursive(path: str, mount: dict[str, Any], report: Report) -> None:
    """recursiveReadOnly needs a read-only mount that propagates nothing."""
    wanted = mount.get("recursiveReadOnly")
    report.one_of(f"{path}.recursiveReadOnly", wanted, ("Disabled", "IfPossible", "Enabled"))
    if wanted not in ("IfPossible", "Enabled"):
        return
    if not mount.get("readOnly"):
        report.forbidden(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true")
    if mount.get("mountPropagation") not in (None, "None"):
        report.forbidden(
            f"{path}.recursiveReadOnly", "may only be specified when mountPropagation is None or not specified"
        )


def check_relative(path: str, value: str | None, report: Report) -> None:
    """A path inside a volume: neither absolute nor climbing out."""
    if not value:
        return
    if value.startswith("/"):
        report.invalid(path, value, "must be a relative path")
    if ".." in value.split("/"):
        report.invalid(path, value, "must not contain '..'")
