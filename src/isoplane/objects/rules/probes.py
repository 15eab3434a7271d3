"""Probes and life-cycle hooks, of containers and of virtual machines alike."""

from __future__ import annotations

from typing import Any

from isoplane.objects import names
from isoplane.objects.rules.report import Report

_COUNTS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_CONTAINER_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")


def check(
    path: str,
    probe: dict[str, Any] | None,
    report: Report,
    *,
    handlers: tuple[str, ...] = _CONTAINER_HANDLERS,
    single_success: bool = False,
) -> None:
    """One probe; ``single_success`` for liveness and startup, where one success is all there is."""
    if not probe:
        return
    check_handler(path, probe, report, handlers)
    for field in _COUNTS:
        report.not_negative(f"{path}.{field}", probe.get(field))
    if single_success and probe.get("successThreshold") not in (None, 0, 1):
        report.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
    if probe.get("terminationGracePeriodSeconds") is not None:
        report.positive(f"{path}.terminationGracePeriodSeconds", probe["terminationGracePeriodSeconds"])


def check_handler(path: str, handler: dict[str, Any], report: Report, handlers: tuple[str, ...]) -> None:
    """Exactly one handler, and that one complete."""
    found = [name for name in handlers if handler.get(name) is not None]
    if not found:
        report.required(path, "must specify a handler type")
    for name in found[1:]:
        report.forbidden(f"{path}.{name}", "may not specify more than 1 handler type")
    if (action := handler.get("exec")) is not None and not action.get("command"):
        report.required(f"{path}.exec.command")
    if (action := handler.get("httpGet")) is not None:
        check_port(f"{path}.httpGet.port", action.get("port"), report)
        report.one_of(f"{path}.httpGet.scheme", action.get("scheme"), ("HTTP", "HTTPS"))
        for index, header in enumerate(action.get("httpHeaders") or ()):
            if not header.get("name"):
                report.required(f"{path}.httpGet.httpHeaders[{index}].name")
    if (action := handler.get("tcpSocket")) is not None:
        check_port(f"{path}.tcpSocket.port", action.get("port"), report)
    if (action := handler.get("grpc")) is not None:
        report.port(f"{path}.grpc.port", action.get("port"))


def check_port(path: str, port: Any, report: Report) -> None:
    """A port by number or by name."""
    if isinstance(port, int):
        report.port(path, port)
    elif not port:
        report.required(path)
    else:
        report.text(path, port, names.port_name(str(port)))
