"""What a machine asks for, by each way of counting."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.objects.accounting import KUBEVIRT_VERSIONS, MODES
from isoplane.objects.schema.sources import read_definitions
from isoplane.workload.accounting import Accounting
from isoplane.workload.kubevirt import FORMULAS, MB, MI
from isoplane.workload.machine import EVEN_PARITY, MachineAsks, Settings, machine_asks, scopes

GUEST = {"domain": {"cpu": {"cores": 2}, "memory": {"guest": "1Gi"}, "devices": {}}}
LOG = 35 * MB
"""The console log's memory."""
STORAGE = {"ephemeral-storage": 50 * MB}
OVERHEAD = 276 * MI


def asks(spec: dict[str, Any], mode: str = "GuestPlusOverhead", version: str = "1.9", **more: Any) -> MachineAsks:
    return machine_asks(spec, Accounting(mode, version), **more)


def domain(**parts: Any) -> dict[str, Any]:
    return {"domain": {**GUEST["domain"], **parts}}


def test_modes_of_a_machine() -> None:
    assert asks(GUEST).requests == {"cpu": 205, "memory": 1024 * MI + OVERHEAD + LOG, **STORAGE}
    assert asks(GUEST, "Requests").requests == {"cpu": 200, "memory": 1024 * MI}
    assert asks(GUEST, "GuestOnly").requests == {"cpu": 2000, "memory": 1024 * MI}
    assert asks(GUEST).guest == {"cpu": 2000, "memory": 1024 * MI}
    with pytest.raises(ValueError, match="GuestOnly"):
        asks(GUEST, "Everything")
    with pytest.raises(ValueError, match=r"0\.1.*1\.9"):
        asks(GUEST, version="0.1")


def test_the_words_of_a_policy_are_the_tables() -> None:
    assert tuple(FORMULAS) == KUBEVIRT_VERSIONS
    properties = read_definitions()["io.isoplane.v1alpha1.QuotaPolicySpec"]["properties"]
    assert tuple(properties["vmAccounting"]["enum"]) == MODES
    assert tuple(properties["kubevirtVersion"]["enum"]) == KUBEVIRT_VERSIONS


def test_explicit_requests_of_a_machine_win() -> None:
    spec = {"domain": {"resources": {"requests": {"cpu": "1500m", "memory": "512Mi"}}, "memory": {"guest": "1Gi"}}}
    assert asks(spec, "Requests").requests == {"cpu": 1500, "memory": 512 * MI}


def test_overcommit_and_allocation_ratio() -> None:
    settings = Settings(cpu_allocation_ratio=3, memory_overcommit=200)
    assert asks(GUEST, "Requests", settings=settings).requests == {"cpu": 667, "memory": 512 * MI}


def test_pinned_cpus_count_whole_and_limit_equals_request() -> None:
    pinned = asks(domain(cpu={"cores": 2, "dedicatedCpuPlacement": True, "isolateEmulatorThread": True}))
    log = 60 * MB  # a guaranteed Pod's containers request what they are limited to
    assert pinned.requests["cpu"] == pinned.limits["cpu"] == 3000 + 15
    assert pinned.requests["memory"] == pinned.limits["memory"] == 1024 * MI + OVERHEAD + 100 * MI + log
    assert pinned.own_limits == {"cpu": 3000, "memory": 1024 * MI + OVERHEAD + 100 * MI}


def test_hugepages_hold_the_guest_and_memory_the_rest() -> None:
    huge = asks(domain(memory={"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}))
    assert huge.requests == {"cpu": 205, "hugepages-2Mi": 1024 * MI, "memory": OVERHEAD + LOG, **STORAGE}


def test_devices_are_extended_resources() -> None:
    gpus = [{"name": "a", "deviceName": "vendor.example/gpu"}, {"name": "b", "deviceName": "vendor.example/gpu"}]
    claimed = {"name": "c", "claimName": "c", "requestName": "r"}
    assert asks(domain(devices={"gpus": [*gpus, claimed]}), "Requests").requests["vendor.example/gpu"] == 2


def test_limits_of_a_machine() -> None:
    assert asks(GUEST).limits == {}, "what is not stated limits nothing, and is not charged"
    zero = asks(domain(resources={"limits": {"memory": "0", "cpu": 0}}))
    assert zero.limits == {}
    assert zero.unspecified == {"limits.cpu": ("compute",), "limits.memory": ("compute",)}
    stated = asks(domain(resources={"limits": {"memory": "2Gi", "cpu": "4"}, "requests": {"cpu": "1"}}))
    own = 2048 * MI + OVERHEAD
    assert stated.own_limits == {"memory": own, "cpu": 4000}
    assert stated.limits == {"memory": own + 60 * MB, "cpu": 4015}
    assert stated.unspecified == {}


def test_scopes_of_a_machine() -> None:
    assert scopes(GUEST) == {"NotTerminating", "NotBestEffort"}


@pytest.mark.parametrize(("version", "guest_only"), [("1.6", 2), ("1.7", 0)])
def test_page_tables_are_counted_for_what_is_requested(version: str, guest_only: int) -> None:
    """Since 1.7 a guest's size is no request that is stated."""
    stated = asks(domain(resources={"requests": {"memory": "1Gi"}}), version=version).requests["memory"]
    assert stated - asks(GUEST, version=version).requests["memory"] == (2 - guest_only) * MI


@pytest.mark.parametrize(("version", "counted"), [("1.7", 0), ("1.8", 500)])
def test_what_is_set_aside_beside_the_guest_is_counted(version: str, counted: int) -> None:
    spec = domain(memory={"guest": "1Gi", "reservedOverhead": {"addedOverhead": "500Mi"}})
    assert (
        asks(spec, version=version).requests["memory"] - asks(GUEST, version=version).requests["memory"] == counted * MI
    )


def test_huge_pages_are_no_part_of_the_memory_limit() -> None:
    spec = {
        "domain": {
            "memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}},
            "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        }
    }
    found = asks(spec)
    assert found.requests["hugepages-2Mi"] == 64 * MI
    assert found.own_limits["memory"] == 64 * MI + found.requests["memory"] - LOG


@pytest.mark.parametrize(("cores", "isolate", "even", "cpus"), [
    (2, True, True, 4), (3, True, True, 4), (2, True, False, 3), (2, False, True, 2),
])  # fmt: skip
def test_pinned_cpus_are_filled_up_to_an_even_number(cores: int, isolate: bool, even: bool, cpus: int) -> None:
    cpu = {"cores": cores, "dedicatedCpuPlacement": True, "isolateEmulatorThread": isolate}
    found = asks(domain(cpu=cpu), annotations={EVEN_PARITY: ""} if even else {})
    assert found.own_limits["cpu"] == 1000 * cpus
    assert found.requests["cpu"] == 1000 * cpus + 15


def test_a_list_of_hooks_that_cannot_be_read_charges_for_none() -> None:
    pinned = domain(cpu={"cores": 2, "dedicatedCpuPlacement": True})
    alone = asks(pinned).requests
    for text in ("[", "7", "", "null"):
        assert asks(pinned, annotations={"hooks.kubevirt.io/hookSidecars": text}).requests == alone
    hooked = asks(pinned, annotations={"hooks.kubevirt.io/hookSidecars": '[{"image": "a"}]'}).requests
    assert hooked["cpu"] - alone["cpu"] == 200
