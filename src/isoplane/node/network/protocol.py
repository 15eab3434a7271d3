"""CONTRACT: the Fabric protocol: plug a workload into the network, unplug it, say what is plugged in.

The fabric chooses nothing about policy: ports start closed, and an engine opens them by loading rendered text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.workload.shape import Workload


class FabricFailure(Exception):
    """A link, an address or a bridge could not be had: what, why and what to do about it."""


class Fabric(Protocol):
    """Addresses and links of one node. All methods are idempotent by the workload's uid."""

    async def start(self) -> None:
        """Bring up the bridge, the daemons and the base rules; adopt existing interfaces and their address reservations."""
        ...

    async def close(self) -> None:
        """Let go, leaving links, rules and daemons in place."""
        ...

    async def plug(self, workload: Workload) -> NetworkInterface:
        """Reserve an address and make the link. The port stays closed until an engine opens it."""
        ...

    async def unplug(self, uid: str) -> None:
        """Remove the link and release the address."""
        ...

    async def interfaces(self) -> Sequence[NetworkInterface]:
        """Those of all workloads plugged in now, as found on the host (also after a restart)."""
        ...

    async def teardown(self) -> None:
        """Remove every trace: links, namespaces, bridge, daemons, tables (``isoplane down``)."""
        ...

    @property
    def node_addresses(self) -> tuple[str, ...]:
        """The node's own addresses as workloads see them, one a family, IPv4 first."""
        ...

    @property
    def ipv6_missing(self) -> str:
        """Why workloads have no IPv6 addresses; '' when they have. The started fabric tells."""
        ...
