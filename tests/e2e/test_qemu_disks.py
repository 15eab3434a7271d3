"""What a guest finds on its disks: container disks, empty disks, host disks, cloud-init seeds, ConfigMaps and Secrets."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from isoplane.node.images.build import Entry, write_layout
from isoplane.node.images.store import ImageStore
from isoplane.node.runtime.protocol import Materials, NetworkInterface
from isoplane.workload import impossible
from qemu_support import Harness, guest_store, machine_spec, machine_workload
from support import require

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow]

MESSAGE = b"hello from a boot sector\r\n"
DISK_IMAGE = "isoplane.test/disk:1"


async def load(store: ImageStore, scratch: Path, name: str, files: dict[str, bytes]) -> None:
    entries = [Entry("disk"), *(Entry(path, 0o644, content) for path, content in files.items())]
    write_layout(scratch / "layout", entries, {})
    await store.load(str(scratch / "layout"), name)


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def script(*lines: str) -> dict[str, Any]:
    """A seed whose user-data is a shell script that the demo guest runs."""
    return {"name": "seed", "cloudInitNoCloud": {"userData": "\n".join(("#!/bin/sh", *lines, "echo script-done", ""))}}


def boot_sector() -> bytes:
    """A disk that boots by the firmware alone: writes a message to COM1, and itself to its second sector, then halts."""
    code = bytes.fromhex(
        "31c0 8ed8 8ec0"  # xor ax,ax; mov ds,ax; mov es,ax
        "bb007c b90200 b80103 b600 cd13"  # mov bx,0x7c00; mov cx,2; mov ax,0x0301; mov dh,0; int 0x13 (write a sector)
        "be367c"  # mov si,message
        "bafd03 ec a820 74fb"  # 1: mov dx,0x3fd; 2: in al,dx; test al,0x20; jz 2b
        "ac 08c0 7406"  # lodsb; or al,al; jz 3f
        "baf803 ee ebed"  # mov dx,0x3f8; out dx,al; jmp 1b
        "f4 ebfd"  # 3: hlt; jmp 3b
    )
    assert len(code) <= 0x36
    return (code.ljust(0x36, b"\x90") + MESSAGE + b"\0").ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20)


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
async def test_a_container_disk_boots_and_keeps_what_is_written_out_of_the_image(
    plane: Harness, store: ImageStore, tmp_path: Path, image_format: str
) -> None:
    disk = boot_sector()
    if image_format == "qcow2":
        require("qemu-img")
        (tmp_path / "raw").write_bytes(disk)
        run("qemu-img", "convert", "-O", "qcow2", tmp_path / "raw", tmp_path / "image")
        disk = (tmp_path / "image").read_bytes()
    await load(store, tmp_path, DISK_IMAGE, {"disk/boot.img": disk})
    spec = {
        "domain": {"memory": {"guest": "64Mi"}, "devices": {"disks": [{"name": "root", "bootOrder": 1, "disk": {}}]}},
        "volumes": [{"name": "root", "containerDisk": {"image": DISK_IMAGE}}],
    }
    workload = machine_workload(spec)
    await plane.run(workload)
    await plane.says(workload.uid, MESSAGE.decode().strip())
    image = await store.resolve(DISK_IMAGE)
    assert (image.rootfs / "disk/boot.img").read_bytes() == disk
    overlay = tmp_path / "qemu/machines" / workload.uid / "disk-0"
    await plane.runtime.kill_unit(workload.uid, "machine")
    assert overlay.stat().st_size > 4 * 65536, "the guest's sector is in the overlay"
    if shutil.which("qemu-img"):
        run("qemu-img", "check", overlay)


async def test_the_guest_sees_its_disks_and_writes_last(plane: Harness, store: ImageStore, tmp_path: Path) -> None:
    require("mkfs.ext4")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/greeting").write_text("from the container disk\n")
    file_system = tmp_path / "fs.img"
    run("mkfs.ext4", "-q", "-d", tmp_path / "tree", file_system, "4M")
    await load(store, tmp_path, "isoplane.test/ext4:1", {"disk/fs.img": file_system.read_bytes()})
    host_disk = tmp_path / "host.img"
    see = script(
        "mkdir /a && mount -t ext4 /dev/vda /a && cat /a/greeting && echo more >>/a/greeting",
        "echo empty: $(cat /sys/block/vdb/size) host: $(cat /sys/block/vdc/size) serial: $(cat /sys/block/vdb/serial)",
        "echo written by the guest | dd of=/dev/vdc conv=notrunc 2>/dev/null",
        "umount /a; sync",
    )
    spec = machine_spec(
        domain={"devices": {"disks": [
            {"name": "root", "disk": {"bus": "virtio"}},
            {"name": "scratch", "disk": {"bus": "virtio"}, "serial": "SCRATCH1"},
            {"name": "kept", "disk": {"bus": "virtio"}, "cache": "none"},
        ]}},
        volumes=[
            {"name": "root", "containerDisk": {"image": "isoplane.test/ext4:1", "path": "/disk/fs.img"}},
            {"name": "scratch", "emptyDisk": {"capacity": "1Gi"}},
            {"name": "kept", "hostDisk": {"path": str(host_disk), "type": "DiskOrCreate", "capacity": "1Mi"}},
            see,
        ],
    )  # fmt: skip
    workload = machine_workload(spec)
    await plane.run(workload)
    log = await plane.says(workload.uid, "script-done")
    assert "from the container disk" in log
    assert f"empty: {2**30 // 512} host: {2**20 // 512} serial: SCRATCH1" in log
    await plane.runtime.remove(workload.uid)
    assert host_disk.read_bytes().startswith(b"written by the guest\n")
    assert host_disk.stat().st_size == 2**20


@pytest.mark.parametrize("machine", ["pc", "q35"])
async def test_scsi_and_sata_disks_reach_the_guest(plane: Harness, machine: str) -> None:
    """The demo guest has no drivers for them; the machine's own block statistics say that the firmware read them."""
    sata = ["b", "d", "e", *(("f", "g") if machine == "q35" else ())]
    disks = [{"name": "a", "disk": {"bus": "scsi"}}, *({"name": name, "disk": {"bus": "sata"}} for name in sata)]
    volumes = [
        *({"name": name, "emptyDisk": {"capacity": "1Mi"}} for name in ("a", *sata)),
        {"name": "c", "cloudInitNoCloud": {"userData": "#cloud-config\n"}},
    ]
    devices = {"disks": [*disks, {"name": "c", "cdrom": {}}]}
    spec = machine_spec(domain={"devices": devices, "machine": {"type": machine}}, volumes=volumes)
    assert list(impossible.machine(spec)) == [], "as many as are admitted"
    workload = machine_workload(spec)
    await plane.run(workload)
    await plane.says(workload.uid, "press Enter")


