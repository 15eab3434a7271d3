"""Commands and pings by the real QEMU guest agent, in a guest that has it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from isoplane.node.images.build import Entry, write_layout
from isoplane.node.images.guest import GUEST_IMAGE, cpio, read_kernel_package
from isoplane.node.images.store import ImageStore
from isoplane.node.runtime.protocol import RuntimeFailure
from qemu_support import CACHE, Harness, guest_store, machine_spec, machine_workload

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow]
IMAGE = "isoplane.test/agent:1"
PACKAGES = (
    "qemu-guest-agent", "libc6", "libglib2.0-0", "libnuma1", "libudev1", "liburing2", "libpcre2-8-0",
)  # fmt: skip
LIBRARIES = (
    "ld-linux-x86-64", "libc", "libm", "libglib-2.0", "libgmodule-2.0", "libnuma", "libudev", "liburing", "libpcre2-8",
)  # fmt: skip
START = "\n".join((
    "#!/bin/sh",
    "insmod /agent/virtio_console.ko",
    "while [ ! -e /dev/vport1p1 ] && [ ! -e /dev/vport0p1 ]; do sleep 0.1; done",
    "echo agent starts",
    "exec env LD_LIBRARY_PATH=/agent /agent/ld /agent/qemu-ga -m virtio-serial -p /dev/vport*p1 -t /run",
))  # fmt: skip


def agent_files(scratch: Path) -> list[Entry]:
    """The agent with its libraries, and the console driver, for a second ramdisk on top of the demo guest's."""
    packages = CACHE / "packages"
    root = scratch / "root"
    for name in PACKAGES:
        found = sorted(packages.glob(f"{name}_*.deb"))
        if not found:
            subprocess.run(
                ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name], cwd=packages, check=True,
                capture_output=True,
            )  # fmt: skip
            found = sorted(packages.glob(f"{name}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(found[-1]), str(root)], check=True)
    _, _, modules = read_kernel_package(next(packages.glob("linux-image-*.deb")))
    entries = [
        Entry("agent"),
        Entry("agent/qemu-ga", 0o755, (root / "usr/sbin/qemu-ga").read_bytes()),
        Entry("agent/virtio_console.ko", 0o644, modules["virtio_console"]),
    ]
    for path in root.rglob("*.so.*"):
        if path.name.split(".so")[0] in LIBRARIES:
            name = "ld" if path.name.startswith("ld-") else path.name
            entries.append(Entry(f"agent/{name}", 0o755, path.resolve().read_bytes()))
    return entries


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    store = guest_store()
    scratch = tmp_path_factory.mktemp("agent")

    async def load() -> None:
        rootfs = (await store.resolve(GUEST_IMAGE)).rootfs
        initrd = (rootfs / "boot/initrd.img").read_bytes() + cpio(agent_files(scratch))
        kernel = (rootfs / "boot/vmlinuz").read_bytes()
        entries = [Entry("boot"), Entry("boot/vmlinuz", 0o644, kernel), Entry("boot/initrd.img", 0o644, initrd)]
        write_layout(scratch / "layout", entries, {})
        await store.load(str(scratch / "layout"), IMAGE)

    asyncio.run(load())
    return store


def spec(**more: Any) -> dict[str, Any]:
    seed = {"name": "seed", "cloudInitNoCloud": {"userData": START}}
    found = machine_spec(memory="192Mi", volumes=[seed], readinessProbe={"exec": {"command": ["true"]}}, **more)
    found["domain"]["firmware"]["kernelBoot"]["container"]["image"] = IMAGE
    return found


async def test_commands_run_in_the_guest_and_give_output_and_exit_code(plane: Harness) -> None:
    workload = machine_workload(spec())
    await plane.run(workload)
    with pytest.raises(RuntimeFailure, match=r"did not answer within 0\.5 s"):
        await plane.runtime.exec(workload.uid, "machine", ["/bin/true"], 0.5)
    await plane.says(workload.uid, "agent starts")
    await plane.runtime.ping(workload.uid, "machine", 20)

    result = await plane.runtime.exec(workload.uid, "machine", ["/bin/sh", "-c", "echo out; echo err >&2; exit 4"], 10)
    assert (result.exit_code, result.output) == (4, b"out\nerr\n")
    assert (await plane.runtime.exec(workload.uid, "machine", ["/bin/sh", "-c", "kill -9 $$"], 10)).exit_code == 137
    with pytest.raises(RuntimeFailure, match="refused guest-exec"):
        await plane.runtime.exec(workload.uid, "machine", ["/no/such/command"], 10)
    # A command that takes too long is given up, and does not disturb the next.
    with pytest.raises(RuntimeFailure, match="did not answer within 1 s"):
        await plane.runtime.exec(workload.uid, "machine", ["/bin/sleep", "5"], 1)
    several = [plane.runtime.exec(workload.uid, "machine", ["/bin/echo", str(n)], 20) for n in range(4)]
    assert [r.output for r in await asyncio.gather(*several)] == [b"0\n", b"1\n", b"2\n", b"3\n"]

    await plane.runtime.kill_unit(workload.uid, "machine")
    with pytest.raises(RuntimeFailure, match="does not run"):
        await plane.runtime.exec(workload.uid, "machine", ["/bin/true"], 1)
