"""The real parts of a node: OCI containers, QEMU machines, the host's network."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from isoplane.client.informer import Informers
from isoplane.node.enforcement import NodeEnforcement
from isoplane.node.images.store import ImageStore
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.settings import FabricSettings, Wiring
from isoplane.node.parts import NodeOptions, NodeParts
from isoplane.node.register import Machine, this_machine
from isoplane.node.runtime.oci.runtime import OciRuntime
from isoplane.node.runtime.protocol import Runtime
from isoplane.node.runtime.qemu.runtime import QemuRuntime
from isoplane.node.seams import Events

BRIDGED = "openvswitch"
"""The engine whose endpoints hang on the bridge; the others' are routed."""


def settings(data_dir: Path, options: NodeOptions) -> FabricSettings:
    """The network of a node: the engine chooses the wiring.

    Raises ValueError when two engines would have to share the routed endpoints.
    """
    routed = {engine for engine in (options.container_engine, options.vm_engine) if engine != BRIDGED}
    if len(routed) > 1:
        raise ValueError(
            "containers and VMs cannot be routed by two engines at once (nftables and iptables): "
            "choose the same for both, or openvswitch for one of them"
        )

    def wiring(engine: str) -> Wiring:
        return Wiring.BRIDGED if engine == BRIDGED else Wiring.ROUTED

    return FabricSettings(
        data_dir=data_dir,
        cidr=options.cidr,
        cidr6=options.cidr6,
        container_wiring=wiring(options.container_engine),
        machine_wiring=wiring(options.vm_engine),
        routed_engine=next(iter(routed), "nftables"),
    )


def make(data_dir: Path, options: NodeOptions) -> NodeParts:
    """The parts, made and not yet started."""
    images = ImageStore(options.images or data_dir / "images")
    containers = OciRuntime(data_dir, images)
    machines = QemuRuntime(data_dir, images)
    fabric = HostFabric(settings(data_dir, options))
    runtimes: dict[str, Runtime] = {"oci": containers, "qemu": machines}

    def machine() -> Machine:
        info = containers.info
        return this_machine(f"{info['runtime']}://{_version(info['path'])}", data_dir)

    def enforcement(node: str, informers: Informers, wake: Callable[[str], None], events: Events) -> NodeEnforcement:
        return NodeEnforcement(node, fabric, informers, wake, events)

    return NodeParts(runtimes, fabric, machine, enforcement, lambda: machines.offer)


def _version(path: str) -> str:
    """The version a low-level runtime tells of itself: the last word of its first line (``crun version 1.8.1``)."""
    told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    first = told.splitlines()[:1]
    return first[0].split()[-1] if first and first[0].split() else "unknown"