async def test_cloud_init_names_the_guest_and_configures_its_network(plane: Harness) -> None:
    secret = {
        "data": {"userdata": base64.b64encode(script("cat /mnt/seed/*")["cloudInitNoCloud"]["userData"].encode())}
    }
    spec = machine_spec(
        hostname="named-by-seed", volumes=[{"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "s"}}}]
    )
    workload = machine_workload(spec)
    net = NetworkInterface(mac="52:54:00:00:00:01", address="10.1.2.3", prefix_length=24, gateway="10.1.2.1")
    materials = Materials(objects={"secrets/s": secret}, network=net)
    await plane.runtime.prepare(workload, materials)
    await plane.runtime.start_unit(workload, workload.units[0], 0, materials)
    for said in ("guest named-by-seed", '"10.1.2.3/24"', '"via": "10.1.2.1"', "52:54:00:00:00:01", workload.uid):
        await plane.says(workload.uid, said)


async def test_config_maps_and_secrets_are_small_disks(plane: Harness) -> None:
    long = {f"key-{n}": "x" * 3000 for n in range(60)}
    objects: dict[str, Any] = {
        "configmaps/settings": {"data": {"greeting.txt": "hello from a config map", **long}},
        "secrets/token": {"data": {"token": base64.b64encode(b"hush").decode()}},
    }
    see = script(
        "mkdir /c /s; mount -t iso9660 /dev/vda /c && mount -t iso9660 /dev/vdb /s",
        "echo $(cat /c/greeting.txt) $(cat /s/token) $(ls /c | wc -l) $(cat /c/key-59 | wc -c)",
    )
    volumes = [{"name": "c", "configMap": {"name": "settings"}}, {"name": "s", "secret": {"secretName": "token"}}, see]
    workload = machine_workload(machine_spec(volumes=volumes))
    materials = Materials(objects=objects)
    await plane.runtime.prepare(workload, materials)
    await plane.runtime.start_unit(workload, workload.units[0], 0, materials)
    log = await plane.says(workload.uid, "script-done")
    assert "hello from a config map hush 61 3000" in log


async def test_the_guest_has_the_topology_and_memory_it_asked_for(plane: Harness) -> None:
    see = script("grep -E 'siblings|cpu cores' /proc/cpuinfo | sort | uniq -c; grep MemTotal /proc/meminfo")
    spec = machine_spec(domain={"cpu": {"sockets": 1, "cores": 2, "threads": 1}}, memory="160Mi", volumes=[see])
    workload = machine_workload(spec)
    await plane.run(workload)
    log = await plane.says(workload.uid, "script-done")
    assert "2 cpu cores\t: 2" in log
    total = int(log.split("MemTotal:")[1].split()[0]) * 1024
    assert 120 * 2**20 < total < 160 * 2**20


async def test_a_second_prepare_keeps_what_the_guest_wrote(plane: Harness, tmp_path: Path) -> None:
    workload = machine_workload(machine_spec(volumes=[{"name": "d", "emptyDisk": {"capacity": "8Mi"}}]))
    await plane.runtime.prepare(workload, Materials())
    disk = tmp_path / "qemu/machines" / workload.uid / "disk-0"
    disk.write_bytes(disk.read_bytes() + b"mark")
    (disk.parent / "sandbox.json").unlink()
    await plane.runtime.close()
    async with Harness(tmp_path, guest_store()) as again:
        await again.runtime.prepare(workload, Materials())
        assert disk.read_bytes().endswith(b"mark")
        await again.runtime.remove(workload.uid)
