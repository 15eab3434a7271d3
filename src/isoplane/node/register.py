"""The node's own objects: a Node that says what this machine has, and a Lease that says it is alive."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isoplane import __version__
from isoplane.client.api import Api
from isoplane.objects import metadata
from isoplane.objects.errors import AlreadyExists, Conflict, NotFound
from isoplane.objects.kinds import LEASES, NODES
from isoplane.objects.metadata import Object

LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
RENEW_SECONDS = 10.0
REPORT_SECONDS = 300.0
"""How often the status is written even if nothing changed, as the kubelet does (nodeStatusReportFrequency)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node offers. CPU in millicores, memory in bytes."""

    cpu: int
    memory: int
    pods: int
    architecture: str
    kernel: str
    os_image: str
    runtime: str
    """What the status shows as containerRuntimeVersion, e.g. ``crun://1.8.1``."""
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    disk: int = 2**60
    """Bytes of the file system that workloads write to."""


def default_node_name() -> str:
    """The host's name as a DNS label."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")
    return name[:63] or "node"


def this_machine(runtime: str, data_dir: Path) -> Machine:
    """What this host has, from /proc and /etc/os-release; workloads write below ``data_dir``."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cpus = len(os.sched_getaffinity(0))
    disk = os.statvfs(data_dir)
    return Machine(
        cpus * 1000,
        pages * size,
        250,
        arch,
        platform.release(),
        _os_image(),
        runtime,
        machine_id=_line("/etc/machine-id"),
        system_uuid=_line("/sys/class/dmi/id/product_uuid"),
        boot_id=_line("/proc/sys/kernel/random/boot_id"),
        disk=disk.f_blocks * disk.f_frsize,
    )


def simulated_machine() -> Machine:
    """A node with room for every simulated workload."""
    return Machine(10**9, 2**60, 10**6, "amd64", "simulated", "simulated", "simulated://1")


def _line(path: str) -> str:
    """What a file of one line says; '' where this host or user cannot read it."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    release = Path("/etc/os-release")
    if not release.exists():
        return "Linux"
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', release.read_text(), re.MULTILINE)
    return match[1] if match else "Linux"


class Registration:
    """Creates and renews the node's objects. ``clock`` in POSIX seconds.

    ``ipv6_missing``: why its workloads have no IPv6 addresses, '' when they have.
    """

    def __init__(
        self,
        api: Api,
        name: str,
        machine: Machine,
        addresses: Sequence[str],
        clock: Callable[[], float],
        ipv6_missing: str = "",
    ) -> None:
        self._api = api
        self._name = name
        self._machine = machine
        self._addresses = tuple(addresses)
        self._ipv6_missing = ipv6_missing
        self._clock = clock

    async def register(self) -> None:
        """Create the Node, or bring an existing one up to date; labels and taints that people set are kept."""
        try:
            await self._api.create(NODES, self._node())
        except AlreadyExists:
            pass
        await self.report()
        await self.renew()

    async def report(self) -> None:
        """Tell the node's status where it differs, also from what others say of a node that was silent, or is old.

        Raises NotFound when the Node was deleted: then it is told again at the next start.
        """
        for _ in range(5):
            node = await self._api.get(NODES, self._name)
            wanted = {**(node.get("status") or {}), **self._status_fields(node)}
            if wanted == node.get("status"):
                return
            node["status"] = wanted
            try:
                await self._api.update(NODES, node, subresource="status")
                return
            except Conflict:
                continue

    async def renew(self) -> None:
        """Say that this node lives. Lost races and a lost lease are made good at the next call."""
        now = metadata.rfc3339(self._clock(), micro=True)
        try:
            await self._api.patch(LEASES, self._name, LEASE_NAMESPACE, {"spec": {"renewTime": now}}, kind="merge")
        except NotFound:
            lease: Object = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": self._name, "namespace": LEASE_NAMESPACE},
                "spec": {"holderIdentity": self._name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
            }
            await self._api.create(LEASES, lease, namespace=LEASE_NAMESPACE)

    async def leave(self) -> None:
        """Say that nobody looks after this node's workloads for now; they go on running."""
        node = await self._api.get(NODES, self._name)
        node["status"]["conditions"] = metadata.set_condition(
            node["status"].get("conditions") or (),
            {
                **(metadata.condition(node, "Ready") or {}),
                "type": "Ready",
                "status": "Unknown",
                "reason": "NodeAgentStopped",
                "message": "the node agent was stopped",
            },
            metadata.rfc3339(self._clock()),
        )
        await self._api.update(NODES, node, subresource="status")

    def _node(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self._name,
                "labels": {
                    "kubernetes.io/hostname": self._name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": self._machine.architecture,
                    "kubevirt.io/schedulable": "true",
                },
            },
            "spec": {},
        }

    def _ipv6(self) -> Object:
        """A condition of our own: whether workloads here have IPv6 addresses."""
        missing = self._ipv6_missing
        return {
            "type": "IPv6",
            "status": "False" if missing else "True",
            "reason": "NoIPv6" if missing else "AddressesGiven",
            "message": missing or "workloads have IPv6 addresses",
        }

    def _status_fields(self, node: Mapping[str, object]) -> Object:
        machine, now = self._machine, self._clock()
        resources = {
            "cpu": f"{machine.cpu}m" if machine.cpu % 1000 else str(machine.cpu // 1000),
            "memory": f"{machine.memory // 1024}Ki",
            "ephemeral-storage": f"{machine.disk // 1024}Ki",
            "pods": str(machine.pods),
        }
        stamp = metadata.rfc3339(now)
        old = (node.get("status") or {}) if isinstance(node, dict) else {}
        conditions = old.get("conditions") or () if isinstance(old, dict) else ()
        before = metadata.condition(node, "Ready") or {}
        told = metadata.posix(before.get("lastHeartbeatTime")) if before.get("status") == "True" else None
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "NodeAgentReady",
            "message": "the node agent runs",
            "lastHeartbeatTime": stamp
            if told is None or not 0 <= now - told < REPORT_SECONDS
            else metadata.rfc3339(told),
        }
        return {
            "capacity": resources,
            "allocatable": dict(resources),
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in self._addresses),
                {"type": "Hostname", "address": self._name},
            ],
            "conditions": metadata.set_condition(metadata.set_condition(conditions, ready, stamp), self._ipv6(), stamp),
            "nodeInfo": {
                "architecture": machine.architecture,
                "bootID": machine.boot_id,
                "containerRuntimeVersion": machine.runtime,
                "kernelVersion": machine.kernel,
                "kubeProxyVersion": "",
                "kubeletVersion": f"isoplane-v{__version__}",
                "machineID": machine.machine_id,
                "operatingSystem": "linux",
                "osImage": machine.os_image,
                "systemUUID": machine.system_uuid,
            },
        }
