"""What a plane finds when it comes back after kill -9: running machines go on, ended ones say how they ended."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.node.images.store import ImageStore
from isoplane.node.runtime.qemu import machine as machine_module
from isoplane.workload.shape import UnitState
from qemu_support import Harness, machine_spec, machine_workload

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow]

PLANE = """
import asyncio, json, sys
from pathlib import Path
from isoplane.node.images.store import ImageStore
from qemu_support import Harness, machine_workload

async def main(data, store, spec, uid):
    async with Harness(Path(data), ImageStore(Path(store))) as plane:
        print("starting", flush=True)
        await plane.run(machine_workload(json.loads(spec), uid=uid))
        print("running", flush=True)
        await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


def start_plane(directory: Path, store: ImageStore, spec: dict[str, Any], uid: str) -> subprocess.Popen[str]:
    """A plane in a process of its own that has one machine; it prints ``starting`` and ``running``."""
    return subprocess.Popen(
        [sys.executable, "-c", PLANE, str(directory), str(store.root), json.dumps(spec), uid],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip


def kill_plane(plane: subprocess.Popen[str], after: str = "running") -> None:
    """kill -9 once it has said ``after``."""
    assert plane.stdout is not None
    for line in plane.stdout:
        if line.strip() == after:
            break
    else:
        pytest.fail(f"the plane never said {after}")
    plane.kill()
    plane.wait()
    plane.stdout.close()


def qemus(mark: str) -> list[int]:
    """Live QEMU processes with ``mark`` on their command line."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_text(errors="replace")
        except OSError:
            continue
        if mark in words and "qemu-system" in words.split("\0")[0]:
            found.append(int(entry))
    return found


@pytest.fixture(autouse=True)
def _no_machine_outlives_its_test(tmp_path: Path) -> Iterator[None]:
    yield
    for pid in qemus(str(tmp_path)):
        os.kill(pid, signal.SIGKILL)


async def test_a_running_machine_is_adopted_and_not_restarted(tmp_path: Path, store: ImageStore) -> None:
    workload = machine_workload(machine_spec("isoplane.hostname=adopted"))
    kill_plane(start_plane(tmp_path, store, machine_spec("isoplane.hostname=adopted"), workload.uid))
    before = qemus(workload.uid)
    async with Harness(tmp_path, store) as plane:
        [observed] = await plane.runtime.observe_all()
        unit = observed.unit("machine")
        assert (observed.uid, observed.prepared, unit.state) == (workload.uid, True, UnitState.RUNNING)
        assert [unit.pid] == before
        await plane.run(workload)
        assert qemus(workload.uid) == before
        await plane.says(workload.uid, "guest adopted")
        assert (await plane.shut_down(workload.uid)).reason == "GuestShutdown"
        await plane.runtime.remove(workload.uid)
    assert qemus(workload.uid) == []


@pytest.mark.parametrize(
    ("parameter", "reason", "graceful"),
    [("poweroff_after", "GuestShutdown", True), ("panic_after", "GuestPanicked", False)],
)
async def test_how_a_guest_ended_is_known_although_nobody_watched(
    tmp_path: Path, store: ImageStore, parameter: str, reason: str, graceful: bool
) -> None:
    spec = machine_spec(f"isoplane.{parameter}=0.5")
    workload = machine_workload(spec)
    kill_plane(start_plane(tmp_path, store, spec, workload.uid))
    log = tmp_path / "qemu" / "machines" / workload.uid / "serial-0.log"
    deadline = time.monotonic() + 60
    while not any(last in log.read_bytes() for last in (b"Power down", b"Kernel panic")):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    async with Harness(tmp_path, store) as plane:
        ended = await plane.ended(workload.uid)
        assert (ended.reason, ended.graceful) == (reason, graceful)
        await plane.runtime.remove(workload.uid)
    # A third plane would find nothing.
    async with Harness(tmp_path, store) as plane:
        assert await plane.runtime.observe_all() == []


async def test_a_qemu_that_died_while_nobody_watched_has_crashed(tmp_path: Path, store: ImageStore) -> None:
    workload = machine_workload(machine_spec())
    kill_plane(start_plane(tmp_path, store, machine_spec(), workload.uid))
    [pid] = qemus(workload.uid)
    os.kill(pid, signal.SIGKILL)
    async with Harness(tmp_path, store) as plane:
        ended = await plane.ended(workload.uid)
        assert (ended.reason, ended.graceful) == ("Crashed", False)
        again = await plane.run(workload, attempt=1)
        assert again.name == "machine"
        assert (await plane.unit(workload.uid)).attempt == 1
        await plane.runtime.remove(workload.uid)


async def test_an_end_that_was_decided_is_carried_out(tmp_path: Path, store: ImageStore) -> None:
    """The plane died between writing down that the machine is destroyed and QEMU's end."""
    workload = machine_workload(machine_spec())
    kill_plane(start_plane(tmp_path, store, machine_spec(), workload.uid))
    end = {"attempt": 0, "reason": "Destroyed", "message": "", "graceful": False, "exit_code": 137, "signal": 9}
    (tmp_path / "qemu" / "machines" / workload.uid / "end.json").write_text(
        json.dumps({**end, "finished_at": time.time()})
    )
    async with Harness(tmp_path, store) as plane:
        assert (await plane.ended(workload.uid)).reason == "Destroyed"
        assert qemus(workload.uid) == []
        await plane.runtime.remove(workload.uid)


async def test_a_machine_that_does_not_answer_is_kept_and_asked_again(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "ADOPT_TIMEOUT", 0.1)
    workload = machine_workload(machine_spec())
    kill_plane(start_plane(tmp_path, store, machine_spec(), workload.uid))
    [pid] = qemus(workload.uid)
    os.kill(pid, signal.SIGSTOP)
    async with Harness(tmp_path, store) as plane:
        assert (await plane.unit(workload.uid)).state is UnitState.RUNNING
        os.kill(pid, signal.SIGCONT)
        await plane.until(workload.uid, lambda unit: unit.details["qmp_status"] == "running")
        assert qemus(workload.uid) == [pid]
        await plane.runtime.remove(workload.uid)


async def test_a_machine_without_its_directory_is_an_orphan_and_killed(tmp_path: Path, store: ImageStore) -> None:
    workload = machine_workload(machine_spec())
    kill_plane(start_plane(tmp_path, store, machine_spec(), workload.uid))
    directory = tmp_path / "qemu" / "machines" / workload.uid
    directory.rename(tmp_path / "elsewhere")
    async with Harness(tmp_path, store) as plane:
        assert await plane.runtime.observe_all() == []
        assert qemus(workload.uid) == []
        assert list(Path("/sys/fs/cgroup").glob(f"*/isoplane/*/{workload.uid}")) == []


async def test_killed_at_any_moment_of_a_start_the_next_plane_has_one_machine(
    tmp_path: Path, store: ImageStore
) -> None:
    """Ten planes die 0 to 150 ms after they began to start the machine; each time there is one machine in the end."""
    moments = random.Random(7)
    for round_ in range(10):
        directory = tmp_path / str(round_)
        workload = machine_workload(machine_spec())
        plane_process = start_plane(directory, store, machine_spec(), workload.uid)
        assert plane_process.stdout is not None
        assert plane_process.stdout.readline().strip() == "starting"
        await asyncio.sleep(moments.uniform(0, 0.15))
        plane_process.kill()
        plane_process.wait()
        plane_process.stdout.close()
        async with Harness(directory, store) as plane:
            await plane.run(workload)
            assert (await plane.unit(workload.uid)).state is UnitState.RUNNING
            assert len(qemus(workload.uid)) == 1, f"round {round_}"
            await plane.runtime.remove(workload.uid)
        assert qemus(workload.uid) == []
        assert list(Path("/sys/fs/cgroup").glob(f"*/isoplane/*/{workload.uid}")) == []
