"""Chooses and makes the parts of a node: real or simulated runtimes, the fabric, the policy engines."""

from __future__ import annotations

from pathlib import Path

from isoplane.node import programs
from isoplane.node.network.settings import FabricSettings
from isoplane.node.network.simulated import SimulatedFabric
from isoplane.node.parts import NodeOptions, NodeParts
from isoplane.node.register import simulated_machine
from isoplane.node.runtime.protocol import Runtime, RuntimeFailure, RuntimeReason
from isoplane.node.runtime.simulated import SimulatedRuntime


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
