"""Run a tool, and keep sight of a daemon that outlives us.

A daemon is known by its command line, which carries the path of its own pid file: a reused pid can never be taken for it.
Signals go through a pidfd that was opened before the command line was read.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from isoplane.node import procfs
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.programs import which

PACKAGES = {
    "ovsdb-server": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-tool": "openvswitch-switch",
    "ovs-ofctl": "openvswitch-switch",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "iptables-restore": "iptables",
    "iptables-save": "iptables",
    "ipset": "ipset",
}
"""Tool → the Debian package that brings it."""


def find(tool: str) -> str:
    """The tool's path, sbin directories included. FabricFailure names the package to install."""
    if (path := which(tool)) is not None:
        return path
    raise FabricFailure(f"{tool} is not installed: on Debian, `apt-get install {PACKAGES.get(tool, tool)}`")


async def run(
    tool: str, *arguments: str, stdin: bytes | None = None, env: Mapping[str, str] | None = None, timeout: float = 60
) -> bytes:
    """Run to the end and give back stdout. FabricFailure carries the tool's own complaint. ``timeout`` in seconds."""
    # In a thread, not as the loop's own child: under uvloop a daemon that detaches keeps the loop's pipes open for ever.
    command = [find(tool), *arguments]
    environment = {**os.environ, **env} if env else None

    def call() -> subprocess.CompletedProcess[bytes]:
        # An empty input and no input are the same to a tool: both end at once.
        return subprocess.run(
            command, input=stdin or b"", capture_output=True, env=environment, timeout=timeout, check=False
        )

    try:
        done = await asyncio.to_thread(call)
    except subprocess.TimeoutExpired:
        raise FabricFailure(f"{tool} {' '.join(arguments)[:200]} took more than {timeout:g} s") from None
    if done.returncode != 0:
        complaint = done.stderr.decode(errors="replace").strip()[:2000]
        raise FabricFailure(f"{tool} {' '.join(arguments)[:200]} failed with {done.returncode}: {complaint}")
    return done.stdout


class Daemon:
    """A background process that was started with ``--pidfile=FILE`` (or ``--pid-file=FILE``)."""

    def __init__(self, pid_file: Path) -> None:
        self.pid_file = pid_file
        self._marks = {f"--pidfile={pid_file}", f"--pid-file={pid_file}"}

    def _is_it(self, pid: int) -> bool:
        return not self._marks.isdisjoint(procfs.command_line(pid))

    @property
    def pid(self) -> int:
        """Its pid while it runs, else 0."""
        pid = procfs.read_pid(self.pid_file)
        if pid and self._is_it(pid):
            return pid
        # Killed before it wrote its pid file, or the file was deleted by hand: it may be running all the same.
        others = [number for number in procfs.numbers() if self._is_it(number)]
        return min(others, default=0)

    @property
    def arguments(self) -> Sequence[str]:
        """What it was started with, its own name apart; nothing while it does not run."""
        pid = self.pid
        return procfs.command_line(pid)[1:] if pid else []

    def handle(self) -> int:
        """A pidfd of this daemon and no other process, for the caller to close; -1 when it is not running."""
        pid = self.pid
        if not pid:
            return -1
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return -1
        if not self._is_it(pid):
            os.close(descriptor)
            return -1
        return descriptor

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal. False when it is not running."""
        descriptor = self.handle()
        if descriptor < 0:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)

    async def stop(self, ask: Callable[[], Awaitable[object]] | None = None, timeout: float = 5) -> None:
        """End it and wait until it is gone with all it held: by ``ask`` or SIGTERM, and by SIGKILL after ``timeout`` seconds."""
        descriptor = self.handle()
        if descriptor >= 0:
            try:
                with suppress(ProcessLookupError):
                    try:
                        if ask is not None:
                            await ask()
                        else:
                            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                    except FabricFailure:  # it hangs, or its socket is gone
                        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                    if not await _ended(descriptor, timeout):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                        await _ended(descriptor, timeout)
            finally:
                os.close(descriptor)
        self.pid_file.unlink(missing_ok=True)


async def _ended(descriptor: int, timeout: float) -> bool:
    """Whether the process behind the pidfd ended, with its files closed, within ``timeout`` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not select.select([descriptor], [], [], 0)[0]:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True
