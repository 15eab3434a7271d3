"""Which fields would send the node to a host of the author's choice: every one is named."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.server.probe_host_admission import hosts

HTTP = {"httpGet": {"port": 80, "host": "10.0.0.1"}}
TCP = {"tcpSocket": {"port": 80, "host": "db"}}


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({"containers": [{"livenessProbe": HTTP}]}, ["spec.containers[0].livenessProbe.httpGet.host"]),
        ({"containers": [{}, {"readinessProbe": TCP}]}, ["spec.containers[1].readinessProbe.tcpSocket.host"]),
        ({"initContainers": [{"startupProbe": HTTP}]}, ["spec.initContainers[0].startupProbe.httpGet.host"]),
        (
            {"containers": [{"lifecycle": {"postStart": HTTP, "preStop": TCP}}]},
            ["spec.containers[0].lifecycle.postStart.httpGet.host", "spec.containers[0].lifecycle.preStop.tcpSocket.host"],
        ),
        ({"readinessProbe": HTTP, "domain": {}}, ["spec.readinessProbe.httpGet.host"]),
        ({"template": {"spec": {"livenessProbe": TCP}}}, ["spec.template.spec.livenessProbe.tcpSocket.host"]),
        ({"containers": [{"livenessProbe": {"httpGet": {"port": 1, "host": ""}}, "readinessProbe": None}]}, []),
    ],
)  # fmt: skip
def test_every_host_is_named(spec: dict[str, Any], paths: list[str]) -> None:
    assert [path for path, _ in hosts({"spec": spec})] == paths
