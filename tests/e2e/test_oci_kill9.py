"""The plane is killed at a random moment while it starts containers: nothing is started twice, nothing is left over."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from isoplane.node.images import ImageStore
from isoplane.node.runtime.oci import OciRuntime
from isoplane.node.runtime.protocol import Materials
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import UnitState, Workload
from oci_support import demo_images, traces_of
from support import require

pytestmark = pytest.mark.root

ROUNDS = 12
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
SPAN = 0.12
"""Seconds after its start within which the process is killed: starting takes less."""


def declare(uid: str, shared: Path) -> Workload:
    script = f"echo {uid} >> /shared/starts; exec sleep 300"
    mount = {"name": "shared", "mountPath": "/shared"}
    container = {"image": "isoplane.io/demo/busybox:1", "command": ["/bin/sh", "-c", script], "volumeMounts": [mount]}
    spec = {
        "hostNetwork": True,
        "containers": [{**container, "name": "a"}, {**container, "name": "b"}],
        "volumes": [{"name": "shared", "hostPath": {"path": str(shared)}}],
    }
    return PodAdapter().project({"metadata": {"name": uid, "namespace": "kill9", "uid": uid}, "spec": spec})


async def start_all(data_dir: Path, images: Path, shared: Path) -> OciRuntime:
    """What the controller does after a restart: prepare and start everything again, without knowing what is done."""
    runtime = OciRuntime(data_dir, ImageStore(images), runtime="crun")
    await runtime.start()
    for uid in ("w1", "w2"):
        workload = declare(uid, shared)
        await runtime.prepare(workload, Materials())
        await asyncio.gather(*(runtime.start_unit(workload, unit, 0, Materials()) for unit in workload.units))
    return runtime


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Path]:
    """A directory for the data directories data0, data1…, whose containers are removed whatever happens."""
    require("crun", "conmon", "skopeo", "umoci", root=True)
    try:
        yield tmp_path
    finally:
        for data_dir in tmp_path.glob("data*"):
            runtime = OciRuntime(data_dir, ImageStore(demo_images()), runtime="crun")
            await runtime.start()
            for observed in await runtime.observe_all():
                await runtime.remove(observed.uid)
            await runtime.close()


async def said_four_times(starts: Path) -> None:
    """Wait until every container has had its say, and a moment longer for one that has it twice."""
    async with asyncio.timeout(20):
        while not starts.exists() or len(starts.read_text().split()) < 4:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)


async def test_killed_while_starting(place: Path) -> None:
    images = demo_images()
    dice = random.Random(7)
    for number in range(ROUNDS):
        data_dir, shared = place / f"data{number}", place / f"shared{number}"
        shared.mkdir()
        arguments = [sys.executable, __file__, str(data_dir), str(images), str(shared)]
        victim = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE, env=ENVIRONMENT)
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"starting\n"
        await asyncio.sleep(dice.uniform(0, SPAN))
        victim.kill()
        await victim.wait()
        runtime = await start_all(data_dir, images, shared)
        try:
            observed = await runtime.observe_all()
            assert [o.uid for o in observed] == ["w1", "w2"]
            assert {unit.state for o in observed for unit in o.units.values()} == {UnitState.RUNNING}
            assert {unit.attempt for o in observed for unit in o.units.values()} == {0}
            await said_four_times(shared / "starts")
            assert sorted((shared / "starts").read_text().split()) == ["w1", "w1", "w2", "w2"]
        finally:
            for uid in ("w1", "w2"):
                await runtime.remove(uid)
            await runtime.close()
        assert traces_of(data_dir) == []


async def test_killed_while_removing(place: Path) -> None:
    images = demo_images()
    dice = random.Random(11)
    for number in range(ROUNDS // 2):
        data_dir, shared = place / f"data{number}", place / f"shared{number}"
        shared.mkdir()
        await (await start_all(data_dir, images, shared)).close()
        arguments = [sys.executable, __file__, str(data_dir), str(images), str(shared), "remove"]
        victim = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE, env=ENVIRONMENT)
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"starting\n"
        await asyncio.sleep(dice.uniform(0, 0.08))
        victim.kill()
        await victim.wait()
        runtime = OciRuntime(data_dir, ImageStore(images), runtime="crun")
        await runtime.start()
        for observed in await runtime.observe_all():
            await runtime.remove(observed.uid)
        await runtime.close()
        assert traces_of(data_dir) == []


async def _victim(data_dir: Path, images: Path, shared: Path, removing: bool) -> None:
    if removing:
        runtime = OciRuntime(data_dir, ImageStore(images), runtime="crun")
        await runtime.start()
        print("starting", flush=True)
        await asyncio.gather(runtime.remove("w1"), runtime.remove("w2"))
    else:
        print("starting", flush=True)
        await start_all(data_dir, images, shared)
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(_victim(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:] == ["remove"]))
