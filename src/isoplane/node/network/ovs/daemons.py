"""The Open vSwitch that serves this plane: the host's own when it has one running, else a pair of daemons in our directory.

Ours are started once, outlive the plane and are adopted by the next one.  Userspace segmentation off-load is switched on
before the switch starts: without it TCP between checksum-off-loading ends hangs while ping works.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from isoplane.node.network import tap
from isoplane.node.network.netlink import Netlink
from isoplane.node.network.ovs import jsonrpc, kernel
from isoplane.node.network.ovs.database import ensure_root
from isoplane.node.network.process import Daemon, find, run
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import FabricSettings

log = logging.getLogger(__name__)
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
USERSPACE_DATAPATH_LINK = "ovs-netdev"
LOCK = Path("/run/isoplane-ovs.lock")


@dataclass(frozen=True, slots=True)
class Switch:
    """Where a running Open vSwitch answers. ``owned`` says whether we started it and may stop it."""

    rundir: Path
    owned: bool
    datapath: str = ""
    """system (the kernel's) or netdev (userspace); '' before it is chosen."""

    @property
    def database(self) -> Path:
        return self.rundir / "db.sock"

    @property
    def datapath_name(self) -> str:
        """As ``ovs-appctl dpctl`` names it: type@backer."""
        return f"{self.datapath}@ovs-{self.datapath}"

    def management(self, bridge: str) -> Path:
        """The bridge's OpenFlow socket."""
        return self.rundir / f"{bridge}.mgmt"

    def control(self) -> Path:
        """The switch daemon's control socket. FabricFailure when it does not run."""
        ours = self.rundir / "vswitchd.ctl"
        return ours if self.owned else self.rundir / f"ovs-vswitchd.{_pid(self.rundir)}.ctl"


def _pid(rundir: Path) -> int:
    """Of the host's own switch daemon."""
    try:
        return int((rundir / "ovs-vswitchd.pid").read_text())
    except (OSError, ValueError) as error:
        raise FabricFailure(f"the host's ovs-vswitchd does not run: {error}") from error


class OpenvswitchDaemons:
    """Finds, starts, watches and stops them."""

    def __init__(self, settings: FabricSettings) -> None:
        self._settings = settings
        self._directory = settings.directory / "ovs"
        self._database = Daemon(self._directory / "ovsdb-server.pid")
        self._switch = Daemon(self._directory / "ovs-vswitchd.pid")

    async def find(self) -> Switch:
        """The switch to use. An owned one need not be running yet."""
        theirs = self._settings.openvswitch_rundir
        owned = True
        if not self._database.pid and (theirs / "db.sock").exists():
            try:
                await jsonrpc.call(theirs / "db.sock", "list_dbs", [], timeout=2)
                owned = False
            except FabricFailure:
                pass  # a socket that a stopped daemon left behind
        return Switch(self._directory if owned else theirs, owned)

    async def choose_datapath(self, switch: Switch, current: str) -> Switch:
        """With its datapath. ``current``: what the bridge is recorded with, '' when there is none yet.

        A bridge keeps what it runs on. FabricFailure when the operator asked for the kernel's and it cannot be had.
        """
        wanted = self._settings.datapath
        if current and (self._switch.pid or not switch.owned):
            return replace(switch, datapath=current)
        if wanted != kernel.NETDEV:
            ours = self._switch.pid if switch.owned else _pid(switch.rundir)
            why = await kernel.refusal(ours)
            if why and wanted == kernel.SYSTEM:
                raise FabricFailure(f"the kernel's Open vSwitch datapath cannot be had, use netdev or auto: {why}")
            if why:
                log.info("Open vSwitch in userspace, for the kernel's datapath cannot be had: %s", why)
            wanted = kernel.NETDEV if why else kernel.SYSTEM
        return replace(switch, datapath=wanted)

    def running(self) -> bool:
        return bool(self._database.pid and self._switch.pid)

    async def start_database(self) -> None:
        """Start the database server unless it runs. FabricFailure names a missing package."""
        for tool in ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd"):
            find(tool)
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._database.pid:
            return
        file = self._directory / "conf.db"
        if not file.exists():
            fresh = file.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            await run("ovsdb-tool", "create", str(fresh), str(SCHEMA))
            fresh.rename(file)
        await self._run_detached(
            "ovsdb-server", str(file), f"--remote=punix:{self._directory}/db.sock", control="ovsdb.ctl"
        )
        await ensure_root(self._directory / "db.sock", {"userspace-tso-enable": "true"})

    async def start_switch(self, datapath: str, ready: Callable[[], Awaitable[None]]) -> bool:
        """Start the switch unless it runs; ``ready`` waits for its bridge. True when it is new, so that it has no flows.

        To be called within ``one_at_a_time``.
        """
        fresh = not self._switch.pid
        if fresh:
            self._remove_links(self._settings.names.datapath_link)
            if datapath == kernel.NETDEV:
                await self._userspace_link_free()
            await self._run_detached("ovs-vswitchd", f"unix:{self._directory}/db.sock", control="vswitchd.ctl")
        await ready()
        with Netlink() as host:
            # Every userspace datapath makes a device of this one name: ours gets out of the way for the next switch.
            index = host.index(USERSPACE_DATAPATH_LINK)
            if datapath == kernel.NETDEV and index and not host.index(self._settings.names.datapath_link):
                host.set_link(index, name=self._settings.names.datapath_link).commit()
        return fresh

    async def _userspace_link_free(self) -> None:
        """A device that a dead switch left behind is taken over; one that is held by a living switch is in the way."""
        deadline = asyncio.get_running_loop().time() + 3
        while tap.busy(USERSPACE_DATAPATH_LINK):
            if asyncio.get_running_loop().time() > deadline:
                raise FabricFailure(
                    f"another ovs-vswitchd holds the device {USERSPACE_DATAPATH_LINK}: stop it, or, if it serves the host, "
                    f"let it answer at {self._settings.openvswitch_rundir}/db.sock so that it can be used"
                )
            await asyncio.sleep(0.05)

    def _remove_links(self, *names: str) -> None:
        with Netlink() as host:
            for name in names:
                if host.index(name):
                    host.delete_link(name).commit()

    @asynccontextmanager
    async def one_at_a_time(self) -> AsyncIterator[None]:
        """Starting among all planes of the host: choosing a datapath and taking it is one step."""
        descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    async def stop(self) -> None:
        """Stop our own daemons, the switch with its bridges and ports, and forget their files."""
        await self._switch.stop(lambda: jsonrpc.call(self._directory / "vswitchd.ctl", "exit", ["--cleanup"]))
        await self._database.stop()
        # A switch that was killed leaves its devices behind.
        await kernel.remove()
        self._remove_links(self._settings.names.bridge, self._settings.names.datapath_link)
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _run_detached(self, tool: str, *arguments: str, control: str) -> None:
        directory = str(self._directory)
        await run(
            tool,
            *arguments,
            f"--unixctl={directory}/{control}",
            f"--pidfile={directory}/{tool}.pid",
            f"--log-file={directory}/{tool}.log",
            "--detach",
            "--no-chdir",
            "-vconsole:off",
            "-vsyslog:off",
            "-vfile:warn",
            env={"OVS_RUNDIR": directory, "OVS_LOGDIR": directory, "OVS_DBDIR": directory},
        )
