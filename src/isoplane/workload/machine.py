"""What a VirtualMachineInstance asks for, by a quota's way of counting: its requests, its limits, and what it leaves open.

The VMI adapter puts it into ``Workload.request`` and ``Workload.limits``; :mod:`~isoplane.workload.requests` does the same for
Pods.  What the API would default is defaulted here too, so that manifests and stored objects count alike.

Amounts follow ``objects.quantity.amount``: cpu in millicores, everything else in whole units.  Malformed quantities raise
ValueError.  Source: KubeVirt's defaults.go and resource renderer; figures by version in :mod:`~isoplane.workload.kubevirt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from isoplane.objects.accounting import GUEST_ONLY, GUEST_PLUS_OVERHEAD, MODES
from isoplane.objects.effective import add
from isoplane.objects.quantity import amount, whole
from isoplane.objects.topology import vcpus
from isoplane.workload.accounting import DEFAULT_ACCOUNTING, Accounting
from isoplane.workload.kubevirt import (
    CPU_ALLOCATION_RATIO,
    LAUNCHER_STORAGE,
    MEMORY_OVERCOMMIT,
    Formula,
    formula,
)
from isoplane.workload.launcher import launcher
from isoplane.workload.overhead import dedicated, memory_overhead
from isoplane.workload.requests import COMPUTE, amounts, crosses_namespaces, stated_limits

EVEN_PARITY = "alpha.kubevirt.io/EmulatorThreadCompleteToEvenParity"
"""The annotation of a VMI whose pinned CPUs are to be an even number."""
GUEST_CONTAINER = "compute"
"""The container of a launcher Pod in which the guest runs."""
STORAGE = "ephemeral-storage"


class Settings(NamedTuple):
    """What a KubeVirt resource configures for a whole cluster; KubeVirt's own defaults."""

    cpu_allocation_ratio: int = CPU_ALLOCATION_RATIO
    memory_overcommit: int = MEMORY_OVERCOMMIT
    overhead_ratio: str | float = 1


DEFAULT_SETTINGS = Settings()


class MachineAsks(NamedTuple):
    """What a machine asks for."""

    requests: dict[str, int]
    limits: dict[str, int]
    """Whatever the way of counting: what its cgroup may use is what is charged. Empty for what is not limited."""
    own_requests: dict[str, int]
    """The part of ``requests`` that the guest and its QEMU have."""
    own_limits: dict[str, int]
    """The part of ``limits`` that they have."""
    guest: dict[str, int]
    """What the guest sees: whole vCPUs and its memory."""
    overhead: dict[str, int]
    """The part of ``requests`` beside what the author asks for."""

    @property
    def unspecified(self) -> dict[str, tuple[str, ...]]:
        """``limits.cpu`` → the container that leaves it open, in KubeVirt's name for it."""
        return {f"limits.{name}": (GUEST_CONTAINER,) for name in COMPUTE if name not in self.limits}


def machine_asks(
    spec: Mapping[str, Any],
    accounting: Accounting = DEFAULT_ACCOUNTING,
    annotations: Mapping[str, str] | None = None,
    settings: Settings = DEFAULT_SETTINGS,
) -> MachineAsks:
    """All of it. Raises ValueError, on a way of counting or a version that is none, too."""
    if accounting.mode not in MODES:
        raise ValueError(f"vmAccounting {accounting.mode!r} is unknown: choose one of {', '.join(MODES)}")
    figures, notes = formula(accounting.kubevirt), annotations or {}
    domain = spec.get("domain") or {}
    stated = domain.get("resources") or {}
    others = {name: value for name, value in amounts(stated.get("requests")).items() if name not in COMPUTE}
    add(others, _devices(domain))
    guest = {"cpu": 1000 * vcpus(domain), "memory": guest_memory(spec)}
    overhead = memory_overhead(spec, _paged(domain, figures, settings), figures, ratio=settings.overhead_ratio)
    cpu = _cpu(domain, figures, settings, even=EVEN_PARITY in notes)
    helpers = launcher(spec, notes, figures)
    own = _limits(domain, cpu, overhead, settings)
    limits = helpers.with_limits(own)
    if accounting.mode == GUEST_ONLY:
        seen = {**guest, **others}
        return MachineAsks(seen, limits, seen, own, guest, {})
    wanted = {"cpu": cpu, **_memory(domain, settings), **others}
    if accounting.mode != GUEST_PLUS_OVERHEAD:
        return MachineAsks(wanted, limits, wanted, own, guest, {})
    asked = dict(wanted)
    if _huge(domain) or not stated.get("overcommitGuestOverhead"):
        wanted["memory"] += overhead
    wanted[STORAGE] = wanted.get(STORAGE, 0) + LAUNCHER_STORAGE
    requests = helpers.with_requests(wanted)
    more = {name: value - asked.get(name, 0) for name, value in requests.items() if value > asked.get(name, 0)}
    return MachineAsks(requests, limits, wanted, own, guest, more)


