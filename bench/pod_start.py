"""What the plane adds to a Pod's start: API accepted → Running, over a script that does the same steps by hand.

    python bench/pod_start.py [--runs 20] [--together 50] [--parallel 8] [--runtime crun|runc] [--out FILE]   (as root)

By hand means one `sh` script per Pod: a network namespace with a veth and its addresses (three `ip -batch` calls), an overlay
mount on the same image, `create` and `start` of the low-level runtime; no log supervisor, no policy, no API, no database.
The plane is the whole of `isoplane up` in this process, with nftables; its time is from the answer to the create request until
a watch shows the phase Running, and, as a second figure, from before the request.  Both ways are interleaved.  ``--together``
starts that many at once by either way in turn, by hand ``--parallel`` at a time, which is how many threads the plane uses.
Also measured: the runtime's own part (prepare and start of a container in the host's network), and where its time goes.
Figures are of this machine and this run; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from isoplane.client.api import Api
from isoplane.node.images import ImageStore
from isoplane.node.parts import NodeOptions
from isoplane.node.runtime.oci import OciRuntime, cgroups, kernel, spec
from isoplane.node.runtime.protocol import Materials
from isoplane.objects.kinds import NAMESPACES, PODS
from isoplane.plane import Plane, PlaneOptions
from isoplane.workload.pod import PodAdapter
from oci_support import demo_images

IMAGE = "isoplane.io/demo/busybox:1"
COMMAND = ["/bin/sleep", "300"]
NAMESPACE = "bench"
_numbers = itertools.count(1)

SCRIPT = """
set -e
mkdir -p {d}/upper {d}/work {d}/rootfs
ip -batch - <<END
netns add {n}
link add {h} mtu 1500 type veth peer name eth0 netns {n}
END
ip -n {n} -batch - <<END
link set lo up
addr add 10.251.{a}.{b}/32 dev eth0
link set eth0 up
route add 169.254.1.1 dev eth0
route add default via 169.254.1.1 dev eth0 onlink
END
ip -batch - <<END
link set {h} up
route add 10.251.{a}.{b}/32 dev {h}
END
mount -t overlay overlay -o lowerdir={lower},upperdir={d}/upper,workdir={d}/work {d}/rootfs
{runtime} --root {state} create --bundle {d} --pid-file {d}/pid {n} </dev/null >{d}/log 2>&1
{runtime} --root {state} start {n}
"""


def _hide_unified() -> None:
    """Give the scripts, too, what crun wants on a host with both cgroup versions: a mount namespace without the second."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
    if (hidden := cgroups.hybrid_mount()) is not None:
        kernel.unmount(hidden)
        kernel.mount("bench", hidden, "tmpfs")


class ByHand:
    """Starts containers by a script, and clears them away."""

    def __init__(self, directory: Path, runtime: str, lower: Path) -> None:
        self._directory = directory
        self._runtime = runtime
        self._lower = lower
        self._names: list[tuple[str, str, Path]] = []
        self._thread = ThreadPoolExecutor(1, initializer=_hide_unified)

    async def _run(self, *command: str) -> int:
        """A process in the scripts' mount namespace."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        process = await loop.run_in_executor(self._thread, lambda: subprocess.Popen(command, stderr=subprocess.DEVNULL))
        fd = os.pidfd_open(process.pid)
        loop.add_reader(fd, ended.set)
        await ended.wait()
        loop.remove_reader(fd)
        os.close(fd)
        return process.wait()

    def bundle(self) -> str:
        """A container's directory with its config.json, and the script that starts it: this part is not timed."""
        number = next(_numbers)
        name, host = f"isobench{os.getpid()}-{number}", f"ib{os.getpid() % 10000}-{number}"
        directory = self._directory / name
        directory.mkdir()
        container = spec.Container(
            args=COMMAND, environment={"PATH": "/bin"}, cgroup=f"/isobench/{name}", hostname=name,
            netns=f"/run/netns/{name}",
        )  # fmt: skip
        (directory / "config.json").write_text(json.dumps(spec.document(container)))
        self._names.append((name, host, directory))
        return SCRIPT.format(
            d=directory, n=name, h=host, a=number // 250, b=number % 250 + 1, lower=self._lower,
            runtime=self._runtime, state=self._directory / "state",
        )  # fmt: skip

    async def start(self, script: str) -> float:
        begin = time.perf_counter()
        if await self._run("sh", "-c", script) != 0:
            raise RuntimeError("the script failed")
        return time.perf_counter() - begin

    async def clear(self) -> None:
        for name, host, directory in self._names:
            for command in (
                (self._runtime, "--root", str(self._directory / "state"), "delete", "--force", name),
                ("umount", str(directory / "rootfs")),
                ("ip", "link", "delete", host),
                ("ip", "netns", "delete", name),
            ):
                await self._run(*command)
            cgroups.remove(f"/isobench/{name}")
            shutil.rmtree(directory)
        cgroups.remove_empty_parents("/isobench")
        self._names.clear()


