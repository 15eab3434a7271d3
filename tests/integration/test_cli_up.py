"""``isoplane up``, ``down`` and ``vm`` as people use them: what is printed, the exit codes, and every way to fail clearly."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import samples_support as samples
from isoplane.objects.errors import Unauthorized
from isoplane.objects.kinds import NAMESPACES, PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES
from plane_support import PlaneProcess, wait_until


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    process = PlaneProcess(tmp_path / "data", "--runtime", "simulated")
    yield process
    process.close()


def isoplane(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isoplane.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **(env or {})})


def refused(data: Path, *arguments: str) -> str:
    """The one line that a plane which cannot start leaves on stderr."""
    done = isoplane("up", "--runtime", "simulated", "--data", str(data), *arguments)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    return done.stderr


async def make_namespace(plane: PlaneProcess) -> None:
    async with plane.api() as api:
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tenant-a"}})


async def make_pod(plane: PlaneProcess, name: str = "web") -> None:
    async with plane.api() as api:
        await api.create(PODS, samples.pod(name), namespace="tenant-a")


async def phases(plane: PlaneProcess) -> list[str]:
    async with plane.api() as api:
        return [str((o.get("status") or {}).get("phase")) for o in (await api.list(PODS, "tenant-a")).items]


def test_ready_kubeconfig_and_a_clean_end(plane: PlaneProcess) -> None:
    plane.start()
    assert stat.S_IMODE(plane.kubeconfig.stat().st_mode) == 0o600
    assert plane.stop() == 0
    assert plane.log() == "", "nothing to complain about"


def test_a_second_instance_names_the_first(plane: PlaneProcess) -> None:
    plane.start()
    message = refused(plane.data, "--listen", "127.0.0.1:0")
    assert f"in use by process {plane.pid}" in message
    assert plane.stop() == 0


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} is already in use" in refused(tmp_path / "data", "--listen", f"127.0.0.1:{port}")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1", "127.0.0.1:99999", "::1:x"])
def test_a_bad_address_says_how_to_write_one(tmp_path: Path, listen: str) -> None:
    assert "write HOST:PORT" in refused(tmp_path / "data", "--listen", listen)


def test_a_data_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--data" in refused(tmp_path / "file", "--listen", "127.0.0.1:0")


def test_a_damaged_database_is_left_as_it_is(plane: PlaneProcess) -> None:
    plane.start()
    plane.stop()
    database = plane.data / "isoplane.db"
    broken = b"this is no database" * 1000
    database.write_bytes(broken)
    for extra in ("-wal", "-shm"):
        (plane.data / f"isoplane.db{extra}").unlink(missing_ok=True)
    assert "isoplane.db" in refused(plane.data, "--listen", "127.0.0.1:0")
    assert database.read_bytes() == broken


def test_anonymous_requests_are_refused(plane: PlaneProcess) -> None:
    plane.start()
    import httpx
    import yaml

    server = yaml.safe_load(plane.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    with httpx.Client(verify=False, trust_env=False) as client:
        assert client.get(f"{server}/api/v1/pods").status_code == Unauthorized.code
        for path in ("/healthz", "/readyz", "/livez", "/version"):
            assert client.get(f"{server}{path}").status_code == 200


async def test_workloads_go_on_without_a_plane_and_end_with_stop_workloads(plane: PlaneProcess) -> None:
    await asyncio.to_thread(plane.start)
    await make_namespace(plane)
    await make_pod(plane)
    for _ in range(100):
        if await phases(plane) == ["Running"]:
            break
        await asyncio.sleep(0.05)
    assert plane.stop() == 0
    stopping = PlaneProcess(plane.data, "--runtime", "simulated", "--stop-workloads")
    await asyncio.to_thread(stopping.start)
    assert await phases(stopping) == ["Running"], "adopted"
    assert await asyncio.to_thread(stopping.stop) == 0
    await asyncio.to_thread(plane.start)
    assert await phases(plane) == []


async def test_down_stops_a_running_plane_and_keeps_the_objects(plane: PlaneProcess) -> None:
    await asyncio.to_thread(plane.start)
    await make_namespace(plane)
    await make_pod(plane)
    for _ in range(100):
        if await phases(plane) == ["Running"]:
            break
        await asyncio.sleep(0.05)
    assert "removed 1 workload " in await asyncio.to_thread(plane.down)
    plane.close()
    await asyncio.to_thread(plane.start)
    for _ in range(100):
        if await phases(plane) == ["Running"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the Pod is not started again")


def test_down_of_nothing_says_so(tmp_path: Path) -> None:
    done = isoplane("down", "--data", str(tmp_path / "nothing"))
    assert done.returncode == 2
    assert "nothing to take down" in done.stderr


async def test_vm_commands(plane: PlaneProcess) -> None:
    await asyncio.to_thread(plane.start)
    await make_namespace(plane)
    machine = samples.vmi("keeper")
    vm = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "keeper", "namespace": "tenant-a"},
        "spec": {"runStrategy": "Always", "template": {"metadata": {"labels": {"app": "k"}}, "spec": machine["spec"]}},
    }
    env = {"KUBECONFIG": str(plane.kubeconfig)}

    def run(*arguments: str) -> str:
        done = isoplane("vm", *arguments, "-n", "tenant-a", env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def status(wanted: str) -> None:
        async with plane.api() as api:
            for _ in range(200):
                found = ((await api.get(VIRTUALMACHINES, "keeper", "tenant-a")).get("status") or {}).get(
                    "printableStatus"
                )
                if found == wanted:
                    return
                await asyncio.sleep(0.05)
        raise AssertionError(f"the VM is {found}, not {wanted}")

    async with plane.api() as api:
        await api.create(VIRTUALMACHINES, vm, namespace="tenant-a")
        await status("Running")
        assert "pause" in await asyncio.to_thread(run, "pause", "keeper")
        await status("Paused")
        await asyncio.to_thread(run, "unpause", "keeper")
        await status("Running")
        first = (await api.get(VIRTUALMACHINEINSTANCES, "keeper", "tenant-a"))["metadata"]["uid"]
        await asyncio.to_thread(run, "restart", "keeper")
        for _ in range(200):
            found = (await api.list(VIRTUALMACHINEINSTANCES, "tenant-a")).items
            if found and found[0]["metadata"]["uid"] != first:
                break
            await asyncio.sleep(0.05)
        await status("Running")
        await asyncio.to_thread(run, "stop", "keeper")
        await status("Stopped")
        await asyncio.to_thread(run, "start", "keeper")
        await status("Running")
    missing = await asyncio.to_thread(isoplane, "vm", "start", "nobody", "-n", "tenant-a", env=env)
    assert missing.returncode == 1
    assert '"nobody" not found' in missing.stderr
    lost = await asyncio.to_thread(isoplane, "vm", "start", "keeper", env={"KUBECONFIG": "/nonexistent"})
    assert lost.returncode == 2
    assert "/nonexistent" in lost.stderr


def test_the_plane_survives_a_flood_of_broken_connections(plane: PlaneProcess) -> None:
    """Half-open and silent clients do not keep others out."""
    plane.start()
    import yaml

    server = yaml.safe_load(plane.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    host, _, port = server.removeprefix("https://").rpartition(":")
    silent = [socket.create_connection((host, int(port)), timeout=5) for _ in range(50)]
    for number, link in enumerate(silent):
        link.sendall(b"GET / HTTP/1.1\r\n" if number % 2 else b"\x16\x03\x01")

    async def answers() -> bool:
        async with plane.api() as api:
            return len((await api.list(NAMESPACES)).items) >= 4

    wait_until(lambda: asyncio.run(answers()), 10, "an answer beside silent clients")
    for link in silent:
        link.close()
    assert plane.stop() == 0


def test_a_simulation_leaves_no_real_workloads_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "data" / "qemu" / "machines" / "uid").mkdir(parents=True)
    told = refused(tmp_path / "data")
    assert "1 real workloads" in told
    assert "isoplane down" in told


def test_a_simulation_keeps_its_records_apart(tmp_path: Path) -> None:
    """What it remembers must never be taken for links and addresses of the host."""
    plane = PlaneProcess(tmp_path / "data", "--runtime", "simulated").start()
    assert plane.stop() == 0
    assert not (tmp_path / "data" / "network").exists()
    assert (tmp_path / "data" / "simulated" / "network").is_dir()


@pytest.mark.parametrize(("typed", "offered"), [("isoplane po", "policy"), ("isoplane policy ex", "explain")])
def test_the_shell_completes_commands(typed: str, offered: str) -> None:
    asked = {"_ISOPLANE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    command = [str(Path(sys.executable).with_name("isoplane"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **asked})
    assert offered in done.stdout.split()
