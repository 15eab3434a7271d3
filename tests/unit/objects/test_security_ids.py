"""User and group numbers in a Pod: every field ends at 2147483647 and is refused with its path."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.objects.rules import pod
from isoplane.objects.rules.report import Report


def causes(container: dict[str, Any], security: dict[str, Any], *, field: str = "containers") -> list[str]:
    spec: dict[str, Any] = {"containers": [{"name": "c", "image": "i"}], "securityContext": security}
    spec[field] = [{"name": "d", "image": "i", "securityContext": container}]
    report = Report()
    pod.check({"spec": spec}, report)
    return [cause.field for cause in report.causes]


@pytest.mark.parametrize("number", [-1, 2**31, 2**32 - 1, 2**64, "1", True, 1.5])
def test_numbers_out_of_range_are_refused(number: Any) -> None:
    for name in ("runAsUser", "runAsGroup"):
        assert causes({name: number}, {}) == [f"spec.containers[0].securityContext.{name}"]
        assert causes({name: number}, {}, field="initContainers") == [f"spec.initContainers[0].securityContext.{name}"]
    for name in ("runAsUser", "runAsGroup", "fsGroup"):
        assert causes({}, {name: number}) == [f"spec.securityContext.{name}"]
    assert causes({}, {"supplementalGroups": [1, number]}) == ["spec.securityContext.supplementalGroups[1]"]


@pytest.mark.parametrize("number", [0, 1000, 2**31 - 1])
def test_numbers_in_range_are_taken(number: int) -> None:
    security = {"runAsUser": number, "runAsGroup": number}
    assert causes(security, {**security, "fsGroup": number, "supplementalGroups": [number]}) == []
