"""The fabric of a real host: containers on routed veths, machines on an Open vSwitch bridge, one IPAM, one node address.

    container eth0 10.244.0.5/32 ── iv… ┐                        ┌ it… ── tap of a machine, 10.244.128.7/17 by DHCP
                                        ├ host routes ── iso-br… ┤ (LOCAL, 10.244.128.1)
    container eth0 10.244.0.6/32 ── iv… ┘                        └ it…

Each has an IPv6 address as well (see ``ipv6``), unless the host has none.
It makes and removes links and remembers addresses; which packets pass is for the engines.  Everything needed to go on after
kill -9 is in the kernel, in the address record and in the switch's database; nothing is only in memory.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from isoplane.node.keyed_locks import KeyedLocks
from isoplane.node.network import forwarding, nat, netns, sysctl
from isoplane.node.network.background import Background
from isoplane.node.network.bridge import MachineBridge
from isoplane.node.network.dhcp import Dhcp
from isoplane.node.network.engines import nfnetlink
from isoplane.node.network.engines.iptables import IptablesEngine
from isoplane.node.network.engines.protocol import EngineFailure
from isoplane.node.network.interface import interface_of
from isoplane.node.network.ipam import Ipam, Lease
from isoplane.node.network.ipv6 import OFF, Ranges6
from isoplane.node.network.links import SANDBOX_INTERFACE, Links
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.ranges import settle
from isoplane.node.network.settings import DEFAULT_RANGES, NETNS_DIRECTORY, FabricSettings, Ranges, Wiring
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.workload.shape import Workload

log = logging.getLogger(__name__)
T = TypeVar("T")
WATCH_SECONDS = 2.0


class HostFabric:
    """Implements ``Fabric``. Needs root (or CAP_NET_ADMIN and CAP_SYS_ADMIN) and, for machines, Open vSwitch and dnsmasq."""

    def __init__(self, settings: FabricSettings) -> None:
        self.settings = settings
        self.names = settings.names
        self._ipam = Ipam(settings.directory / "ipam.sqlite", settings.quarantine_seconds)
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="fabric")
        self._locks = KeyedLocks()
        self._note = settings.directory / "sysctl.json"
        self._range_copy = settings.directory / "range"
        self._watcher = Background()
        self._listeners: list[Callable[[], None]] = []
        self._ranges: Ranges | None = None
        self.ipv6_missing = ""
        """Why workloads have no IPv6 addresses; '' when they have."""
        self.bridge: MachineBridge | None = None
        self._dhcp: Dhcp | None = None
        """For machines on links of their own; the bridge brings its own."""

    @property
    def ranges(self) -> Ranges:
        if self._ranges is None:
            raise FabricFailure("the fabric is not started")
        return self._ranges

    @property
    def node_addresses(self) -> tuple[str, ...]:
        return self.ranges.nodes

    @property
    def _links(self) -> Links:
        return Links(self.names, self.ranges, self.settings.mtu)

    @property
    def wirings(self) -> frozenset[Wiring]:
        """Those in use: by the settings, and by workloads that were plugged in under other settings."""
        leased = {lease.wiring for lease in self._ipam.leases()}
        return frozenset({self.settings.container_wiring, self.settings.machine_wiring, *leased})

    def on_reset(self, callback: Callable[[], None]) -> None:
        """Call when the switch was started anew, so that an engine loads its rules again. On the event loop."""
        self._listeners.append(callback)

    async def start(self) -> None:
        self._ipam.open()
        settled = await self._work("settling the node's ranges", settle, self.settings, self._ipam)
        self._ranges, self.ipv6_missing = settled
        await self._work("preparing the host", self._prepare)
        await forwarding.enable(self.names)
        if self.settings.masquerade:
            await nat.enable(self.names, self.ranges, self._note)
        if Wiring.BRIDGED in self.wirings:
            self.bridge = MachineBridge(self.settings, self.ranges, self._links, self._workers)
            await self.bridge.start(self._bridge_leases())
        if self.settings.machine_wiring is Wiring.ROUTED or self._machine_leases():
            pattern = self.names.link_prefixes[1] + "*"
            routed6 = self.ranges.six.routed if self.ranges.six else None
            self._dhcp = Dhcp(self.settings.directory / "dhcp-routed", pattern, self.ranges.routed, routed6)
            await self._dhcp.start(self.settings.mtu)
            self._dhcp.serve(self._machine_leases())
        self._watcher.start(self._watch())

    def _prepare(self) -> None:
        self.settings.directory.mkdir(parents=True, exist_ok=True)
        netns.prepare(NETNS_DIRECTORY)
        six = self.ranges.six
        self._range_copy.write_text(f"{self.ranges.whole} {six.whole}" if six else str(self.ranges.whole))
        if six:
            sysctl.forward_ipv6(self._note)
        self._links.prepare_node(f"isoplane {self.settings.data_dir.resolve()}")
        orphans = self._links.leftovers([lease.uid for lease in self._ipam.leases()])
        if orphans:
            log.warning("removing links without an owner: %s", ", ".join(orphans))
            self._links.remove_named(orphans)

    async def _watch(self) -> None:
        """Bring back daemons that died, and the way out. Machines keep their taps meanwhile; ports start closed again."""
        generation = -1
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                if self.ranges.six:  # another plane that leaves takes its own wish with it
                    sysctl.forward_ipv6(self._note)
                if self.settings.masquerade and (now := await asyncio.to_thread(nfnetlink.generation)) != generation:
                    generation = now
                    if not await nat.exists(self.names, self.ranges):
                        await nat.enable(self.names, self.ranges, self._note)
                if self._dhcp is not None:
                    await self._dhcp.start(self.settings.mtu)
                if self.bridge is not None and await self.bridge.revive(self._bridge_leases()):
                    for callback in self._listeners:
                        callback()
            except (FabricFailure, OSError) as failure:
                log.error("a daemon of the network cannot be brought back: %s", failure)

    async def close(self) -> None:
        await self._watcher.close()
        self._workers.shutdown()
        self._ipam.close()

    async def plug(self, workload: Workload) -> NetworkInterface:
        if not workload.interface.own:
            address, *six = self.node_addresses
            return NetworkInterface(address=address, address6="".join(six), mtu=self.settings.mtu)
        async with self._locks.hold(workload.uid):
            wiring = self.settings.wiring_of(workload.interface)
            if wiring is Wiring.BRIDGED and self.bridge is None:
                raise FabricFailure(f"{workload.id} needs the bridge, which is not started")
            what = f"plugging in {workload.id}"
            lease, fresh = await self._work(what, self._lease_and_link, workload, wiring)
            if lease.wiring is Wiring.BRIDGED and self.bridge is not None:
                await self.bridge.add(lease, self._bridge_leases(), fresh)
            elif self._dhcp is not None and lease.type.set_up_by_guest:
                self._dhcp.serve(self._machine_leases())
            return interface_of(lease, self.settings)

    def _lease_and_link(self, workload: Workload, wiring: Wiring) -> tuple[Lease, bool]:
        """The lease, and whether its link is new."""
        lease = self._ipam.lease(workload.uid, workload.namespace, workload.name, workload.interface, wiring)
        return lease, self._links.make(lease)

    async def unplug(self, uid: str) -> None:
        async with self._locks.hold(uid):
            lease = self._ipam.get(uid)
            if lease is not None:
                if lease.wiring is Wiring.BRIDGED and self.bridge is not None:
                    await self.bridge.remove(lease)
                await self._work(f"unplugging {lease.namespace}/{lease.name}", self._unlink_and_release, uid)
                if lease.wiring is Wiring.BRIDGED and self.bridge is not None:
                    self.bridge.serve(self._bridge_leases())
                elif self._dhcp is not None:
                    self._dhcp.serve(self._machine_leases())

    def _unlink_and_release(self, uid: str) -> None:
        self._links.remove(uid)
        self._ipam.release(uid)

    async def interfaces(self) -> Sequence[NetworkInterface]:
        """Every workload with a lease: also one whose link a crash left unfinished, which ``plug`` completes."""
        return [interface_of(lease, self.settings) for lease in self._ipam.leases()]

    def _bridge_leases(self) -> Sequence[Lease]:
        return [lease for lease in self._ipam.leases() if lease.wiring is Wiring.BRIDGED]

    def _machine_leases(self) -> Sequence[Lease]:
        return [lease for lease in self._ipam.leases() if lease.wiring is Wiring.ROUTED and lease.type.set_up_by_guest]

    async def teardown(self) -> None:
        await self._watcher.close()
        known, known6 = self._remembered_ranges()
        known = known or self.settings.cidr
        known6 = known6 or ("" if self.settings.cidr6 == OFF else self.settings.cidr6)
        if self._ranges is None:
            # Without any memory of the range its links are found by their names, and only its routes may stay.
            self._ranges = Ranges.of(known or DEFAULT_RANGES[0], Ranges6.of(known6) if known6 else None)
        bridge = self.bridge or MachineBridge(self.settings, self.ranges, self._links, self._workers)
        await bridge.teardown()
        await Dhcp(self.settings.directory / "dhcp-routed", "", self._ranges.routed).stop()
        await self._work("removing links", self._remove_links, bool(known))
        await forwarding.disable(self.names)
        await nat.remove_tables(self.names)
        try:
            await IptablesEngine(self.names.tag, self.names.link_prefixes).clear_if_any()
        except EngineFailure as failure:
            raise FabricFailure(f"rules of iptables are left: {failure}") from failure
        sysctl.give_back(self._note)
        self._ipam.close()
        self._workers.shutdown()
        shutil.rmtree(self.settings.directory, ignore_errors=True)

    def _remembered_ranges(self) -> tuple[str, str]:
        """From the record, or, when that is damaged, from a copy that is kept for this moment; '' for what is not known."""
        try:
            self._ipam.open()
            return self._ipam.range, self._ipam.range6
        except FabricFailure as failure:
            log.warning("%s", failure)
            known, _, known6 = (
                self._range_copy.read_text().partition(" ") if self._range_copy.exists() else ("", "", "")
            )
            return known, known6

    def _remove_links(self, routes: bool) -> None:
        self._links.remove_named(self._links.leftovers(()))
        self._links.remove_node(routes)

    async def _work(self, what: str, function: Callable[..., T], *arguments: object) -> T:
        """Run on a worker thread; what the kernel refuses becomes a FabricFailure that says what to do."""
        running = asyncio.get_running_loop().run_in_executor(self._workers, function, *arguments)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # The thread goes on: whoever holds the workload's lock must not let go before it is through.
            await asyncio.wait([running])
            raise
        except PermissionError as error:
            raise FabricFailure(
                f"{what}: {error}; real networking needs root: run as root, or use --runtime simulated"
            ) from error
        except OSError as error:
            raise FabricFailure(f"{what}: {error}") from error


__all__ = ["SANDBOX_INTERFACE", "FabricSettings", "HostFabric"]
