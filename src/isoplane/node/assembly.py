"""Chooses and makes the parts of a node: real or simulated runtimes, the fabric, the policy engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isoplane.client.informer import Informers
from isoplane.node import programs
from isoplane.node.network.protocol import Fabric
from isoplane.node.network.settings import FabricSettings
from isoplane.node.network.simulated import SimulatedFabric
from isoplane.node.register import Machine, simulated_machine
from isoplane.node.runtime.protocol import Runtime, RuntimeFailure, RuntimeReason
from isoplane.node.runtime.simulated import CONTAINER_PACE, MACHINE_PACE, Pace, SimulatedRuntime
from isoplane.node.seams import Enforcement, Events

ENGINES = ("nftables", "iptables", "openvswitch")


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


def check(data_dir: Path, options: NodeOptions) -> None:
    """Whether a node of this kind may run here. Raises RuntimeFailure: a simulation looks after no real workloads, and a real
    node needs its programs, which are told all at once."""
    if not options.simulated:
        engines = (options.container_engine, options.vm_engine)
        if lacking := programs.missing(engines):
            told = "".join(f"\n  - {line}" for line in lacking)
            command = programs.how_to_install(engines)
            raise RuntimeFailure(
                RuntimeReason.SANDBOX, f"this host lacks:{told}\n`{command}` brings all, or choose --runtime simulated"
            )
        return
    if left := workloads_on(data_dir):
        raise RuntimeFailure(
            RuntimeReason.SANDBOX,
            f"{data_dir} has {left} real workloads, which a simulation would leave to themselves: "
            "stop them with `isoplane down`, or simulate in another directory with --data",
        )


def workloads_on(data_dir: Path) -> int:
    """How many real workloads lie in a data directory, running or not."""
    return sum(1 for place in ("oci/pods", "qemu/machines") for _ in data_dir.glob(f"{place}/*"))


def make(data_dir: Path, options: NodeOptions) -> NodeParts:
    """The parts, made and not yet started."""
    return _simulated(data_dir, options) if options.simulated else _real(data_dir, options)


def _simulated(data_dir: Path, options: NodeOptions) -> NodeParts:
    runtimes: dict[str, Runtime] = {
        name: SimulatedRuntime(data_dir, name, pace) for name, pace in options.paces.items()
    }
    # Records of its own: what a real node on the same directory remembers is for links that exist.
    fabric = SimulatedFabric(FabricSettings(data_dir=data_dir / "simulated", cidr=options.cidr, cidr6=options.cidr6))
    return NodeParts(runtimes, fabric, simulated_machine)


def _real(data_dir: Path, options: NodeOptions) -> NodeParts:
    # Imported here, so that a simulated plane starts without reading what only a real host needs.
    from isoplane.node import host

    return host.make(data_dir, options)
