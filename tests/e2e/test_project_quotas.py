"""Limits that the file system keeps: on a file system made for the test, where this kernel has project quotas."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from isoplane.node.images import ImageStore
from isoplane.node.runtime.oci import OciRuntime
from isoplane.node.runtime.oci.projects import Projects, margin
from isoplane.node.runtime.protocol import Materials
from isoplane.workload import eviction
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Workload
from oci_support import demo_images, remove_all
from support import require

pytestmark = pytest.mark.root

MADE_BY = {
    "ext4": ("mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota"),
    "xfs": ("mkfs.xfs", "-q"),
}
MIB = 1 << 20


@pytest.fixture(params=MADE_BY)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system with project quotas, of 320 MiB. Skips where there can be none."""
    require("losetup", root=True)
    kind = request.param
    if shutil.which(MADE_BY[kind][0]) is None:
        pytest.skip(f"{MADE_BY[kind][0]} is not installed")
    subprocess.run(["modprobe", "-a", "-q", "loop", kind, "quota_v2"], check=False)
    image, place = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    place.mkdir()
    subprocess.run([*MADE_BY[kind], str(image)], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop,prjquota", str(image), str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"this kernel mounts no {kind} with project quotas: make test-guest has one that does")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest_asyncio.fixture
async def data(disk: Path) -> AsyncIterator[Path]:
    require("conmon", "skopeo", "umoci", root=True)
    if reason := Projects(disk).missing:
        pytest.skip(f"this kernel has no project quotas: {reason}")
    yield disk / "data"
    await remove_all(disk / "data")


def container(name: str, target: str, **fields: Any) -> dict[str, Any]:
    script = f"dd if=/dev/zero of={target} bs=1M count=32 2>&1; sync; echo done; sleep 600"
    return {"name": name, "image": "isoplane.io/demo/busybox:1", "command": ["/bin/sh", "-c", script], **fields}


def declare() -> Workload:
    spec = {
        "hostNetwork": True,
        "containers": [
            container("own", "/root/big", resources={"limits": {"ephemeral-storage": "4Mi"}}),
            container("volume", "/v/big", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            container("free", "/root/big"),
        ],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}],
    }
    return PodAdapter().project({"metadata": {"name": "w", "namespace": "tests", "uid": "w"}, "spec": spec})


async def said(runtime: OciRuntime, unit: str) -> str:
    """What a unit has printed when it is done."""
    text = ""
    logs = runtime.logs("w", unit, follow=True, tail_lines=None, since=None, previous=False, timestamps=False)
    async for line in logs:
        text += line.decode()
        if line == b"done\n":
            break
    return text


async def test_writes_beyond_a_limit_and_its_margin_fail(data: Path) -> None:
    workload, projects = declare(), Projects(data.parent)
    runtime = OciRuntime(data, ImageStore(demo_images()))
    await runtime.start()
    await runtime.prepare(workload, Materials())
    for unit in workload.units:
        await runtime.start_unit(workload, unit, 0, Materials())
    for name, full in (("own", True), ("volume", True), ("free", False)):
        text = await said(runtime, name)
        assert ("No space left" in text or "quota exceeded" in text) is full, text
    use = await runtime.storage(workload)
    assert 4 * MIB < use.units["own"] <= 4 * MIB + margin(4 * MIB) + MIB // 8
    assert 2 * MIB < use.volumes["v"] <= 2 * MIB + margin(2 * MIB)
    assert use.units["free"] >= 32 * MIB
    assert eviction.judge(workload, use) is not None, "who is over a limit is evicted all the same"
    pod = data / "oci" / "pods" / "w"
    numbers = [projects.number_of(pod / "volumes" / "v"), projects.number_of(pod / "units/own/0/upper")]
    assert len(set(numbers)) == 2
    assert projects.number_of(pod / "units/free/0/upper") == 0
    assert all(projects.limit_of(number) for number in numbers)
    await runtime.close()
    # The next plane finds the limits where they are: in the file system.
    runtime = OciRuntime(data, ImageStore(demo_images()))
    await runtime.start()
    more = await runtime.exec("w", "volume", ["dd", "if=/dev/zero", "of=/v/again", "bs=1M", "count=4"], 10)
    assert more.exit_code != 0
    await runtime.remove("w")
    await runtime.close()
    assert [projects.limit_of(number) for number in numbers] == [0, 0]


def test_a_number_that_somebody_has_is_not_taken(disk: Path) -> None:
    projects = Projects(disk)
    if projects.missing:
        pytest.skip(f"this kernel has no project quotas: {projects.missing}")
    places = [disk / name for name in ("a", "b", "c")]
    for place in places:
        place.mkdir()
    projects.limit([places[0]], MIB)
    taken = projects.number_of(places[0])
    # As if the next one's name led to the same number.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("isoplane.node.runtime.oci.projects.FIRST", taken)
        patch.setattr("isoplane.node.runtime.oci.projects.COUNT", 2)
        projects.limit([places[1]], MIB)
        assert projects.number_of(places[1]) == taken + 1
        with pytest.raises(OSError, match="Too many users"):
            projects.limit([places[2]], MIB)


def test_a_file_system_without_them_is_said_and_changes_nothing(tmp_path: Path) -> None:
    projects = Projects(Path("/dev/shm"))
    assert "without project quotas" in projects.missing
    projects.limit([tmp_path], 1)
    projects.release([tmp_path])
