"""The memory a machine takes beside its guest, term by term; whole launchers: test_kubevirt_launchers."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.objects.topology import vcpus
from isoplane.workload.kubevirt import FORMULAS, MI
from isoplane.workload.overhead import memory_overhead

GI = 1024 * MI


def machine(**domain: Any) -> dict[str, Any]:
    return {"domain": {"cpu": {"cores": 1}, "memory": {"guest": "1Gi"}, "devices": {}, **domain}}


NEWEST = FORMULAS["1.9"]


@pytest.mark.parametrize(
    ("version", "expected"), [("1.4", 249), ("1.5", 254), ("1.6", 270), ("1.7", 270), ("1.8", 270), ("1.9", 270)]
)
def test_one_vcpu_one_gibibyte_with_graphics(version: str, expected: int) -> None:
    # KubeVirt's page tables come from the request in whole kilobytes, rounded up: 2097152.3 bytes, cut.
    assert memory_overhead(machine(), GI, FORMULAS[version]) == expected * MI


BASE = memory_overhead(machine(), GI, NEWEST)


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        (machine(devices={"autoattachGraphicsDevice": False}), -32),
        (machine(cpu={"cores": 2, "sockets": 2, "threads": 1}), 24),
        ({**machine(), "architecture": "arm64"}, 128),
        (machine(devices={"gpus": [{"name": "a", "deviceName": "vendor.example/gpu"}]}), 1024),
        (machine(devices={"interfaces": [{"name": "n", "sriov": {}}]}), 1024),
        ({**machine(), "volumes": [{"name": "m", "downwardMetrics": {}}]}, 1),
        ({**machine(), "livenessProbe": {"exec": {"command": ["true"]}}}, 110),
        (
            {
                **machine(),
                "livenessProbe": {"exec": {"command": ["a"]}},
                "readinessProbe": {"exec": {"command": ["b"]}},
            },
            120,
        ),
        ({**machine(), "readinessProbe": {"tcpSocket": {"port": 1}}}, 0),
        (machine(launchSecurity={"sev": {}}), 256),
        (machine(devices={"tpm": {}}), 53),
        (machine(devices={"tpm": {"enabled": False}}), 0),
        (machine(cpu={"cores": 1, "dedicatedCpuPlacement": True}), 100),
        (
            machine(resources={"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": 1, "memory": "1024Mi"}}),
            100,
        ),
    ],
)
def test_each_term(spec: dict[str, Any], more: int) -> None:
    assert memory_overhead(spec, GI, NEWEST) - BASE == more * MI


@pytest.mark.parametrize(("version", "spared"), [("1.5", True), ("1.6", False)])
def test_ratio_multiplies_all_but_what_stands_behind_it(version: str, spared: bool) -> None:
    formula = FORMULAS[version]
    pinned = machine(cpu={"cores": 1, "dedicatedCpuPlacement": True})
    base = memory_overhead(pinned, GI, formula)
    multiplied = base - (100 * MI if spared else 0)
    assert memory_overhead(pinned, GI, formula, ratio="1.5") == base + -(-multiplied // 1000) // 2 * 1000


def test_passt_comes_behind_the_ratio() -> None:
    spec = machine(devices={"interfaces": [{"name": "n", "passtBinding": {}}]})
    for ratio in (1, "1.5"):
        assert (
            memory_overhead(spec, GI, NEWEST, ratio=ratio) - memory_overhead(machine(), GI, NEWEST, ratio=ratio)
            == 250 * MI
        )


@pytest.mark.parametrize(
    ("domain", "count"),
    [
        ({}, 1),
        ({"cpu": {}}, 1),
        ({"cpu": {"sockets": 2, "cores": 3}}, 6),
        ({"cpu": {"model": "host-passthrough"}}, 1),
        ({"cpu": {"dedicatedCpuPlacement": True}, "resources": {"requests": {"cpu": 3}}}, 3),
        ({"resources": {"requests": {"cpu": "2500m"}}}, 3),
        ({"resources": {"requests": {"cpu": 1}, "limits": {"cpu": 4}}}, 4),
    ],
)
def test_vcpus(domain: dict[str, Any], count: int) -> None:
    assert vcpus(domain) == count
