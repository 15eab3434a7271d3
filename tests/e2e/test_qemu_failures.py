"""What goes wrong with machines, and the words in which it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isoplane.node.images.build import Entry, write_layout
from isoplane.node.images.guest import GUEST_IMAGE
from isoplane.node.images.store import ImageStore
from isoplane.node.runtime.protocol import Materials, NetworkInterface, RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu import QemuRuntime, probe
from isoplane.node.runtime.qemu import runtime as runtime_module
from isoplane.node.runtime.qemu.cgroup import Limits, hierarchies
from isoplane.workload.machine_offer import KNOWN
from isoplane.workload.shape import UnitState
from qemu_support import Harness, machine_spec, machine_workload, traces_of

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow]


async def refusal(plane: Harness, spec: dict[str, Any], **materials: Any) -> RuntimeFailure:
    workload = machine_workload(spec)
    with pytest.raises(RuntimeFailure) as caught:
        await plane.runtime.prepare(workload, Materials(**materials))
        await plane.runtime.start_unit(workload, workload.units[0], 0, Materials(**materials))
    assert (await plane.unit(workload.uid)).state is UnitState.ABSENT
    return caught.value


async def test_a_missing_image_and_a_missing_kernel(plane: Harness) -> None:
    spec = machine_spec()
    container = spec["domain"]["firmware"]["kernelBoot"]["container"]
    container |= {"image": "isoplane.io/demo/nothing:1", "imagePullPolicy": "Never"}
    failure = await refusal(plane, spec)
    assert failure.reason is RuntimeReason.IMAGE_NEVER_PULL

    container |= {"image": GUEST_IMAGE, "kernelPath": "/boot/bzImage"}
    failure = await refusal(plane, spec)
    assert failure.reason is RuntimeReason.CREATE
    assert failure.message == f'image "{GUEST_IMAGE}" has no file /boot/bzImage'

    container |= {"kernelPath": "/boot"}
    assert "not a regular file" in (await refusal(plane, spec)).message


async def test_a_container_disk_must_not_open_files_of_the_host(
    plane: Harness, store: ImageStore, tmp_path: Path
) -> None:
    """A qcow2 that names a backing file would let its author read any file; a link would, too."""
    backed = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 200, 11, 16, 1 << 20).ljust(200, b"\0") + b"/etc/shadow"
    entries = [
        Entry("disk"),
        Entry("disk/backed", 0o644, backed),
        Entry("disk/absolute", link="/etc/shadow"),
        Entry("disk/relative", link="../../../../../../../../../../etc/shadow"),
        Entry("disk/loop", link="loop"),
    ]
    write_layout(tmp_path / "layout", entries, {})
    await store.load(str(tmp_path / "layout"), "isoplane.test/evil:1")

    def spec(path: str) -> dict[str, Any]:
        return machine_spec(volumes=[{"name": "d", "containerDisk": {"image": "isoplane.test/evil:1", "path": path}}])

    assert "needs a backing file" in (await refusal(plane, spec("/disk/backed"))).message
    for path in ("/disk/absolute", "/disk/relative", "/disk/loop", "/../../etc/shadow"):
        assert "has no file" in (await refusal(plane, spec(path))).message
    assert "found absolute, backed, loop, relative" in (await refusal(plane, spec(""))).message


async def test_a_kernel_that_is_none_and_a_tap_that_is_not_there(
    plane: Harness, store: ImageStore, tmp_path: Path
) -> None:
    failure = await refusal(plane, machine_spec(), network=NetworkInterface(tap="no-such-tap", mac="52:54:00:00:00:01"))
    assert failure.reason is RuntimeReason.SANDBOX
    assert "no-such-tap does not exist" in failure.message

    write_layout(tmp_path / "layout", [Entry("boot"), Entry("boot/vmlinuz", 0o644, b"not a kernel")], {})
    await store.load(str(tmp_path / "layout"), "isoplane.test/nokernel:1")
    spec = machine_spec()
    spec["domain"]["firmware"]["kernelBoot"]["container"] = {
        "image": "isoplane.test/nokernel:1",
        "kernelPath": "/boot/vmlinuz",
    }
    failure = await refusal(plane, spec)
    assert failure.message.startswith("QEMU could not start: ")
    assert "kernel" in failure.message


async def test_host_disks_and_secrets_that_are_missing(plane: Harness, tmp_path: Path) -> None:
    missing = {"name": "d", "hostDisk": {"path": f"{tmp_path}/none.img", "type": "Disk"}}
    failure = await refusal(plane, machine_spec(volumes=[missing]))
    assert (failure.reason, "does not exist" in failure.message) == (RuntimeReason.CREATE_CONFIG, True)
    seed = {"name": "s", "cloudInitNoCloud": {"secretRef": {"name": "absent"}}}
    assert 'secret "absent"' in (await refusal(plane, machine_spec(volumes=[seed]))).message
    broken = {"name": "s", "cloudInitNoCloud": {"userDataBase64": "%%%"}}
    assert "not base64" in (await refusal(plane, machine_spec(volumes=[broken]))).message
    good = base64.b64encode(b"#!/bin/sh\necho from-base64\n").decode()
    workload = machine_workload(machine_spec(volumes=[{"name": "s", "cloudInitNoCloud": {"userDataBase64": good}}]))
    await plane.run(workload)
    await plane.says(workload.uid, "from-base64")


TOO_MUCH = "512Ti"
"""Memory that QEMU itself refuses."""


async def test_a_cpu_model_that_qemu_does_not_know(plane: Harness) -> None:
    failure = await refusal(plane, machine_spec(domain={"cpu": {"model": "NoSuchCPU"}}))
    assert "NoSuchCPU" in failure.message
    # A failed start can be tried again with the same attempt once the cause is gone.
    workload = machine_workload(machine_spec(memory=TOO_MUCH))
    with pytest.raises(RuntimeFailure, match="QEMU could not start"):
        await plane.run(workload)
    healed = machine_workload(machine_spec(), uid=workload.uid)
    await plane.runtime.start_unit(healed, healed.units[0], 0, Materials())
    assert (await plane.unit(workload.uid)).state is UnitState.RUNNING


async def test_a_machine_over_its_memory_limit_is_oom_killed(plane: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hierarchies():
        pytest.skip("no writable control groups")
    monkeypatch.setattr(runtime_module, "Limits", lambda *_: Limits(memory_limit=90 << 20))
    workload = machine_workload(machine_spec())
    await plane.run(workload)
    ended = await plane.ended(workload.uid)
    assert (ended.reason, ended.exit_code, ended.graceful) == ("OOMKilled", 137, False)


async def test_limits_are_the_control_groups_and_leave_room_for_qemu(plane: Harness) -> None:
    if "memory" not in hierarchies():
        pytest.skip("no cgroup v1 memory hierarchy")
    resources = {"requests": {"cpu": "250m"}, "limits": {"cpu": "2", "memory": "96Mi"}}
    workload = machine_workload(machine_spec(domain={"resources": resources}))
    await plane.run(workload)
    [memory] = Path("/sys/fs/cgroup/memory/isoplane").glob(f"qemu-*/{workload.uid}")
    [cpu] = Path("/sys/fs/cgroup/cpu/isoplane").glob(f"qemu-*/{workload.uid}")
    assert int((memory / "memory.limit_in_bytes").read_text()) > 96 * 2**20 + 64 * 2**20
    assert int((cpu / "cpu.cfs_quota_us").read_text()) == workload.units[0].cpu_limit * 100
    pid = (await plane.unit(workload.uid)).pid
    assert str(pid) in (memory / "cgroup.procs").read_text().split()
    await plane.says(workload.uid, "press Enter")


async def test_without_qemu_or_a_directory_the_runtime_does_not_start(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RuntimeFailure, match="check its permissions"):
        await QemuRuntime(blocked, store, accelerator="tcg").start()
    monkeypatch.setattr(probe, "BINARY", "qemu-system-none")
    with pytest.raises(RuntimeFailure, match="apt-get install qemu-system-x86"):
        await QemuRuntime(tmp_path, store).start()


async def test_a_guest_without_a_power_button_is_killed(plane: Harness) -> None:
    """Before the guest has booted nobody hears the button: asking is harmless, killing works."""
    workload = machine_workload(machine_spec())
    await plane.run(workload)
    for _ in range(3):
        await plane.runtime.stop_unit(workload.uid, "machine")
    assert (await plane.unit(workload.uid)).state is UnitState.RUNNING
    await plane.runtime.kill_unit(workload.uid, "machine")
    assert (await plane.unit(workload.uid)).reason == "Destroyed"


async def test_the_monitor_is_found_again_when_the_connection_breaks(plane: Harness) -> None:
    workload = machine_workload(machine_spec())
    await plane.run(workload)
    # Somebody at the host takes the monitor away for a moment: stop and continue QEMU's process, cut its socket.
    machine = plane.runtime._machines[workload.uid]
    assert machine._qmp is not None
    machine._qmp.close()
    await asyncio.sleep(0.3)
    await plane.runtime.pause_unit(workload.uid, "machine", True)
    assert (await plane.unit(workload.uid)).state is UnitState.PAUSED


def counted(directory: Path) -> tuple[str, Callable[[], int]]:
    """A QEMU that notes each of its starts, and how often it was started."""
    started, binary = directory / "started", directory / "qemu"
    binary.write_text(f'#!/bin/sh\necho >> {started}\nexec {probe.find_binary()} "$@"\n')
    binary.chmod(0o755)
    return str(binary), lambda: started.read_text().count("\n") if started.exists() else 0


async def test_the_probe_believes_a_boot_only(tmp_path: Path) -> None:
    binary, starts = counted(tmp_path)
    assert await probe.boots(binary, "tcg", timeout=30)
    memory = tmp_path / "host.json"
    found = await probe.probe_host(binary, memory)
    assert found.accelerator in ("kvm", "tcg")
    assert found.version >= (5, 0)
    before = starts()
    assert before > 0
    assert await probe.probe_host(binary, memory) == found
    assert starts() == before, "remembered"
    memory.write_text(json.dumps({**json.loads(memory.read_bytes()), "accelerator": "tcg", "probed": 0}))
    await probe.probe_host(binary, memory)
    assert json.loads(memory.read_bytes())["probed"] > 0, "that KVM does not work is not believed for ever"
    memory.write_text('["not what was written"]')
    assert (await probe.probe_host(binary, memory, "tcg")).accelerator == "tcg"


async def test_qemu_is_asked_once_for_the_names_it_knows(tmp_path: Path) -> None:
    (binary, starts), memory = counted(tmp_path), tmp_path / "host.json"
    found = await probe.probe_offer(binary, memory)
    assert found.has_model("EPYC")
    assert found.has_machine("q35")
    assert found.has_feature("aes")
    assert not found.has_model("EPYC-Nonesuch")
    unknown = {
        *(name for name in found.cpu_models if not KNOWN.has_model(name)),
        *(name for name in found.cpu_features if not KNOWN.has_feature(name)),
        *(
            name
            for name in found.machine_types
            if name.startswith(("pc-i440fx", "pc-q35")) and not KNOWN.has_machine(name)
        ),
    }
    assert unknown == set(), "the simulated plane admits what this host would run"
    before = starts()
    assert before > 0
    assert await probe.probe_offer(binary, memory) == found
    assert starts() == before, "remembered"
    host = await probe.probe_host(binary, memory, "tcg")
    assert (host.accelerator, await probe.probe_offer(binary, memory)) == ("tcg", found), "one memory for both"


async def test_a_full_disk_is_said_and_survived(tmp_path: Path, store: ImageStore) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], check=True)  # noqa: ASYNC221
    try:
        async with Harness(small, store) as plane:
            # All that decides and starts still works once the machine is prepared; what fails is told with the path.
            running = machine_workload(machine_spec(), "running")
            await plane.run(running)
            with (small / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
                while filler.write(bytes(4096)):
                    pass
            late = machine_workload(machine_spec(volumes=[{"name": "d", "emptyDisk": {"capacity": "1Mi"}}]), "late")
            with pytest.raises(RuntimeFailure, match="No space left"):
                await plane.run(late)
            await plane.runtime.kill_unit(running.uid, "machine")
            assert (await plane.ended(running.uid)).reason == "Destroyed"
            (small / "filler").unlink()
            await plane.run(late)
            assert (await plane.unit(late.uid)).state is UnitState.RUNNING
            for workload in (running, late):
                await plane.runtime.remove(workload.uid)
        assert traces_of(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)  # noqa: ASYNC221


async def test_a_guest_whose_disk_finds_no_space_waits_and_goes_on(tmp_path: Path, store: ImageStore) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "none", str(small)], check=True)  # noqa: ASYNC221
    try:
        async with Harness(small, store) as plane:
            fill = "#!/bin/sh\ndd if=/dev/urandom of=/dev/vda bs=64k count=64 conv=fsync && echo all-written\n"
            volumes = [
                {"name": "d", "emptyDisk": {"capacity": "4Mi"}},
                {"name": "s", "cloudInitNoCloud": {"userData": fill}},
            ]
            workload = machine_workload(machine_spec(volumes=volumes))
            await plane.run(workload)
            waiting = await plane.until(workload.uid, lambda unit: unit.state is UnitState.PAUSED)
            assert waiting.details["qmp_status"] == "io-error"
            # The controller asks to go on at every look; that must not become a storm.
            plane.changes.clear()
            for _ in range(20):
                await plane.runtime.pause_unit(workload.uid, "machine", False)
                await asyncio.sleep(0.02)
            assert len(plane.changes) <= 8
            subprocess.run(["mount", "-o", "remount,size=16M", str(small)], check=True)  # noqa: ASYNC221
            machine = plane.runtime._machines[workload.uid]
            machine.state = replace(machine.state, resumed=float("-inf"))
            await plane.runtime.pause_unit(workload.uid, "machine", False)
            await plane.says(workload.uid, "all-written")
            assert (await plane.unit(workload.uid)).state is UnitState.RUNNING
            await plane.runtime.remove(workload.uid)
    finally:
        subprocess.run(["umount", str(small)], check=True)  # noqa: ASYNC221


async def test_nothing_of_a_start_that_failed_is_left(plane: Harness, tmp_path: Path) -> None:
    workload = machine_workload(machine_spec(memory=TOO_MUCH))
    with pytest.raises(RuntimeFailure, match="QEMU could not start"):
        await plane.run(workload)
    await plane.runtime.remove(workload.uid)
    assert traces_of(tmp_path) == []
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout  # noqa: ASYNC221
    assert workload.uid not in listed
