"""What can never run is found when it is written, and the machine's runtime refuses the very same."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

import samples_support as samples
from isoplane.http.user import SYSTEM, User
from isoplane.node.runtime.protocol import RuntimeFailure
from isoplane.node.runtime.qemu.domain import parse
from isoplane.node.runtime.qemu.volumes import _READERS
from isoplane.objects.errors import Invalid
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.objects.scheme import Scheme
from isoplane.server.admission import AdmissionRequest
from isoplane.server.impossible_admission import ImpossibleAdmission
from isoplane.workload import impossible
from isoplane.workload.fields import machine
from isoplane.workload.fields.table import expand, steps
from isoplane.workload.machine_offer import KNOWN, MachineOffer, machine_offer


def nested(where: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {where[0]: nested(where[1:], value) if len(where) > 1 else value}


def merged(base: Any, more: Any) -> Any:
    if isinstance(base, dict) and isinstance(more, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in more.items()}}
    return more


def asking() -> Iterator[tuple[dict[str, Any], str]]:
    """The least that sets each field of the table of what is refused, and its path."""
    for rule in machine.REFUSED.rules:
        value: Any = True if "dedicated" in rule.paths else "arm64" if "architecture" in rule.paths else {}
        for path in expand(rule.paths):
            names = steps(path)[1:]
            made: Any = [{}] if names[-1].endswith("s") and "passt" not in path else value
            for name in reversed(names):
                made = [made] if name == "[]" else {name: made}
            yield made, path.removeprefix("spec.").replace("[]", "[0]")


CASES: list[tuple[dict[str, Any], str]] = [
    *asking(),
    (nested(("domain", "machine", "type"), "virt"), "domain.machine.type"),
    (
        nested(("domain", "devices", "interfaces"), [{"name": "default", "model": "ne2k_pci"}]),
        "domain.devices.interfaces[0].model",
    ),
    (
        nested(("domain", "devices", "interfaces"), [{"name": "default", "state": "loose"}]),
        "domain.devices.interfaces[0].state",
    ),
    (nested(("domain", "devices", "interfaces"), [{"name": "default"}, {"name": "b"}]), "domain.devices.interfaces"),
    (
        nested(("domain", "firmware", "kernelBoot", "container"), {"image": "i", "kernelPath": "", "initrdPath": "/i"}),
        "domain.firmware.kernelBoot.container.kernelPath",
    ),
    (nested(("domain", "machine", "type"), "pc-q35-rhel9.2.0"), "domain.machine.type"),
    (nested(("domain", "cpu"), {"sockets": 64, "cores": 4, "threads": 1}), "domain.cpu"),
    (nested(("domain", "cpu", "model"), "Pentium 5"), "domain.cpu.model"),
    (nested(("domain", "cpu", "model"), "host,migratable=off"), "domain.cpu.model"),
    (nested(("domain", "cpu", "features"), [{"name": "telepathy"}]), "domain.cpu.features[0].name"),
    (nested(("domain", "cpu", "features"), [{"name": "aes", "policy": "maybe"}]), "domain.cpu.features[0].policy"),
    (nested(("domain", "memory", "guest"), "2Mi"), "domain.memory.guest"),
    (nested(("domain", "firmware", "uuid"), "mine"), "domain.firmware.uuid"),
    (nested(("domain", "firmware", "kernelBoot", "kernelArgs"), "a\0b"), "domain.firmware.kernelBoot.kernelArgs"),
    ({"volumes": [{"name": "v", "emptyDisk": {"capacity": "1"}}]}, "volumes[0].emptyDisk.capacity"),
    ({"volumes": [{"name": "v", "hostDisk": {"path": "a", "type": "Disk"}}]}, "volumes[0].hostDisk.path"),
    (
        {"volumes": [{"name": "v", "cloudInitNoCloud": {"userData": "x", "userDataBase64": "eA=="}}]},
        "volumes[0].cloudInitNoCloud",
    ),
    (
        {"volumes": [{"name": "v", "cloudInitNoCloud": {"userDataBase64": "%"}}]},
        "volumes[0].cloudInitNoCloud.userDataBase64",
    ),
    (
        {"volumes": [{"name": "v", "cloudInitNoCloud": {"secretRef": {}}}]},
        "volumes[0].cloudInitNoCloud.secretRef.name",
    ),
    ({"volumes": [{"name": "v", "configMap": {}}]}, "volumes[0].configMap.name"),
    ({"volumes": [{"name": "v", "secret": {}}]}, "volumes[0].secret.secretName"),
    (
        {"volumes": [{"name": "v", "configMap": {"name": "c", "volumeLabel": "x" * 17}}]},
        "volumes[0].configMap.volumeLabel",
    ),
    ({"volumes": [{"name": f"v{n}", "emptyDisk": {"capacity": "1Mi"}} for n in range(28)]}, "volumes"),
    (
        {
            "volumes": [{"name": f"v{n}", "emptyDisk": {"capacity": "1Mi"}} for n in range(5)],
            **nested(("domain", "devices", "disks"), [{"name": f"v{n}", "disk": {"bus": "sata"}} for n in range(5)]),
        },
        "domain.devices.disks",
    ),
]


@pytest.mark.parametrize(("more", "path"), CASES, ids=[path for _, path in CASES])
def test_admission_and_the_runtime_refuse_the_same(more: dict[str, Any], path: str) -> None:
    spec = merged(samples.vmi()["spec"], more)
    assert [where for where, _ in impossible.machine(spec)] == [f"spec.{path}"]
    with pytest.raises(RuntimeFailure) as caught:
        parse(spec)
    assert caught.value.message.startswith(f"spec.{path}: ")


@pytest.mark.parametrize(
    "disk",
    [
        {"cdrom": {"bus": "virtio"}},
        {"cdrom": {"bus": "usb"}},
        {"io": "some"},
        {"io": "native", "cache": "writeback"},
        {"cache": "much"},
        {"serial": "a\0b"},
    ],
    ids=str,
)
def test_disks_that_cannot_be(disk: dict[str, Any]) -> None:
    more = nested(("domain", "devices", "disks"), [{"name": "v", **disk}])
    more["volumes"] = [{"name": "v", "emptyDisk": {"capacity": "1Mi"}}]
    spec = merged(samples.vmi()["spec"], more)
    (found,) = impossible.machine(spec)
    with pytest.raises(RuntimeFailure) as caught:
        parse(spec)
    assert caught.value.message.startswith(f"{found[0]}: ")


def test_a_usual_machine_is_possible_and_the_volumes_are_those_that_the_runtime_reads() -> None:
    assert list(impossible.machine(samples.vmi()["spec"])) == []
    assert set(machine.VOLUMES) == set(_READERS)


def ask(
    resource: Resource,
    obj: dict[str, Any],
    old: dict[str, Any] | None = None,
    user: User = SYSTEM,
    offer: MachineOffer = KNOWN,
) -> list[str]:
    operation = "UPDATE" if old else "CREATE"
    plugin = ImpossibleAdmission(offer)
    assert plugin.handles(resource, operation, "")  # type: ignore[arg-type]
    request = AdmissionRequest(
        operation,  # type: ignore[arg-type]
        resource, "", "default", "x", obj, old, user, dry_run=False, now=0.0,
        view=None,  # type: ignore[arg-type]
        scheme=Scheme(),
    )  # fmt: skip
    try:
        plugin.validate(request)
    except Invalid as refused:
        return [cause.field for cause in refused.causes]
    return []


def test_it_is_refused_when_it_is_written_and_what_is_stored_may_be_labelled() -> None:
    vmi = samples.vmi()
    vmi["spec"]["domain"]["devices"]["tpm"] = {}
    assert ask(VIRTUALMACHINEINSTANCES, vmi) == ["spec.domain.devices.tpm"]
    vm = {"spec": {"runStrategy": "Always", "template": {"spec": vmi["spec"]}}}
    assert ask(VIRTUALMACHINES, vm) == ["spec.template.spec.domain.devices.tpm"]
    stopped = copy.deepcopy(vm)
    stopped["spec"]["runStrategy"] = "Halted"
    assert ask(VIRTUALMACHINES, stopped, vm) == [], "what stood there before does not keep it from being stopped"
    pod = samples.pod(runtimeClassName="kata")
    assert ask(PODS, pod) == ["spec.runtimeClassName"]
    local = samples.pod(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}})
    seccomp = "spec.securityContext.seccompProfile"
    assert ask(PODS, local) == [f"{seccomp}.type", f"{seccomp}.localhostProfile"]
    own = samples.pod()
    own["spec"]["containers"][0]["securityContext"] = {"seccompProfile": {"type": "Localhost"}}
    assert ask(PODS, own) == ["spec.containers[0].securityContext.seccompProfile.type"]
    assert ask(PODS, samples.pod(volumes=[{"name": "v", "hostPath": {"path": "a"}}])) == [
        "spec.volumes[0].hostPath.path"
    ]
    assert ask(PODS, samples.pod()) == []


@pytest.mark.parametrize("field", ["instancetype", "preference", "dataVolumeTemplates"])
def test_what_a_machine_cannot_be_made_from_is_refused(field: str) -> None:
    vm: dict[str, Any] = {"spec": {"runStrategy": "Always", "template": {"spec": samples.vmi()["spec"]}}}
    vm["spec"][field] = [{"metadata": {"name": "x"}, "spec": {}}] if field.endswith("s") else {"name": "x"}
    assert ask(VIRTUALMACHINES, vm) == [f"spec.{field}"]
    if not field.endswith("s"):
        vm["spec"][field] = {"inferFromVolume": "root", "inferFromVolumeFailurePolicy": "Ignore"}
        assert ask(VIRTUALMACHINES, vm) == [], "what a client adds of itself and does not insist on"


def virtctl(*volumes: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """What `virtctl create vm` writes, without the names it invents."""
    instance = {
        "domain": {"devices": {}, "memory": {"guest": "512Mi"}, "resources": {}},
        "terminationGracePeriodSeconds": 180,
    }
    return {"spec": {"runStrategy": "Always", "template": {"spec": {**instance, "volumes": list(volumes)}}, **spec}}


DISK = {"name": "disk", "containerDisk": {"image": "example.com/cirros"}}
CLAIM = {"name": "disk", "persistentVolumeClaim": {"claimName": "c"}}
INFERRED = {"inferFromVolume": "disk", "inferFromVolumeFailurePolicy": "Ignore"}
SATA = {"disks": [{"name": "disk", "disk": {"bus": "sata"}}]}
WINDOWS = {
    "clock": {"utc": {}, "timer": {"hpet": {"present": False}, "hyperv": {}}},
    "features": {"acpi": {}, "apic": {}, "hyperv": {"relaxed": {}, "vapic": {}, "spinlocks": {"spinlocks": 8191}}},
    "firmware": {"uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223"},
    "devices": {**SATA, "interfaces": [{"name": "default", "masquerade": {}, "model": "e1000"}]},
}


@pytest.mark.parametrize(
    ("vm", "refused"),
    [
        (virtctl(DISK), []),
        (virtctl(DISK, instancetype=INFERRED, preference=INFERRED), []),
        (virtctl(DISK, {"name": "cloudinitdisk", "cloudInitNoCloud": {"userData": "#cloud-config"}}), []),
        (virtctl(DISK, instancetype={"name": "u1.small"}), ["spec.instancetype"]),
        (virtctl(CLAIM), ["spec.template.spec.volumes[0].persistentVolumeClaim"]),
        (
            virtctl({"name": "disk", "dataVolume": {"name": "d"}}, dataVolumeTemplates=[{"metadata": {"name": "d"}}]),
            ["spec.dataVolumeTemplates", "spec.template.spec.volumes[0].dataVolume"],
        ),
    ],
)
def test_what_clients_write_is_taken_as_far_as_it_can_run(vm: dict[str, Any], refused: list[str]) -> None:
    assert ask(VIRTUALMACHINES, vm) == refused


def test_kubevirts_examples_are_taken_as_far_as_they_can_run() -> None:
    def vmi(volume: dict[str, Any], **domain: Any) -> dict[str, Any]:
        return {"spec": {"domain": {"memory": {"guest": "128Mi"}, **domain}, "volumes": [volume]}}

    assert ask(VIRTUALMACHINEINSTANCES, vmi(DISK, devices=SATA)) == []
    assert parse(vmi(DISK, devices=SATA)["spec"]).disks[0].bus == "sata"
    assert ask(VIRTUALMACHINEINSTANCES, vmi(DISK, **WINDOWS)) == []
    assert ask(VIRTUALMACHINEINSTANCES, vmi(CLAIM, **WINDOWS)) == ["spec.volumes[0].persistentVolumeClaim"]


OLD = machine_offer(["qemu64", "EPYC", "EPYC-v1"], ["aes", "sse4.1", "lahf-lm"], ["pc", "q35", "pc-q35-7.2"])


@pytest.mark.parametrize(
    ("more", "by_name", "here"),
    [
        (nested(("domain", "cpu", "model"), "EPYC"), [], []),
        (nested(("domain", "cpu", "model"), "EPYC-v1"), [], []),
        (nested(("domain", "cpu", "model"), "EPYC-v2"), [], ["spec.domain.cpu.model"]),
        (nested(("domain", "cpu", "model"), "EPYC-Genoa"), [], ["spec.domain.cpu.model"]),
        (nested(("domain", "cpu", "model"), "host-passthrough"), [], []),
        (nested(("domain", "cpu", "features"), [{"name": "lahf_lm"}, {"name": "sse4_1"}]), [], []),
        (nested(("domain", "cpu", "features"), [{"name": "avx2"}]), [], ["spec.domain.cpu.features[0].name"]),
        (nested(("domain", "machine", "type"), "pc-q35-7.2"), [], []),
        (nested(("domain", "machine", "type"), "pc-q35-9.1"), [], ["spec.domain.machine.type"]),
    ],
    ids=str,
)
def test_names_are_those_of_the_hosts_qemu(more: dict[str, Any], by_name: list[str], here: list[str]) -> None:
    vmi = samples.vmi()
    vmi["spec"] = merged(vmi["spec"], more)
    assert ask(VIRTUALMACHINEINSTANCES, vmi) == by_name, "the simulated plane knows every release's names"
    assert ask(VIRTUALMACHINEINSTANCES, vmi, offer=OLD) == here
    if here:
        with pytest.raises(RuntimeFailure, match="this host's QEMU has no"):
            parse(vmi["spec"], OLD)
