"""Selectable fields: upstream's paths, values as text, booleans that are false when absent."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.objects.kinds import CONFIGMAPS, EVENTS, NODES, PODS
from isoplane.store.fields import position, values


@pytest.mark.parametrize(
    ("obj", "path", "expected"),
    [
        ({}, "spec.nodeName", ""),
        ({"spec": {"nodeName": "n"}}, "spec.nodeName", "n"),
        ({"spec": {}}, "spec.hostNetwork", "false"),
        ({"spec": {"hostNetwork": True}}, "spec.hostNetwork", "true"),
        ({"spec": {"hostNetwork": False}}, "spec.hostNetwork", "false"),
        ({"status": {"phase": "Running"}}, "status.phase", "Running"),
        ({"status": None}, "status.phase", ""),
        ({"status": "odd"}, "status.phase", ""),
    ],
)
def test_values_of_a_pod(obj: dict[str, Any], path: str, expected: str) -> None:
    place = position(PODS, path)
    assert place is not None
    assert values(PODS, obj)[place] == expected


def test_an_events_source_is_its_component() -> None:
    place = position(EVENTS, "source")
    assert place is not None
    assert values(EVENTS, {"source": {"component": "kubelet", "host": "h"}, "reason": "R"})[place] == "kubelet"


def test_what_cannot_be_selected() -> None:
    assert values(CONFIGMAPS, {"data": {}}) == ()
    assert position(NODES, "spec.podCIDR") is None
