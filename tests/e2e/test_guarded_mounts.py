"""A link in one volume that leads another one's mount to the kernel's places: no such container starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from isoplane.node.images import ImageStore
from isoplane.node.runtime.oci import OciRuntime, launch
from isoplane.node.runtime.protocol import Materials, RuntimeFailure
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import UnitState, Workload
from oci_support import demo_images, remove_all, traces_of
from support import require

pytestmark = pytest.mark.root

OVER = (
    "/proc",
    "/sys",
    "/proc/self/attr",
    "/proc/sys/kernel",
    "/sys/fs/cgroup",
    "/sys/kernel",
    "../../../proc/fs",
    "/proc/1",
)
ELSEWHERE = ("/var", "../home")


def declare(link: str, medium: str = "") -> Workload:
    """``maker`` puts the link into volume a; ``c`` mounts volume b below it."""
    common: dict[str, Any] = {"image": "isoplane.io/demo/busybox:1"}
    a, b = {"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/a/x"}
    make = f"ln -sfn {link} /a/x; touch /a/made; sleep 600"
    spec = {
        "hostNetwork": True,
        "containers": [
            {**common, "name": "maker", "command": ["/bin/sh", "-c", make], "volumeMounts": [a]},
            {**common, "name": "c", "command": ["/bin/sh", "-c", "sleep 600"], "volumeMounts": [a, b]},
        ],
        "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {"medium": medium}}],
    }
    return PodAdapter().project({"metadata": {"name": "w", "namespace": "tests", "uid": "w"}, "spec": spec})


async def started(data: Path, name: str) -> OciRuntime:
    runtime = OciRuntime(data, ImageStore(demo_images()), runtime=name)
    await runtime.start()
    return runtime


async def linked(runtime: OciRuntime, workload: Workload, data: Path) -> None:
    """Prepare and run the maker until the link is there."""
    await runtime.prepare(workload, Materials())
    await runtime.start_unit(workload, workload.units[0], 0, Materials())
    async with asyncio.timeout(10):
        while not (data / "oci/pods/w/volumes/a/made").exists():
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    """A data directory, whose containers are removed whatever happens."""
    require("crun", "runc", "conmon", "skopeo", "umoci", root=True)
    yield tmp_path
    await remove_all(tmp_path)
    assert traces_of(tmp_path) == []


@pytest.mark.parametrize("name", ["crun", "runc"])
async def test_a_link_in_a_volume_leads_no_mount_over_the_kernels_places(data: Path, name: str) -> None:
    runtime = await started(data, name)
    for number, link in enumerate((*OVER, *ELSEWHERE)):
        workload = declare(link, "Memory" if number % 2 else "")
        await linked(runtime, workload, data)
        if link in OVER:
            with pytest.raises(RuntimeFailure) as refused:
                await runtime.start_unit(workload, workload.units[1], 0, Materials())
            # runc refuses what leads into /proc itself, and nothing else; crun nothing.
            own = "nothing can be mounted there" in refused.value.message
            assert own or (name == "runc" and "cannot be mounted because it is" in refused.value.message), (
                refused.value.message
            )
            observed = await runtime.observe("w")
            assert observed is not None
            assert observed.unit("c").state is UnitState.ABSENT
        else:
            await runtime.start_unit(workload, workload.units[1], 0, Materials())
        await runtime.remove("w")
    await runtime.close()
    assert traces_of(data) == []


async def test_one_created_by_a_plane_that_was_killed_is_looked_at_too(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = declare("/proc")
    runtime = await started(data, "crun")
    await linked(runtime, workload, data)
    with monkeypatch.context() as killed:
        killed.setattr(launch.Starter, "release", lambda *_: None)
        await runtime.start_unit(workload, workload.units[1], 0, Materials())
    await runtime.close()
    runtime = await started(data, "crun")
    async with asyncio.timeout(10):
        while (observed := await runtime.observe("w")) and observed.unit("c").state is not UnitState.EXITED:
            await asyncio.sleep(0.01)
    assert observed is not None
    assert observed.unit("maker").state is UnitState.RUNNING
    await runtime.remove("w")
    await runtime.close()
    assert traces_of(data) == []
