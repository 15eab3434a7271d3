"""The memory a machine takes beside its guest, term by term, against KubeVirt's published checks."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.workload.overhead import MI, VERSIONS, memory_overhead, vcpus

GI = 1024 * MI


def machine(**domain: Any) -> dict[str, Any]:
    return {"domain": {"cpu": {"cores": 1}, "memory": {"guest": "1Gi"}, "devices": {}, **domain}}


@pytest.mark.parametrize(("version", "expected"), [("1.9", 270), ("1.10", 290)])
def test_one_vcpu_one_gibibyte_with_graphics(version: str, expected: int) -> None:
    # KubeVirt's page tables come from the request in whole kilobytes, rounded up: 2097152.3 bytes, cut.
    assert memory_overhead(machine(), GI, version) == expected * MI


BASE = memory_overhead(machine(), GI)


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
    assert memory_overhead(spec, GI) - BASE == more * MI


def test_ratio_multiplies_and_binding_comes_last() -> None:
    kilobytes = -(-BASE // 1000)
    assert memory_overhead(machine(), GI, ratio="1.5", binding=7) == BASE + kilobytes // 2 * 1000 + 7


def test_unknown_version_names_the_known() -> None:
    with pytest.raises(ValueError, match=r"0\.1.*1\.9"):
        memory_overhead(machine(), GI, "0.1")
    assert set(VERSIONS) == {"1.9", "1.10"}


@pytest.mark.parametrize(
    ("domain", "count"),
    [
        ({}, 1),
        ({"cpu": {}}, 1),
        ({"cpu": {"sockets": 2, "cores": 3}}, 6),
        ({"cpu": {"model": "host-passthrough"}}, 1),
        ({"resources": {"requests": {"cpu": "2500m"}}}, 3),
        ({"resources": {"requests": {"cpu": 1}, "limits": {"cpu": 4}}}, 4),
    ],
)
def test_vcpus(domain: dict[str, Any], count: int) -> None:
    assert vcpus({"domain": domain}) == count
