"""CONTRACT: what is chosen of a node, and the parts that it is then made of. ``assembly`` and ``host`` make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isoplane.client.informer import Informers
from isoplane.node.network.protocol import Fabric
from isoplane.node.register import Machine
from isoplane.node.runtime.protocol import Runtime
from isoplane.node.runtime.simulated import CONTAINER_PACE, MACHINE_PACE, Pace
from isoplane.node.seams import Enforcement, Events
from isoplane.workload.machine_offer import KNOWN, MachineOffer


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What an operator chooses of a node."""

    simulated: bool = False
    container_engine: str = "nftables"
    vm_engine: str = "openvswitch"
    cidr: str = ""
    """The node's address range; '' takes one that no route of the host overlaps."""
    cidr6: str = ""
    """Its IPv6 range, a /63 or larger; '' derives a unique local one, 'none' does without."""
    images: Path | None = None
    """The image store; None: ``images`` in the data directory."""
    unsafe_sysctls: tuple[str, ...] = ()
    """What Pods may set of the kernel beyond what is safe: names, or their start with * behind it."""
    paces: Mapping[str, Pace] = field(default_factory=lambda: {"oci": CONTAINER_PACE, "qemu": MACHINE_PACE})
    """How long simulated starts and stops take."""


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What a node agent is made of."""

    runtimes: Mapping[str, Runtime]
    fabric: Fabric
    machine: Callable[[], Machine]
    enforcement: Callable[[str, Informers, Callable[[str], None], Events], Enforcement] | None = None
    """(node, caches, wake, events) → what guards the ports; None: nothing does."""
    offer: Callable[[], MachineOffer] = lambda: KNOWN
    """What machines can be had of it, once its runtimes have started."""
