"""Specs become domains, and what cannot be given is refused with the field's path."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu.domain import MIB, Cpu, parse
from isoplane.node.runtime.qemu.volumes import CloudInit, ContainerDisk, EmptyDisk, HostDisk

BOOT = {"kernelBoot": {"container": {"image": "i:1", "kernelPath": "/k"}, "kernelArgs": "quiet"}}


def spec(volumes: Any = (), **domain: Any) -> dict[str, Any]:
    return {"domain": {"memory": {"guest": "64Mi"}, "firmware": BOOT, **domain}, "volumes": list(volumes)}


def refused(bad: dict[str, Any]) -> str:
    with pytest.raises(RuntimeFailure) as caught:
        parse(bad)
    assert caught.value.reason is RuntimeReason.CREATE_CONFIG
    return caught.value.message


def test_defaults_are_kubevirts() -> None:
    domain = parse(spec())
    assert (domain.cpu, domain.memory, domain.machine) == (Cpu(1, 1, 1), 64 * MIB, "pc")
    assert domain.interface_model == "virtio-net-pci"
    assert domain.kernel_boot is not None
    assert (domain.kernel_boot.kernel_path, domain.kernel_boot.initrd_path) == ("/k", "")


@pytest.mark.parametrize(
    ("domain", "cpu"),
    [
        ({"cpu": {"cores": 2, "sockets": 3, "threads": 2}}, Cpu(3, 2, 2)),
        ({"cpu": {"cores": 4}}, Cpu(1, 4, 1)),
        ({"resources": {"limits": {"cpu": "1500m"}}}, Cpu(2, 1, 1)),
        ({"resources": {"requests": {"cpu": "100m"}}}, Cpu(1, 1, 1)),
        ({"cpu": {"model": "host-model"}}, Cpu(1, 1, 1)),
        ({"cpu": {"model": "Nehalem", "features": [{"name": "aes"}, {"name": "x2apic", "policy": "disable"}]}},
         Cpu(1, 1, 1, "Nehalem", ("+aes", "-x2apic"))),
    ],
)  # fmt: skip
def test_topology(domain: dict[str, Any], cpu: Cpu) -> None:
    assert parse(spec(**domain)).cpu == cpu


def test_memory_may_come_from_resources() -> None:
    assert parse(spec(memory=None, resources={"requests": {"memory": "1Gi"}})).memory == 1024 * MIB
    assert parse(spec(memory=None, resources={"limits": {"memory": "1G"}})).memory == 10**9


@pytest.mark.parametrize(
    ("domain", "path"),
    [
        ({"memory": None}, "spec.domain.memory.guest"),
        ({"memory": {"guest": "lots"}}, "spec.domain.memory.guest"),
        ({"memory": {"guest": "1Mi"}}, "spec.domain.memory.guest"),
        ({"memory": {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}}, "spec.domain.memory.hugepages"),
        ({"cpu": {"cores": 0}}, "spec.domain.cpu.cores"),
        ({"cpu": {"cores": "2"}}, "spec.domain.cpu.cores"),
        ({"cpu": {"cores": True}}, "spec.domain.cpu.cores"),
        ({"cpu": {"model": "max,hv=on"}}, "spec.domain.cpu.model"),
        ({"cpu": {"features": [{"name": "a,b"}]}}, "spec.domain.cpu.features[0].name"),
        ({"cpu": {"features": [{"name": "aes", "policy": "maybe"}]}}, "spec.domain.cpu.features[0].policy"),
        ({"cpu": {"dedicatedCpuPlacement": True}}, "spec.domain.cpu.dedicatedCpuPlacement"),
        ({"firmware": {}}, "spec.domain"),
        ({"firmware": {"kernelBoot": {"container": {"kernelPath": "/k"}}}}, "spec.domain.firmware.kernelBoot.container.image"),
        ({"firmware": {"kernelBoot": {"container": {"image": "i"}}}}, "spec.domain.firmware.kernelBoot.container.kernelPath"),
        ({"firmware": {**BOOT, "bootloader": {"efi": {"secureBoot": False}}}}, "spec.domain.firmware.bootloader.efi"),
        ({"machine": {"type": "virt"}}, "spec.domain.machine.type"),
        ({"machine": {"type": "pc,accel=kvm"}}, "spec.domain.machine.type"),
        ({"devices": {"gpus": [{"name": "g"}]}}, "spec.domain.devices.gpus"),
        ({"devices": {"watchdog": {"name": "w"}}}, "spec.domain.devices.watchdog"),
        ({"devices": {"watchdog": {}}}, "spec.domain.devices.watchdog"),
        ({"devices": {"tpm": {}}}, "spec.domain.devices.tpm"),
        ({"launchSecurity": {}}, "spec.domain.launchSecurity"),
        ({"cpu": {"numa": {}}}, "spec.domain.cpu.numa"),
        ({"firmware": {**BOOT, "bootloader": {"efi": {}}}}, "spec.domain.firmware.bootloader.efi"),
        ({"firmware": {"kernelBoot": {}}}, "spec.domain.firmware.kernelBoot.container.image"),
        ({"devices": {"interfaces": [{"name": "a", "sriov": {}}]}}, "spec.domain.devices.interfaces[0].sriov"),
        ({"devices": {"interfaces": [{"name": "a", "slirp": {}}]}}, "spec.domain.devices.interfaces[0].slirp"),
        ({"devices": {"interfaces": [{"name": "a"}, {"name": "b"}]}}, "spec.domain.devices.interfaces"),
        ({"devices": {"interfaces": [{"name": "a", "model": "ne2k"}]}}, "spec.domain.devices.interfaces[0].model"),
        ({"devices": {"disks": [{"name": "x", "disk": {}}]}}, "spec.domain.devices.disks[0].name"),
        ({"devices": []}, "spec.domain.devices"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(domain: dict[str, Any], path: str) -> None:
    assert refused(spec(**domain)).startswith(f"{path}: ")


def test_what_is_declined_is_not_refused() -> None:
    declined = {"gpus": [], "hostDevices": [], "filesystems": [], "tpm": None}
    assert parse(spec(devices=declined, cpu={"dedicatedCpuPlacement": False})).cpu == Cpu(1, 1, 1)


def test_a_second_kind_of_network_is_refused() -> None:
    asked = {**spec(), "networks": [{"name": "blue", "multus": {"networkName": "blue"}}]}
    assert refused(asked).startswith("spec.networks[0].multus: ")


def test_volumes_become_disks_in_declared_order() -> None:
    volumes = [
        {"name": "seed", "cloudInitNoCloud": {"userData": "#!/bin/sh"}},
        {"name": "root", "containerDisk": {"image": "i:2", "path": "/disk/d.img", "imagePullPolicy": "Never"}},
        {"name": "scratch", "emptyDisk": {"capacity": "1000"}},
        {"name": "kept", "hostDisk": {"path": "/d.img", "type": "DiskOrCreate", "capacity": "1Mi"}},
    ]
    disks = [{"name": "root", "disk": {"bus": "sata"}, "bootOrder": 1}, {"name": "kept", "cdrom": {}}]
    found = parse(spec(volumes, devices={"disks": disks})).disks
    assert [(d.name, d.bus, d.cdrom, d.read_only, d.boot_order) for d in found] == [
        ("root", "sata", False, False, 1),
        ("kept", "sata", True, True, 0),
        ("seed", "virtio", False, True, 0),
        ("scratch", "virtio", False, False, 0),
    ]
    assert [d.source for d in found] == [
        ContainerDisk("i:2", "/disk/d.img", "Never"),
        HostDisk("/d.img", True, MIB),
        CloudInit(user_data="#!/bin/sh"),
        EmptyDisk(1024),
    ]


@pytest.mark.parametrize(
    ("volumes", "path"),
    [
        ([{"emptyDisk": {"capacity": "1Mi"}}], "spec.volumes[0].name"),
        ([{"name": "a", "emptyDisk": {"capacity": "1Mi"}}] * 2, "spec.volumes[1].name"),
        ([{"name": "a"}], "spec.volumes[0]"),
        ([{"name": "a", "emptyDisk": {}}], "spec.volumes[0].emptyDisk.capacity"),
        ([{"name": "a", "emptyDisk": {"capacity": "-1"}}], "spec.volumes[0].emptyDisk.capacity"),
        ([{"name": "a", "persistentVolumeClaim": {"claimName": "c"}}], "spec.volumes[0].persistentVolumeClaim"),
        ([{"name": "a", "containerDisk": {}}], "spec.volumes[0].containerDisk.image"),
        ([{"name": "a", "hostDisk": {"path": "d", "type": "Disk"}}], "spec.volumes[0].hostDisk.path"),
        ([{"name": "a", "hostDisk": {"path": "/d", "type": "Dir"}}], "spec.volumes[0].hostDisk.type"),
        ([{"name": "a", "cloudInitNoCloud": {"userData": "a", "secretRef": {"name": "s"}}}], "spec.volumes[0].cloudInitNoCloud"),
        ([{"name": "a", "cloudInitNoCloud": {"secretRef": {"x": 1}}}], "spec.volumes[0].cloudInitNoCloud.secretRef.name"),
    ],
)  # fmt: skip
def test_volumes_that_cannot_be(volumes: list[dict[str, Any]], path: str) -> None:
    assert refused(spec(volumes)).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "disk",
    [{"disk": {"bus": "ide"}}, {"cdrom": {"bus": "virtio"}}, {"lun": {}}, {"disk": {}, "cache": "fast"},
     {"disk": {}, "bootOrder": 0}],
)  # fmt: skip
def test_disks_that_cannot_be(disk: dict[str, Any]) -> None:
    volume = {"name": "a", "emptyDisk": {"capacity": "1Mi"}}
    assert "spec.domain.devices.disks[0]" in refused(spec([volume], devices={"disks": [{"name": "a", **disk}]}))


def test_an_agent_channel_is_there_when_a_probe_needs_it() -> None:
    assert not parse(spec()).agent
    assert parse({**spec(), "readinessProbe": {"guestAgentPing": {}}}).agent
    assert parse({**spec(), "livenessProbe": {"exec": {"command": ["true"]}}}).agent


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["domain", "cpu", "memory", "devices", "firmware", "machine", "disks", "interfaces", "volumes", "resources",
     "kernelBoot", "container", "cores", "guest", "features", "limits", "name", "emptyDisk", "cloudInitNoCloud"]
)  # fmt: skip
NESTED = st.recursive(JSON, lambda inner: st.dictionaries(FIELDS, inner, max_size=4) | st.lists(inner, max_size=2))


@given(st.dictionaries(FIELDS, NESTED, max_size=4))
def test_no_shape_of_spec_does_more_than_refuse(junk: dict[str, Any]) -> None:
    base = spec()
    for key, value in junk.items():
        base["domain"][key] = value
    base |= {key: junk[key] for key in ("volumes", "readinessProbe") if key in junk}
    try:
        parse(base)
    except RuntimeFailure as failure:
        assert failure.reason is RuntimeReason.CREATE_CONFIG  # noqa: PT017
