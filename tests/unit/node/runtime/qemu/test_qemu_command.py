"""The command line as text: what a spec turns into, and that nothing in a spec can add an option of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.node.runtime.qemu.command import KVM, TCG, Identity, Run, build
from isoplane.node.runtime.qemu.disks import BootFiles, DiskFile
from isoplane.node.runtime.qemu.domain import parse

UID = "11111111-2222-3333-4444-555555555555"
TAP = NetworkInterface(tap="tap0", mac="52:54:00:00:00:01", address="10.0.0.2", prefix_length=24)
BOOT = {"kernelBoot": {"container": {"image": "i:1", "kernelPath": "/k", "initrdPath": "/i"}, "kernelArgs": "quiet"}}


def argv(accelerator: str = TCG, network: NetworkInterface = TAP, files: BootFiles | None = None, **domain: Any) -> str:
    volumes = domain.pop("volumes", [])
    spec = {"domain": {"memory": {"guest": "96Mi"}, "firmware": BOOT, **domain}, "volumes": volumes}
    run = Run("qemu", accelerator, "/d/qemu-0.pid", "serial-0.log", tap=7)
    words = build(parse(spec), files or BootFiles("/img/k", "/img/i", {}), Identity(UID, "default", "vm"), network, run)
    return " ".join(words)


def test_the_demo_guests_command_line() -> None:
    assert argv() == (
        f"qemu -name guest=default/vm,debug-threads=on -uuid {UID} -nodefaults -no-user-config -display none "
        "-machine pc,usb=off,vmport=off,dump-guest-core=off -accel tcg,thread=multi,tb-size=32 -cpu max "
        "-smp cpus=1,sockets=1,cores=1,threads=1 -m size=96M "
        "-action reboot=reset,shutdown=pause,panic=pause,watchdog=reset "
        "-device pvpanic -object rng-builtin,id=rng0 -device virtio-rng-pci,rng=rng0 "
        "-chardev socket,id=serial0,path=console.sock,server=on,wait=off,logfile=serial-0.log,logappend=on "
        "-serial chardev:serial0 -chardev socket,id=qmp0,path=qmp.sock,server=on,wait=off -mon chardev=qmp0,mode=control "
        "-kernel /img/k -initrd /img/i -append quiet no_timer_check "
        "-netdev tap,id=net0,fd=7 "
        "-device virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01,romfile= "
        "-sandbox on,obsolete=deny,spawn=deny,resourcecontrol=deny,elevateprivileges=deny -pidfile /d/qemu-0.pid"
    )


def test_kvm_uses_the_hosts_cpu_and_leaves_the_kernels_arguments_alone() -> None:
    line = argv(KVM, cpu={"cores": 2, "features": [{"name": "pcid", "policy": "disable"}]})
    assert "-accel kvm -cpu host,-pcid -smp cpus=2,sockets=1,cores=2,threads=1" in line
    assert "-append quiet " in line
    assert "no_timer_check" not in line


def test_a_machine_without_a_tap_has_no_network_card() -> None:
    assert "net0" not in argv(network=NetworkInterface())
    assert "net0" not in argv(devices={"autoattachPodInterface": False})
    assert "host_mtu=1400" in argv(network=replace(TAP, mtu=1400))
    assert "-device e1000,netdev=net0" in argv(devices={"interfaces": [{"name": "default", "model": "e1000"}]})


def test_translation_cache_grows_with_the_guest_and_is_bounded() -> None:
    assert "tb-size=256" in argv(memory={"guest": "1Gi"})
    assert "tb-size=256" in argv(memory={"guest": "64Gi"})
    assert "-m size=97657k" in argv(memory={"guest": "100M"})


def test_disks_are_explicit_block_nodes() -> None:
    volumes = [
        {"name": "root", "containerDisk": {"image": "i"}},
        {"name": "dev", "hostDisk": {"path": "/dev/x", "type": "Disk"}},
    ]
    disks = [
        {"name": "root", "disk": {"bus": "scsi"}, "bootOrder": 1, "serial": "a,b"},
        {"name": "dev", "disk": {}, "cache": "none"},
    ]
    files = BootFiles("", "", {
        "root": DiskFile("/s/disk-0", "qcow2", "/img/d,isk", "raw"), "dev": DiskFile("/dev/x", "raw"),
    })  # fmt: skip
    line = argv(files=files, firmware={}, volumes=volumes, devices={"disks": disks})
    nodes = [json.loads(word) for word in line.split(" ") if word.startswith("{")]
    assert nodes == [
        {"driver": "file", "node-name": "disk0-base-file", "filename": "/img/d,isk", "read-only": True},
        {"driver": "raw", "node-name": "disk0-base", "file": "disk0-base-file", "read-only": True},
        {"driver": "file", "node-name": "disk0-file", "filename": "/s/disk-0", "read-only": False},
        {"driver": "qcow2", "node-name": "disk0", "file": "disk0-file", "read-only": False, "backing": "disk0-base"},
        {"driver": "host_device", "node-name": "disk1-file", "filename": "/dev/x", "read-only": False, "cache": {"direct": True}},
        {"driver": "raw", "node-name": "disk1", "file": "disk1-file", "read-only": False},
    ]  # fmt: skip
    assert "-device virtio-scsi-pci,id=scsi0 " in line
    assert "-device scsi-hd,id=disk0-device,drive=disk0,serial=a,,b,bootindex=1" in line
    assert "-device virtio-blk-pci,id=disk1-device,drive=disk1" in line
    assert "-kernel" not in line


def test_a_uid_that_is_no_uuid_still_makes_one() -> None:
    run = Run("qemu", TCG, "/p", "s")
    domain = parse({"domain": {"memory": {"guest": "96Mi"}, "firmware": BOOT}})
    words = build(domain, BootFiles("/k", "/i", {}), Identity("w1", "ns", "n"), TAP, run)
    assert len(words[words.index("-uuid") + 1]) == 36


def test_names_and_arguments_stay_in_their_words() -> None:
    line = argv(firmware={**BOOT, "serial": "x,uuid=y", "kernelBoot": {**BOOT["kernelBoot"], "kernelArgs": "a -S b"}})
    assert "serial=x,,uuid=y" in line
    run = Run("qemu", TCG, "/p", "s")
    spec = {
        "domain": {
            "memory": {"guest": "96Mi"},
            "firmware": {"kernelBoot": {**BOOT["kernelBoot"], "kernelArgs": "a -S"}},
        }
    }
    words = build(parse(spec), BootFiles("/k", "", {}), Identity(UID, "n", "m"), TAP, run)
    assert "-S" not in words
    assert words[words.index("-append") + 1] == "a -S no_timer_check"


def test_qemu_becomes_a_user_of_its_own_where_it_may() -> None:
    domain = parse({"domain": {"memory": {"guest": "96Mi"}, "firmware": BOOT}})
    for version, option in (((7, 2), "-runas 9:9"), ((9, 0), "-runas 9:9"), ((10, 0), "-run-with user=9:9")):
        run = Run("qemu", TCG, "/p", "s", user=9, version=version)
        line = " ".join(build(domain, BootFiles("/k", "", {}), Identity(UID, "n", "m"), TAP, run))
        assert line.endswith(f"-sandbox on,obsolete=deny,spawn=deny,resourcecontrol=deny {option} -pidfile /p")
