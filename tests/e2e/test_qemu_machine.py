"""Machines from start to end: they boot, serve, pause, obey the power button, and say how they ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from isoplane.node.images.guest import GUEST_IMAGE
from isoplane.node.images.model import ImageError
from isoplane.node.images.store import ImageStore
from isoplane.node.runtime.protocol import Materials, RuntimeFailure
from isoplane.node.runtime.qemu.cgroup import PIDS_LIMIT, parents
from isoplane.node.runtime.qemu.privileges import claim
from isoplane.workload.shape import RunState, UnitState
from qemu_support import Harness, machine_spec, machine_workload, page, tap
from support import require

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow]
NO_NETWORK = "no network card"


def traces(uid: str) -> list[str]:
    """Processes and control groups that carry a machine's uid."""
    listed = subprocess.run(["ps", "-eo", "pid,args", "-ww"], capture_output=True, text=True, check=True).stdout
    found = [line for line in listed.splitlines() if uid in line]
    return found + [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/isoplane/*/{uid}")]


async def test_a_machine_boots_serves_and_obeys_the_power_button(plane: Harness, tmp_path: Path) -> None:
    with tap() as net:
        workload = machine_workload(machine_spec(f"isoplane.hostname=vm-one {net.parameters}"))
        await plane.run(workload, net.interface)
        running = await plane.unit(workload.uid)
        assert (running.state, running.pid > 0) == (UnitState.RUNNING, True)
        assert running.details["accelerator"] == "tcg"
        assert running.details["qmp_status"] == "running"
        assert abs(running.started_at - time.time()) < 10

        assert "Hello from the virtual machine vm-one" in await page(net.interface.address)
        assert f"serving http://{net.interface.address}:8080/" in await plane.says(workload.uid, "serving")

        ended = await plane.shut_down(workload.uid)
        assert (ended.reason, ended.graceful, ended.exit_code) == ("GuestShutdown", True, 0)
        assert workload.uid in plane.changes

        assert traces(workload.uid)
        await plane.runtime.remove(workload.uid)
        await plane.runtime.remove(workload.uid)
        assert await plane.runtime.observe(workload.uid) is None
        assert traces(workload.uid) == []
        assert list((tmp_path / "qemu" / "machines").iterdir()) == []


async def test_the_guest_takes_its_address_by_dhcp(plane: Harness, tmp_path: Path) -> None:
    require("dnsmasq")
    with tap() as net:
        host = net.interface
        server = subprocess.Popen(  # noqa: ASYNC220
            ["dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--log-facility=-",
             f"--interface={host.tap}", "--bind-interfaces", "--dhcp-authoritative", "--no-ping",
             f"--dhcp-range={host.address},{host.address},255.255.255.252,1h",
             f"--dhcp-host={host.mac},{host.address},vm-dhcp", f"--dhcp-option=3,{host.gateway}",
             f"--dhcp-leasefile={tmp_path}/leases", f"--pid-file={tmp_path}/pid"],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            workload = machine_workload(machine_spec())
            await plane.run(workload, host)
            assert "vm-dhcp" in await page(host.address)
        finally:
            server.terminate()
            server.wait()
        await plane.runtime.remove(workload.uid)


async def test_a_guest_that_powers_off_by_itself_has_succeeded(plane: Harness) -> None:
    workload = machine_workload(machine_spec("isoplane.poweroff_after=0.1"))
    await plane.run(workload)
    ended = await plane.ended(workload.uid)
    assert (ended.reason, ended.graceful, ended.exit_code, ended.pid) == ("GuestShutdown", True, 0, 0)
    assert ended.finished_at > ended.started_at > 0


async def test_a_guest_whose_kernel_panics_has_failed(plane: Harness) -> None:
    workload = machine_workload(machine_spec("isoplane.panic_after=0.1"))
    await plane.run(workload)
    ended = await plane.ended(workload.uid)
    assert (ended.reason, ended.graceful, ended.exit_code) == ("GuestPanicked", False, 1)
    assert "sysrq triggered crash" in await plane.log(workload.uid)


async def test_killing_is_not_graceful_and_a_dead_qemu_is_a_crash(plane: Harness) -> None:
    killed, crashed = machine_workload(machine_spec(), "killed"), machine_workload(machine_spec(), "crashed")
    await plane.run(killed)
    await plane.run(crashed)

    await plane.runtime.kill_unit(killed.uid, "machine")
    await plane.runtime.kill_unit(killed.uid, "machine")
    ended = await plane.unit(killed.uid)
    assert (ended.state, ended.reason, ended.graceful) == (UnitState.EXITED, "Destroyed", False)

    os.kill((await plane.unit(crashed.uid)).pid, signal.SIGSEGV)
    ended = await plane.ended(crashed.uid, timeout=30)
    assert (ended.reason, ended.signal, ended.exit_code, ended.graceful) == ("Crashed", 11, 139, False)
    assert crashed.uid in plane.changes

    # A new attempt starts the same machine again, the old one is kept as the previous log.
    await plane.run(crashed, attempt=1)
    again = await plane.unit(crashed.uid)
    assert (again.state, again.attempt) == (UnitState.RUNNING, 1)
    await plane.says(crashed.uid, NO_NETWORK)
    await plane.log(crashed.uid, previous=True)


async def test_a_paused_machine_stands_still(plane: Harness) -> None:
    workload = machine_workload(machine_spec())
    await plane.run(workload)
    await plane.runtime.pause_unit(workload.uid, "machine", True)
    await plane.runtime.pause_unit(workload.uid, "machine", True)
    paused = await plane.unit(workload.uid)
    assert (paused.state, paused.details["qmp_status"]) == (UnitState.PAUSED, "paused")
    before = await plane.log(workload.uid)
    await asyncio.sleep(3)
    assert await plane.log(workload.uid) == before
    await plane.runtime.pause_unit(workload.uid, "machine", False)
    assert (await plane.unit(workload.uid)).state is UnitState.RUNNING
    await plane.says(workload.uid, NO_NETWORK)


async def test_qemu_has_no_rights_and_holds_its_image(plane: Harness, store: ImageStore, tmp_path: Path) -> None:
    workload = machine_workload(machine_spec())
    left_open = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(left_open, True)
    os.environ["SECRET_OF_THE_PLANE"] = "1"
    try:
        await plane.run(workload)
    finally:
        os.close(left_open)
        del os.environ["SECRET_OF_THE_PLANE"]
    pid = (await plane.unit(workload.uid)).pid
    process = Path(f"/proc/{pid}")
    assert b"SECRET" not in (process / "environ").read_bytes()
    assert not (process / "fd" / str(left_open)).exists() or os.readlink(process / "fd" / str(left_open)) != "/dev/null"
    ours = (str(tmp_path / "qemu"), str(store.root), "socket:", "anon_inode:", "pipe:", "/memfd:")
    devices = ("/dev/kvm", "/dev/null", "/dev/net/tun")
    opened = {os.readlink(entry) for entry in (process / "fd").iterdir()}
    assert [name for name in opened if not name.startswith((*ours, *devices))] == [], "nothing of the plane's"
    for kind in ("net", "mnt", "ipc", "uts"):
        assert os.readlink(process / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert [line.split(":")[0].strip() for line in (process / "net/dev").read_text().splitlines()[2:]] == ["lo"]
    groups = parents(tmp_path / "qemu" / "machines")
    pids = groups.get("pids", groups.get("")) / workload.uid / "pids.max"
    assert int(pids.read_text()) == PIDS_LIMIT
    rows = (row.split(":\t") for row in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in row)
    status = dict(rows)
    user = claim(tmp_path / "qemu" / "machines" / workload.uid)
    assert user > 0
    assert status["Uid"].split() == status["Gid"].split() == [str(user)] * 4
    assert (status["CapEff"], status["CapPrm"]) == ("0" * 16, "0" * 16)
    assert (status["Groups"].split(), status["NoNewPrivs"], status["Seccomp"]) == ([str(user)], "1", "2")
    with pytest.raises(ImageError, match="use"):
        await store.remove(GUEST_IMAGE)


async def test_starting_twice_starts_once(plane: Harness) -> None:
    workload = machine_workload(machine_spec())
    materials = Materials()
    await plane.runtime.prepare(workload, materials)
    unit = workload.units[0]
    await asyncio.gather(*(plane.runtime.start_unit(workload, unit, 0, materials) for _ in range(3)))
    assert len([line for line in traces(workload.uid) if "qemu" in line and "cgroup" not in line]) == 1


async def test_the_console_is_a_socket_and_exec_says_what_it_lacks(plane: Harness) -> None:
    workload = machine_workload(machine_spec("isoplane.hostname=console"))
    await plane.run(workload)
    await plane.says(workload.uid, "press Enter to activate")
    reader, writer = await plane.runtime.console(workload.uid)
    writer.write(b"\n")
    await asyncio.wait_for(reader.readuntil(b"# "), 10)
    writer.write(b"echo $((40+2)) $(hostname)\n")
    await asyncio.wait_for(reader.readuntil(b"42 console"), 10)
    writer.close()
    with pytest.raises(RuntimeFailure, match="no guest agent"):
        await plane.runtime.exec(workload.uid, "machine", ["true"], 1)


async def test_logs_follow_to_the_end_with_times(plane: Harness) -> None:
    workload = machine_workload(machine_spec("isoplane.poweroff_after=1.5"))
    begin = time.time()
    await plane.run(workload)
    followed = await asyncio.wait_for(plane.log(workload.uid, follow=True, timestamps=True), 30)
    assert NO_NETWORK in followed
    assert "Power down" in followed
    assert followed.startswith(time.strftime("%Y-%m-%dT", time.gmtime(begin)))
    assert (await plane.log(workload.uid, tail_lines=1)).count("\n") == 1
    assert await plane.log(workload.uid, since=time.time() + 1) == ""


async def test_a_machine_starts_paused_without_acpi_and_with_its_cable_out(plane: Harness) -> None:
    features = {"acpi": {"enabled": False}}
    card = {"interfaces": [{"name": "default", "masquerade": {}, "state": "down"}]}
    with tap() as wire:
        spec = machine_spec(wire.parameters, domain={"features": features, "devices": card}, startStrategy="Paused")
        workload = machine_workload(spec)
        assert workload.desired is RunState.PAUSE
        await plane.run(workload, wire.interface)
        unit = await plane.unit(workload.uid)
        assert (unit.state, unit.details["qmp_status"]) == (UnitState.PAUSED, "prelaunch")
        assert await plane.log(workload.uid) == ""
        await plane.runtime.pause_unit(workload.uid, "machine", False)
        assert (await plane.unit(workload.uid)).state is UnitState.RUNNING
        await plane.says(workload.uid, "serving")
        with pytest.raises(OSError):  # no answer at all: a closed port would refuse at once
            async with asyncio.timeout(3):
                await asyncio.open_connection(wire.interface.address, 8080)
