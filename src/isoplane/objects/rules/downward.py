"""What a container may be told of its Pod: fields and amounts of resources. Source: pkg/apis/core/validation."""

from __future__ import annotations

import re
from typing import Any

from isoplane.objects.rules.report import Report

_FILES = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_VARIABLES = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_SUBSCRIPT = re.compile(r"metadata\.(annotations|labels)\['[^']+'\]")
_RESOURCES = ("limits.cpu", "limits.memory", "requests.cpu", "requests.memory")
"""Upstream tells of ephemeral-storage and huge pages too, which no container here is told."""


def check_field(path: str, reference: dict[str, Any] | None, report: Report, *, variable: bool) -> None:
    """A fieldRef, of an environment variable or of a file in a volume."""
    if reference is None:
        return
    field = reference.get("fieldPath") or ""
    if not field:
        report.required(f"{path}.fieldPath")
    elif not _SUBSCRIPT.fullmatch(field):
        report.one_of(f"{path}.fieldPath", field, _VARIABLES if variable else _FILES)


def check_resource(path: str, reference: dict[str, Any] | None, report: Report, *, variable: bool) -> None:
    """A resourceFieldRef; in a volume it has to name the container."""
    if reference is None:
        return
    if not reference.get("resource"):
        report.required(f"{path}.resource")
    report.one_of(f"{path}.resource", reference.get("resource"), _RESOURCES)
    if not variable and not reference.get("containerName"):
        report.required(f"{path}.containerName")
    if reference.get("divisor") is not None:
        report.quantity(f"{path}.divisor", "memory", reference["divisor"])
