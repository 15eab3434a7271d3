"""What holds Secrets while workloads run lies in memory: no file on the disk has the value, whatever happens to the plane."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from isoplane.client.streams import ExecOptions
from isoplane.node import formats, mounting
from isoplane.node.images import ImageStore
from isoplane.node.runtime.oci import OciRuntime
from isoplane.node.runtime.oci.container import host_memory
from isoplane.node.runtime.oci.layout import Layout, read_json
from isoplane.node.runtime.protocol import Materials, RuntimeFailure
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import UnitState, Workload
from oci_support import demo_images, holding, remove_all, traces_of
from qemu_support import Harness, guest_store, machine_spec, machine_workload
from qemu_support import traces_of as machine_traces_of
from support import require

pytestmark = [pytest.mark.root, pytest.mark.vm]

_REMOUNT = 0x20
VALUE = "correct-horse-battery-staple"
MATERIALS = Materials(objects={"secrets/keys": {"data": {"password": base64.b64encode(VALUE.encode()).decode()}}})


def declare(uid: str) -> Workload:
    password = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}}
    container = {
        "name": "c", "image": "isoplane.io/demo/busybox:1", "env": [password],
        "command": ["/bin/sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"],
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}],
    }  # fmt: skip
    spec = {
        "hostNetwork": True,
        "containers": [container],
        "volumes": [{"name": "keys", "secret": {"secretName": "keys"}}],
    }
    return PodAdapter().project({"metadata": {"name": uid, "namespace": "tests", "uid": uid}, "spec": spec})


async def started(data: Path, name: str) -> OciRuntime:
    runtime = OciRuntime(data, ImageStore(demo_images()), runtime=name)
    await runtime.start()
    return runtime


async def says(runtime: OciRuntime, uid: str = "w") -> str:
    result = await runtime.exec(uid, "c", ["/bin/sh", "-c", "echo $PASSWORD"], 10)
    return result.output.decode().strip()


def as_an_earlier_version_left_it(layout: Layout) -> None:
    """The state and config.json on the disk, records without the format that says otherwise, nothing in memory."""
    shutil.copytree(layout.state, layout.root / "state")
    for _, attempt in layout.everything():
        record = read_json(attempt.record)
        assert record is not None
        shutil.copy(layout.config(str(record["id"])), attempt.directory / "config.json")
        attempt.record.write_text(json.dumps({**record, formats.NUMBER: 1}))
    mounting.leave_memory(layout.memory)


@pytest_asyncio.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    """A data directory, whose containers are removed whatever happens."""
    require("crun", "runc", "conmon", "skopeo", "umoci", root=True)
    yield tmp_path
    await remove_all(tmp_path)
    assert traces_of(tmp_path) == []


@pytest.mark.parametrize("name", ["crun", "runc"])
async def test_no_file_on_the_disk_has_a_secret_of_a_containers_environment(data: Path, name: str) -> None:
    workload, layout = declare("w"), Layout(data)
    runtime = await started(data, name)
    await runtime.prepare(workload, MATERIALS)
    await runtime.start_unit(workload, workload.units[0], 0, MATERIALS)
    session = await runtime.open_exec("w", "c", ExecOptions(command=("/bin/sh",), tty=False, stdin=True))
    assert await says(runtime) == VALUE
    assert holding(VALUE, data, on_disk=True) == []
    assert {path.name for path in holding(VALUE, layout.memory, on_disk=True)} >= {"config.json"}, (
        "the search finds nothing"
    )
    assert any(path.name.startswith("exec-") for path in holding(VALUE, layout.memory, on_disk=True))
    await session.close()
    await runtime.close()
    runtime = await started(data, name)
    assert await says(runtime) == VALUE
    assert holding(VALUE, data, on_disk=True) == []
    await runtime.remove("w")
    assert traces_of(data) == []
    await runtime.close()
    assert not layout.memory.exists()


@pytest.mark.parametrize("name", ["crun", "runc"])
async def test_what_an_earlier_version_left_on_the_disk_moves_while_containers_run(data: Path, name: str) -> None:
    workload, waiting, layout = declare("w"), declare("v"), Layout(data)
    runtime = await started(data, name)
    for one in (workload, waiting):
        await runtime.prepare(one, MATERIALS)
        await runtime.start_unit(one, one.units[0], 0, MATERIALS)
    before = await runtime.observe("w")
    await runtime.close()
    as_an_earlier_version_left_it(layout)
    [(_, attempt)] = [found for found in layout.everything() if found[0] == "v"]
    os.mkfifo(layout.root / "state" / layout.container_id("v", "c", 0) / "exec.fifo")
    assert len(holding(VALUE, data, on_disk=True)) >= 2
    runtime = await started(data, name)
    assert holding(VALUE, data, on_disk=True) == []
    assert not (layout.root / "state").exists()
    assert await runtime.observe("w") == before
    assert await says(runtime) == VALUE
    await runtime.pause_unit("w", "c", True)
    await runtime.pause_unit("w", "c", False)
    # One that was killed between its creation and its start is started once more, as the same attempt.
    assert not attempt.directory.exists()
    await runtime.start_unit(waiting, waiting.units[0], 0, MATERIALS)
    assert await says(runtime, "v") == VALUE
    for uid in ("w", "v"):
        await runtime.remove(uid)
    await runtime.close()
    assert traces_of(data) == []


async def test_containers_whose_memory_was_unmounted_end_and_can_be_started_again(data: Path) -> None:
    workload, layout = declare("w"), Layout(data)
    runtime = await started(data, "crun")
    await runtime.prepare(workload, MATERIALS)
    await runtime.start_unit(workload, workload.units[0], 0, MATERIALS)
    await runtime.close()
    mounting.leave_memory(layout.memory)
    runtime = await started(data, "crun")
    observed = await runtime.observe("w")
    assert observed is not None
    assert observed.unit("c").state is UnitState.EXITED
    await runtime.start_unit(workload, workload.units[0], 1, MATERIALS)
    assert await says(runtime) == VALUE
    await runtime.remove("w")
    await runtime.close()
    assert traces_of(data) == []


async def test_no_file_on_the_disk_has_a_secret_of_a_machine(tmp_path: Path) -> None:
    seed = {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "seed"}}}
    keys = {"name": "keys", "secret": {"secretName": "keys"}}
    said = base64.b64encode(f"#!/bin/sh\necho {VALUE}\n".encode()).decode()
    materials = Materials(objects={"secrets/seed": {"data": {"userdata": said}}, **MATERIALS.objects})
    workload = machine_workload(machine_spec(volumes=[seed, keys]), uid="m")
    (unit,), store = workload.units, guest_store()
    memory = tmp_path / "qemu" / "memory"

    def nowhere() -> bool:
        # The guest prints it on its console, whose log is on the disk: that is the guest's own doing.
        left = [path for path in holding(VALUE, tmp_path, on_disk=True) if not path.name.startswith("serial-")]
        return left == [] and len(holding(VALUE, memory, on_disk=True)) == 2

    async with Harness(tmp_path, store) as plane:
        await plane.runtime.prepare(workload, materials)
        assert nowhere()
    # The host was started again meanwhile: what lay in memory is gone, and is made again for the start.
    mounting.leave_memory(memory)
    async with Harness(tmp_path, store) as plane:
        await plane.runtime.start_unit(workload, unit, 0, materials)
        await plane.says("m", VALUE)
        assert nowhere()
    # As an earlier version left it: both in the machine's own directory, and QEMU runs.
    record = tmp_path / "qemu" / "machines" / "m" / "sandbox.json"
    for image in (memory / "m").iterdir():
        shutil.copy(image, record.parent)
    record.write_text(record.read_text().replace(str(memory), str(record.parent.parent)))
    assert not nowhere()
    async with Harness(tmp_path, store) as plane:
        assert nowhere()
        await plane.runtime.kill_unit("m", unit.name)
        await plane.runtime.start_unit(workload, unit, 1, materials)
        await plane.says("m", VALUE)
        assert nowhere()
        await plane.runtime.remove("m")
    assert machine_traces_of(tmp_path) == []
    assert not memory.exists()


async def test_the_memory_is_bounded_and_a_start_that_finds_none_says_so(data: Path) -> None:
    workload, layout = declare("w"), Layout(data)
    runtime = await started(data, "crun")
    room = os.statvfs(layout.memory)
    # As if others had taken the rest.
    mounting.mount("none", layout.memory, "tmpfs", mounting.DATA_ONLY | _REMOUNT, "size=1m")
    filler = layout.memory / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    await runtime.prepare(workload, MATERIALS)
    with pytest.raises(RuntimeFailure, match=r"no space is left in .*/oci/memory, where environments"):
        await runtime.start_unit(workload, workload.units[0], 0, MATERIALS)
    filler.unlink()
    await runtime.start_unit(workload, workload.units[0], 0, MATERIALS)
    assert await says(runtime) == VALUE
    await runtime.remove("w")
    await runtime.close()
    assert 0 < room.f_blocks <= host_memory() // 10 // room.f_frsize + 1