def guest_memory(spec: Mapping[str, Any]) -> int:
    """The memory the guest sees, in bytes: memory.guest, else the request, else the limit, else one huge page."""
    domain = spec.get("domain") or {}
    memory = domain.get("memory") or {}
    for stated in (memory.get("guest"), _stated(domain, "requests"), _stated(domain, "limits"), _huge(domain)):
        if stated:
            return whole(stated)
    return 0


def scopes(spec: Mapping[str, Any]) -> frozenset[str]:
    """The ResourceQuota scopes a VMI is in: a guest always asks for something and has no deadline."""
    found = {"NotTerminating", "NotBestEffort"}
    if crosses_namespaces(spec.get("affinity") or {}):
        found.add("CrossNamespacePodAffinity")
    return frozenset(found)


def _stated(domain: Mapping[str, Any], side: str, name: str = "memory") -> int:
    """An amount as stated, in its own unit; 0 where it is not."""
    value = ((domain.get("resources") or {}).get(side) or {}).get(name)
    return amount(name, value) if value is not None else 0


def _huge(domain: Mapping[str, Any]) -> str:
    """The size of the pages that the guest lives in, '' for ordinary ones."""
    return str(((domain.get("memory") or {}).get("hugepages") or {}).get("pageSize") or "")


def _requested(domain: Mapping[str, Any], settings: Settings) -> int:
    """The memory request of the guest alone: as stated, else its limit, else its size over the overcommit."""
    if stated := _stated(domain, "requests") or _stated(domain, "limits"):
        return stated
    if "memory" in ((domain.get("resources") or {}).get("requests") or {}):
        return 0  # stated as nothing: the author overcommits
    return guest_memory({"domain": domain}) * 100 // settings.memory_overcommit


def _paged(domain: Mapping[str, Any], figures: Formula, settings: Settings) -> int:
    """The request that page tables are counted for: until 1.6 whatever admission made of it, since then the stated one."""
    return _requested(domain, settings) if figures.writes_memory_request else _stated(domain, "requests")


def _cpu(domain: Mapping[str, Any], figures: Formula, settings: Settings, *, even: bool) -> int:
    """Millicores: pinned CPUs count whole; an explicit request (else limit) wins; else vCPUs over the ratio."""
    cpu = domain.get("cpu") or {}
    pool = int((domain.get("ioThreads") or {}).get("supplementalPoolThreadCount") or 0) if figures.io_threads else 0
    threads = vcpus(domain) + pool
    if dedicated(domain):
        emulator = 1 if cpu.get("isolateEmulatorThread") else 0
        # KubeVirt counts the threads of a declared pool a second time when it looks whether the number is even.
        twice = pool if domain.get("ioThreadsPolicy") == "supplementalPool" else 0
        if even and (threads + twice) % 2 == 0:
            emulator *= 2
        return 1000 * (threads + emulator)
    if stated := _stated(domain, "requests", "cpu") or _stated(domain, "limits", "cpu"):
        return stated
    if "cpu" in ((domain.get("resources") or {}).get("requests") or {}):
        return 0
    return -(-threads * 1000 // settings.cpu_allocation_ratio)


def _memory(domain: Mapping[str, Any], settings: Settings) -> dict[str, int]:
    """The guest's memory, overhead aside: in huge pages, where it has them, and what is requested beyond it in ordinary ones."""
    wanted = _requested(domain, settings)
    if not (page := _huge(domain)):
        return {"memory": wanted}
    inside = min(wanted, guest_memory({"domain": domain}))
    return {f"hugepages-{page}": inside, "memory": wanted - inside}


def _limits(domain: Mapping[str, Any], cpu: int, overhead: int, settings: Settings) -> dict[str, int]:
    """What the guest's container is limited to; pinned CPUs make limits equal requests. What is not stated limits nothing."""
    limits = stated_limits((domain.get("resources") or {}).get("limits"))
    if STORAGE in limits:
        limits[STORAGE] += LAUNCHER_STORAGE
    if dedicated(domain):
        limits |= {"cpu": cpu, "memory": _requested(domain, settings)}
    if "memory" in limits:
        # A guest in huge pages takes none of what is left for what surrounds it.
        inside = guest_memory({"domain": domain}) if _huge(domain) else 0
        limits["memory"] = max(0, limits["memory"] - inside) + overhead
    return limits


def _devices(domain: Mapping[str, Any]) -> dict[str, int]:
    """Extended resources: one of each GPU and host device that is named; claims are counted elsewhere."""
    devices = domain.get("devices") or {}
    found: dict[str, int] = {}
    for device in [*(devices.get("gpus") or ()), *(devices.get("hostDevices") or ())]:
        name = device.get("deviceName")
        if name and device.get("claimName") is None:
            found[name] = found.get(name, 0) + 1
    return found