class ByPlane:
    """Creates Pods through the API of a running plane, and waits for their phase."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._running: dict[str, asyncio.Event] = {}
        self._gone: dict[str, asyncio.Event] = {}

    async def follow(self) -> None:
        page = await self._api.list(PODS, NAMESPACE)
        async for event in self._api.watch(PODS, NAMESPACE, resource_version=page.resource_version):
            name = event.object["metadata"].get("name", "")
            if event.type == "DELETED":
                self._gone.setdefault(name, asyncio.Event()).set()
            elif (event.object.get("status") or {}).get("phase") == "Running":
                self._running.setdefault(name, asyncio.Event()).set()

    async def start(self) -> tuple[float, float, str]:
        """(seconds from accepted, seconds from asked, name)."""
        name = f"p{next(_numbers)}"
        running = self._running.setdefault(name, asyncio.Event())
        container = {"name": "c", "image": IMAGE, "command": COMMAND}
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
        }  # fmt: skip
        asked = time.perf_counter()
        await self._api.create(PODS, pod, namespace=NAMESPACE)
        accepted = time.perf_counter()
        async with asyncio.timeout(60):
            await running.wait()
        now = time.perf_counter()
        return now - accepted, now - asked, name

    async def remove(self, name: str) -> None:
        gone = self._gone.setdefault(name, asyncio.Event())
        await self._api.delete(PODS, name, NAMESPACE, grace_seconds=0)
        async with asyncio.timeout(60):
            await gone.wait()


@contextlib.asynccontextmanager
async def running_plane(directory: Path) -> AsyncIterator[ByPlane]:
    options = PlaneOptions(data_dir=directory, listen="127.0.0.1:0", node=NodeOptions(images=demo_images()))
    plane = Plane(options)
    await plane.start()
    try:
        await plane.api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        pods = ByPlane(plane.api)
        follower = asyncio.create_task(pods.follow())
        await asyncio.sleep(0.5)
        yield pods
        follower.cancel()
    finally:
        await plane.take_down()


async def one_by_one(pods: ByPlane, hand: ByHand, runs: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"plane": [], "plane_from_request": [], "by_hand": []}

    async def through_plane() -> None:
        accepted, asked, name = await pods.start()
        found["plane"].append(accepted)
        found["plane_from_request"].append(asked)
        await pods.remove(name)

    async def through_script() -> None:
        found["by_hand"].append(await hand.start(hand.bundle()))
        await hand.clear()

    ways: list[Callable[[], Awaitable[None]]] = [through_plane, through_script]
    for number in range(runs + 2):
        for way in ways if number % 2 else reversed(ways):
            await way()
            await asyncio.sleep(0.05)
        if number == 1:  # the first of each warm caches
            for times in found.values():
                times.clear()
    return found


async def together(pods: ByPlane, hand: ByHand, count: int, parallel: int, rounds: int = 4) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"plane": [], "by_hand": []}
    for _ in range(rounds if count > 1 else 0):
        begin = time.perf_counter()
        started = await asyncio.gather(*(pods.start() for _ in range(count)))
        found["plane"].append(time.perf_counter() - begin)
        await asyncio.gather(*(pods.remove(name) for _, _, name in started))
        limit = asyncio.Semaphore(parallel)
        scripts = [hand.bundle() for _ in range(count)]

        async def limited(script: str, limit: asyncio.Semaphore = limit) -> None:
            async with limit:
                await hand.start(script)

        begin = time.perf_counter()
        await asyncio.gather(*(limited(script) for script in scripts))
        found["by_hand"].append(time.perf_counter() - begin)
        await hand.clear()
    return found


async def runtime_alone(directory: Path, name: str | None, runs: int) -> dict[str, Any]:
    """The runtime without API, controllers and network: milliseconds of prepare, start, and remove."""
    runtime = OciRuntime(directory, ImageStore(demo_images()), runtime=name)
    await runtime.start()
    times: dict[str, list[float]] = {"prepare": [], "start_unit": [], "observe": [], "remove": []}
    try:
        for number in range(runs):
            container = {"name": "c", "image": IMAGE, "command": COMMAND}
            meta = {"name": "p", "namespace": NAMESPACE, "uid": f"bench-{number}"}
            workload = PodAdapter().project(
                {"metadata": meta, "spec": {"hostNetwork": True, "containers": [container]}}
            )
            steps: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
                ("prepare", lambda w=workload: runtime.prepare(w, Materials())),
                ("start_unit", lambda w=workload: runtime.start_unit(w, w.units[0], 0, Materials())),
                ("observe", lambda w=workload: runtime.observe(w.uid)),
                ("remove", lambda w=workload: runtime.remove(w.uid)),
            ]  # type: ignore[misc]
            for step, act in steps:
                begin = time.perf_counter()
                await act()
                times[step].append(time.perf_counter() - begin)
        return {
            "low_level_runtime": runtime.info["runtime"],
            "median_ms": {step: round(statistics.median(values) * 1000, 2) for step, values in times.items()},
        }
    finally:
        for observed in await runtime.observe_all():
            await runtime.remove(observed.uid)
        await runtime.close()


def _summary(results: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(times) for name, times in results.items() if times}
    if not medians:
        return {}
    return {
        "ratio": round(medians["plane"] / medians["by_hand"], 3),
        "median_ms": {name: round(value * 1000, 1) for name, value in medians.items()},
        "raw_ms": {name: [round(t * 1000, 1) for t in times] for name, times in results.items()},
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="isobench-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        directory = Path(scratch)
        alone = await runtime_alone(directory / "alone", options.runtime, options.runs)
        chosen = str(alone["low_level_runtime"])
        image = ImageStore(demo_images()).lookup(IMAGE)
        assert image is not None
        hand = ByHand(directory, chosen, image.rootfs)
        try:
            async with running_plane(directory / "plane") as pods:
                one = await one_by_one(pods, hand, options.runs)
                many = await together(pods, hand, options.together, options.parallel)
        finally:
            await hand.clear()
    return {
        "machine": f"{platform.processor() or platform.machine()}, {platform.release()}, {os.cpu_count()} cores",
        "runtime_alone": alone,
        "one": _summary(one),
        f"{options.together}_at_once": _summary(many),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--together", type=int, default=50)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--runtime", choices=("crun", "runc"), help="[default: the one the plane would choose]")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = json.dumps(uvloop.run(measure(options)), indent=1)
    print(found)
    if options.out:
        options.out.write_text(found + "\n")


if __name__ == "__main__":
    main()
