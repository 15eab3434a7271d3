"""A fabric without links: addresses only, for ``--runtime simulated``. No root, no packages; durable like the real one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from isoplane.node.network.interface import interface_of
from isoplane.node.network.ipam import Ipam
from isoplane.node.network.ipv6 import OFF, derived
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.ranges import pick6
from isoplane.node.network.settings import FabricSettings, Ranges
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.workload.shape import Workload

DEFAULT_RANGE = "10.128.0.0/9"
"""Nothing is routed, so that nothing can clash: room for every workload that a simulation may want."""


class SimulatedFabric:
    """Implements ``Fabric``. The same addresses, names and port numbers as on a real host, and nothing behind them."""

    def __init__(self, settings: FabricSettings) -> None:
        self.settings = replace(settings, cidr=settings.cidr or DEFAULT_RANGE)
        self._ipam = Ipam(settings.directory / "ipam.sqlite", settings.quarantine_seconds)
        self._ranges: Ranges | None = None

    @property
    def node_addresses(self) -> tuple[str, ...]:
        if self._ranges is None:
            raise FabricFailure("the fabric is not started")
        return self._ranges.nodes

    @property
    def ipv6_missing(self) -> str:
        return f"it was turned off ({OFF})" if self.settings.cidr6 == OFF else ""

    async def start(self) -> None:
        try:
            ranges = Ranges.of(self.settings.cidr)
        except ValueError as error:
            raise FabricFailure(f"the node's range {self.settings.cidr!r} is not usable: {error}") from error
        self._ipam.open()
        if not self.ipv6_missing:
            remembered = self._ipam.range6 or derived(str(self.settings.data_dir.resolve()))
            ranges = replace(ranges, six=pick6(self.settings.cidr6, [remembered], ()))
        self._ipam.settle(ranges)
        self._ranges = ranges

    async def close(self) -> None:
        self._ipam.close()

    async def plug(self, workload: Workload) -> NetworkInterface:
        if not workload.interface.own:
            address, *six = self.node_addresses
            return NetworkInterface(address=address, address6="".join(six), mtu=self.settings.mtu)
        wiring = self.settings.wiring_of(workload.interface)
        lease = self._ipam.lease(workload.uid, workload.namespace, workload.name, workload.interface, wiring)
        return interface_of(lease, self.settings)

    async def unplug(self, uid: str) -> None:
        self._ipam.release(uid)

    async def interfaces(self) -> Sequence[NetworkInterface]:
        return [interface_of(lease, self.settings) for lease in self._ipam.leases()]

    async def teardown(self) -> None:
        self._ipam.close()
        shutil.rmtree(self.settings.directory, ignore_errors=True)
