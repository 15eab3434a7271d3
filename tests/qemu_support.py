"""What the tests of machines share: the demo guest built once, VMIs as workloads, a tap with the host at its other end."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from isoplane.node import procfs
from isoplane.node.images import guest
from isoplane.node.images.store import ImageStore
from isoplane.node.runtime.protocol import Materials, NetworkInterface
from isoplane.node.runtime.qemu import QemuRuntime
from isoplane.node.runtime.qemu.cgroup import parents
from isoplane.workload.shape import Unit, UnitObserved, UnitState, Workload
from isoplane.workload.vmi import UNIT, MachineAdapter
from support import require

CACHE = Path(__file__).parent.parent / ".cache"
TOOLS = ("qemu-system-x86_64", "skopeo", "umoci", "apt-get", "dpkg-deb")


def guest_store() -> ImageStore:
    """A store that holds the demo guest, built anew only when what it is made of has changed."""
    require(*TOOLS, root=True)
    sources = [Path(guest.__file__), *sorted((Path(guest.__file__).parent / "guest_files").iterdir())]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    store = ImageStore(CACHE / f"guest-{key}")
    if store.lookup(guest.GUEST_IMAGE) is None:
        with ThreadPoolExecutor(1) as outside:  # a test's own event loop may be running here
            outside.submit(lambda: asyncio.run(guest.build_guest(store, cache=CACHE / "packages"))).result()
    return store


def machine_spec(arguments: str = "", *, memory: str = "96Mi", **more: Any) -> dict[str, Any]:
    """The spec of a VMI that boots the demo guest; ``more`` are further members of the spec."""
    container = {"image": guest.GUEST_IMAGE, "kernelPath": guest.KERNEL_PATH, "initrdPath": guest.INITRD_PATH}
    boot = {"container": container, "kernelArgs": f"console=ttyS0 quiet {arguments}".strip()}
    domain = {"memory": {"guest": memory}, "devices": {}, "firmware": {"kernelBoot": boot}}
    return {"domain": {**domain, **more.pop("domain", {})}, **more}


def machine_workload(spec: dict[str, Any], name: str = "vm", uid: str = "") -> Workload:
    """What the VMI adapter makes of a spec."""
    meta = {"name": name, "namespace": "tests", "uid": uid or str(uuid.uuid4())}
    return MachineAdapter().project(
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": meta, "spec": spec}
    )


@dataclass(frozen=True)
class Tap:
    """A tap on this host. The host has ``gateway``, the guest is to have ``address``; both in a /30 of their own."""

    interface: NetworkInterface

    @property
    def parameters(self) -> str:
        """Kernel parameters that give the demo guest its address without DHCP."""
        return f"isoplane.address={self.interface.address}/30 isoplane.gateway={self.interface.gateway}"


@contextmanager
def tap() -> Iterator[Tap]:
    seed = uuid.uuid4().bytes
    base = f"10.213.{seed[0]}.{seed[1] & ~3}".rsplit(".", 1)
    low = int(base[1])
    name, host, address = f"iqt{seed.hex()[:8]}", f"{base[0]}.{low + 1}", f"{base[0]}.{low + 2}"
    subprocess.run(["ip", "tuntap", "add", name, "mode", "tap"], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{host}/30", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        mac = "52:54:00:" + ":".join(f"{byte:02x}" for byte in seed[2:5])
        # As the fabric does: who asks for an address before its guest is up would ask again only a second later.
        subprocess.run(["ip", "neigh", "replace", address, "lladdr", mac, "nud", "permanent", "dev", name], check=True)
        yield Tap(NetworkInterface(tap=name, mac=mac, address=address, prefix_length=30, gateway=host))
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


class Harness:
    """One runtime in a directory, with the waits that tests need."""

    def __init__(self, directory: Path, store: ImageStore, accelerator: str | None = "tcg") -> None:
        self.runtime = QemuRuntime(directory, store, accelerator=accelerator)
        self.changes: list[str] = []
        self.runtime.on_change(self.changes.append)

    async def __aenter__(self) -> Harness:
        await self.runtime.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runtime.close()

    async def run(self, workload: Workload, network: NetworkInterface | None = None, attempt: int = 0) -> Unit:
        """Prepare and start."""
        materials = Materials(network=network or NetworkInterface())
        await self.runtime.prepare(workload, materials)
        await self.runtime.start_unit(workload, workload.units[0], attempt, materials)
        return workload.units[0]

    async def unit(self, uid: str) -> UnitObserved:
        observed = await self.runtime.observe(uid)
        assert observed is not None
        return observed.unit(UNIT)

    async def ended(self, uid: str, timeout: float = 60) -> UnitObserved:
        """The unit once it has exited."""
        return await self.until(uid, lambda unit: unit.state is UnitState.EXITED, timeout)

    async def shut_down(self, uid: str, timeout: float = 60) -> UnitObserved:
        """Press the power button, again every two seconds as the agent does, until the guest has powered off."""
        deadline = time.monotonic() + timeout
        while True:
            await self.runtime.stop_unit(uid, UNIT)
            again = min(time.monotonic() + 2, deadline)
            while time.monotonic() < again:
                if (unit := await self.unit(uid)).state is UnitState.EXITED:
                    return unit
                await asyncio.sleep(0.02)
            assert time.monotonic() < deadline, f"still {unit}; its console: {await self.log(uid)}"

    async def until(self, uid: str, holds: Callable[[UnitObserved], bool], timeout: float = 60) -> UnitObserved:
        deadline = time.monotonic() + timeout
        while not holds(unit := await self.unit(uid)):
            assert time.monotonic() < deadline, f"still {unit}; its console: {await self.log(uid)}"
            await asyncio.sleep(0.02)
        return unit

    async def log(self, uid: str, **options: Any) -> str:
        asked = {"follow": False, "tail_lines": None, "since": None, "previous": False, "timestamps": False, **options}
        return b"".join([line async for line in self.runtime.logs(uid, UNIT, **asked)]).decode(errors="replace")

    async def says(self, uid: str, text: str, timeout: float = 60) -> str:
        """The console log once ``text`` is in it."""
        deadline = time.monotonic() + timeout
        while text not in (log := await self.log(uid)):
            assert time.monotonic() < deadline, f"{text!r} is not on the console: {log}"
            await asyncio.sleep(0.05)
        return log


class PatientRuntime(QemuRuntime):
    """What the contract suite may ask without an agent around it.

    The power button is pressed until the guest has booted far enough to notice, as the agent does; and a new instance on
    a data directory takes the place of the one before, whose connections end as they do when a process is killed.
    """

    _latest: ClassVar[dict[Path, QemuRuntime]] = {}

    def __init__(self, data_dir: Path, images: ImageStore) -> None:
        super().__init__(data_dir, images, accelerator="tcg")
        self._data_dir = data_dir
        self._presses: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        before = self._latest.get(self._data_dir)
        if before is not None:
            await before.close()
        self._latest[self._data_dir] = self
        await super().start()

    async def close(self) -> None:
        for press in self._presses:
            press.cancel()
        await super().close()

    async def stop_unit(self, uid: str, unit: str) -> None:
        press = asyncio.create_task(self._press(uid, unit))
        self._presses.add(press)
        press.add_done_callback(self._presses.discard)

    async def _press(self, uid: str, unit: str) -> None:
        while (seen := await self.observe(uid)) and seen.unit(unit).state is not UnitState.EXITED:
            await super().stop_unit(uid, unit)
            await asyncio.sleep(0.5)


def traces_of(data_dir: Path) -> list[str]:
    """Everything on the host that still speaks of a data directory's machines: processes, control groups, files."""
    machines = data_dir / "qemu" / "machines"
    found = [str(path) for path in machines.iterdir()] if machines.exists() else []
    found += [str(group) for group in parents(machines).values() if group.exists()]
    for pid in procfs.numbers():
        if any(str(machines) in word for word in procfs.command_line(pid)):
            found.append(f"process {pid}")
    return found


async def page(address: str, timeout: float = 60) -> str:
    """The guest's page, as soon as it answers."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return await asyncio.to_thread(_get, f"http://{address}:8080/")
        except OSError:
            assert time.monotonic() < deadline, f"{address}:8080 does not answer"
            await asyncio.sleep(0.05)


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=1) as answer:
        return str(answer.read().decode())
