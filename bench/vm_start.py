"""What the QEMU runtime adds to a machine's start: runtime start → first HTTP answer, over the same command line by hand.

    python bench/vm_start.py [--runs 20] [--together 8] [--out FILE]     (as root, with the demo guest's packages)

By hand means: the very argv that the runtime would use, started from a directory with its disks ready, without control
groups, monitor connection or records.  Both kinds are interleaved, each on a tap of its own; an answer is looked for every
10 ms.  ``--together`` starts that many at once, by either way in turn.  Also measured: what one monitor connection costs,
by our QMP client and by the qemu.qmp package.  Figures are of this machine and this run; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from isoplane.node.images.store import ImageStore
from isoplane.node.runtime.protocol import Materials
from isoplane.node.runtime.qemu import command, privileges, probe
from isoplane.node.runtime.qemu.disks import make_files
from isoplane.node.runtime.qemu.domain import parse
from isoplane.node.runtime.qemu.qmp import Qmp
from isoplane.workload.vmi import UNIT
from qemu_support import Harness, Tap, guest_store, machine_spec, machine_workload, tap

Timed = Callable[[Tap, Path], Awaitable[float]]
LOOK_EVERY = 0.01


async def first_answer(address: str, deadline: float = 120) -> None:
    """Return as soon as the guest has answered one HTTP request."""
    end = time.perf_counter() + deadline
    loop = asyncio.get_running_loop()
    while time.perf_counter() < end:
        with socket.socket() as client:
            client.setblocking(False)
            try:
                async with asyncio.timeout(0.03):
                    await loop.sock_connect(client, (address, 8080))
                    await loop.sock_sendall(client, b"GET / HTTP/1.0\r\n\r\n")
                    if (await loop.sock_recv(client, 4096)).startswith(b"HTTP/"):
                        return
            except (OSError, TimeoutError):
                pass
        await asyncio.sleep(LOOK_EVERY)
    raise TimeoutError(f"{address} did not answer")


async def by_runtime(plane: Harness, net: Tap) -> float:
    workload = machine_workload(machine_spec(net.parameters))
    begin = time.perf_counter()
    try:
        await plane.run(workload, net.interface)
        await first_answer(net.interface.address)
        return time.perf_counter() - begin
    finally:
        await plane.runtime.remove(workload.uid)


async def by_hand(host: probe.Host, store: ImageStore, net: Tap) -> float:
    with tempfile.TemporaryDirectory() as directory:
        domain = parse(machine_spec(net.parameters))
        files = await make_files(domain, Path(directory), store, Materials(), instance_id="i", hostname="h")
        identity = command.Identity(str(uuid.uuid4()), "bench", "by-hand")
        user = privileges.unprivileged(identity.uid)
        run = command.Run(host.binary, host.accelerator, f"{directory}/pid", "serial.log", user, host.version)
        argv = command.build(domain, files, identity, net.interface, run)
        begin = time.perf_counter()
        child = subprocess.Popen(argv, cwd=directory, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
        try:
            await first_answer(net.interface.address)
            return time.perf_counter() - begin
        finally:
            child.kill()
            child.wait()


async def monitors(plane: Harness, rounds: int = 30) -> dict[str, float]:
    """Milliseconds to connect and ask once, and kilobytes of Python memory held by an open connection, for both clients."""
    from qemu.qmp import QMPClient

    workload = machine_workload(machine_spec())
    await plane.run(workload)
    machine = plane.runtime._machines[workload.uid]
    machine.release()
    path = machine.directory / "qmp.sock"

    async def ours() -> Any:
        qmp = await Qmp.connect(path, lambda *_: None)
        await qmp.execute("query-status")
        return qmp

    async def theirs() -> Any:
        qmp = QMPClient("bench")
        await qmp.connect(str(path))
        await qmp.execute("query-status")
        return qmp

    async def closed(qmp: Any) -> None:
        if isinstance(qmp, Qmp):
            qmp.close()
        else:
            await qmp.disconnect()
        await asyncio.sleep(0.02)

    found: dict[str, float] = {}
    for name, connect in (("ours", ours), ("qemu.qmp", theirs)):
        await closed(await connect())
        times = []
        for _ in range(rounds):
            begin = time.perf_counter()
            qmp = await connect()
            times.append(time.perf_counter() - begin)
            await closed(qmp)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        qmp = await connect()
        found[f"{name}_kB"] = round((tracemalloc.get_traced_memory()[0] - before) / 1000, 1)
        tracemalloc.stop()
        await closed(qmp)
        found[f"{name}_ms"] = round(statistics.median(times) * 1000, 2)
    subprocess.run(["kill", "-9", str(machine.run.pid if machine.run else 0)], check=True)  # noqa: ASYNC221
    return found


async def measure(runs: int, together: int) -> dict[str, Any]:
    store = guest_store()
    results: dict[str, list[float]] = {"by_runtime": [], "by_hand": []}
    at_once: dict[str, list[float]] = {"by_runtime": [], "by_hand": []}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        nets = [stack.enter_context(tap()) for _ in range(max(1, together))]
        async with Harness(directory, store, accelerator=None) as plane:
            host = await plane.runtime.host()
            ways: dict[str, Callable[[Tap], Awaitable[float]]] = {
                "by_runtime": lambda net: by_runtime(plane, net),
                "by_hand": lambda net: by_hand(host, store, net),
            }
            for number in range(runs):
                for name in sorted(ways, reverse=bool(number % 2)):
                    results[name].append(await ways[name](nets[0]))
                    print(f"\r{number + 1}/{runs}", end="", file=sys.stderr, flush=True)
            for number in range(4 if together > 1 else 0):
                for name in sorted(ways, reverse=bool(number % 2)):
                    begin = time.perf_counter()
                    await asyncio.gather(*(ways[name](net) for net in nets))
                    at_once[name].append(time.perf_counter() - begin)
            qmp = await monitors(plane)
            for observed in await plane.runtime.observe_all():
                await plane.runtime.remove(observed.uid)
    print(file=sys.stderr)
    return {
        "machine": f"{platform.processor() or platform.machine()}, {platform.release()}",
        "accelerator": host.accelerator,
        "unit": UNIT,
        "one": _summary(results),
        f"{together}_at_once": _summary(at_once),
        "monitor": qmp,
    }


def _summary(results: dict[str, list[float]]) -> dict[str, Any]:
    if not results["by_hand"]:
        return {}
    medians = {name: statistics.median(times) for name, times in results.items()}
    rounded = {name: [round(t, 3) for t in times] for name, times in results.items()}
    return {
        "ratio": round(medians["by_runtime"] / medians["by_hand"], 3),
        "median_seconds": {name: round(value, 3) for name, value in medians.items()},
        "raw_seconds": rounded,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--together", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    # So that an interrupted run leaves no machine and no tap behind.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    found = json.dumps(asyncio.run(measure(options.runs, options.together)), indent=1)
    print(found)
    if options.out:
        options.out.write_text(found + "\n")


if __name__ == "__main__":
    main()
