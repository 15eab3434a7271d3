"""The machines' bridge: a switch, its gateway port on the host, and DHCP; kept running, adopted, and removed as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from isoplane.node.network.dhcp import Dhcp
from isoplane.node.network.ipam import Lease, mac_of
from isoplane.node.network.links import Links
from isoplane.node.network.ovs.daemons import OpenvswitchDaemons, Switch
from isoplane.node.network.ovs.database import Bridge
from isoplane.node.network.process import run
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import FabricSettings, Ranges

OPEN_FLOWS = "table=0,priority=0,actions=NORMAL\n"
"""Without a policy engine the bridge is an ordinary learning switch."""


class MachineBridge:
    """One plane's bridge on one host."""

    def __init__(self, settings: FabricSettings, ranges: Ranges, links: Links, workers: ThreadPoolExecutor) -> None:
        self._settings, self._ranges, self._links, self._workers = settings, ranges, links, workers
        self.name = settings.names.bridge
        self._daemons = OpenvswitchDaemons(settings)
        network6 = ranges.six.bridged if ranges.six else None
        self._dhcp = Dhcp(settings.directory / "dhcp", self.name, ranges.bridged, network6)
        self._switch: Switch | None = None

    @property
    def switch(self) -> Switch:
        if self._switch is None:
            raise FabricFailure("the bridge is not started")
        return self._switch

    @property
    def management(self) -> Path:
        """The OpenFlow socket that an engine loads flows through."""
        return self.switch.management(self.name)

    def _bridge(self) -> Bridge:
        return Bridge(self.switch.database, self.name, str(self._settings.data_dir.resolve()))

    async def start(self, leases: Sequence[Lease]) -> bool:
        """Bring it up or adopt it. True when the switch is new, so that its flow tables are empty."""
        fresh = False
        async with self._daemons.one_at_a_time():
            self._switch = await self._daemons.find()
            if self._switch.owned:
                await self._daemons.start_database()
            bridge = self._bridge()
            self._switch = await self._daemons.choose_datapath(self._switch, await bridge.datapath())
            await bridge.ensure(self._switch.datapath, mac_of(self._ranges.bridge_gateway), self._settings.mtu)
            if self._switch.owned:
                fresh = await self._daemons.start_switch(self._switch.datapath, bridge.ready)
            else:
                await bridge.ready()
        await self._host(self._links.prepare_gateway, self.name)
        await self._forget_strangers(bridge, leases)
        if not self._settings.enforced:
            await self._open()
        await self._dhcp.start(self._settings.mtu, restart=fresh)
        self.serve(leases)
        return fresh

    async def _forget_strangers(self, bridge: Bridge, leases: Sequence[Lease]) -> None:
        """Ports of workloads that are gone: a crash between the steps of an unplug left them."""
        known = {self._settings.names.link(lease.type, lease.uid) for lease in leases}
        for port in await bridge.ports():
            if port.name.startswith(self._settings.names.link_prefixes) and port.name not in known:
                await bridge.remove(port.name)

    async def _open(self) -> None:
        socket = f"unix:{self.management}"
        await run("ovs-ofctl", "-OOpenFlow14", "--bundle", "replace-flows", socket, "-", stdin=OPEN_FLOWS.encode())

    async def revive(self, leases: Sequence[Lease]) -> bool:
        """Start again whatever died. True when the switch did, and its flows are gone."""
        if self._switch is None or not self._switch.owned or (self._daemons.running() and self._dhcp.running):
            return False
        return await self.start(leases)

    async def add(self, lease: Lease, leases: Sequence[Lease], fresh: bool) -> None:
        """Give the workload's link its port, and its machine an address. ``fresh``: the link was made just now."""
        self.serve(leases)
        if fresh:  # a port that is there already holds on to a device that is gone
            await self._bridge().remove(self._settings.names.link(lease.type, lease.uid), settled=True)
        await self._bridge().add(
            self._settings.names.link(lease.type, lease.uid), lease.port_number, lease.uid, lease.mac
        )

    async def remove(self, lease: Lease) -> None:
        await self._bridge().remove(self._settings.names.link(lease.type, lease.uid))

    def serve(self, leases: Sequence[Lease]) -> None:
        self._dhcp.serve(leases)

    async def teardown(self) -> None:
        """Stop DHCP and our daemons; on the host's own switch remove the bridge alone."""
        await self._dhcp.stop()
        switch = await self._daemons.find()
        if not switch.owned:
            await Bridge(switch.database, self.name, str(self._settings.data_dir.resolve())).destroy()
        await self._daemons.stop()

    async def _host(self, function: object, *arguments: object) -> None:
        assert callable(function)
        await asyncio.get_running_loop().run_in_executor(self._workers, function, *arguments)
