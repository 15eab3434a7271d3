"""What a workload asks for: the effective requests and limits of a Pod and of a VirtualMachineInstance.

The adapters put these into ``Workload.request`` and ``Workload.limits``; quota, placement and the unified view read
only those.  What the API would default (a request from its limit) is defaulted here too, so that offline manifests and
stored objects count alike.

Amounts follow ``objects.quantity.amount``: cpu in millicores, everything else in whole units.  Malformed quantities
raise ValueError.  Sources: k8s.io/component-helpers/resource (PodRequests, PodLimits), the core quota evaluator,
KubeVirt's resource renderer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from isoplane.objects.effective import add, with_steps
from isoplane.objects.quantity import amount, whole
from isoplane.workload.overhead import DEFAULT_VERSION, dedicated, memory_overhead, vcpus

GUEST_PLUS_OVERHEAD = "GuestPlusOverhead"
GUEST_ONLY = "GuestOnly"
REQUESTS = "Requests"
ACCOUNTING_MODES = (GUEST_PLUS_OVERHEAD, GUEST_ONLY, REQUESTS)
"""How a quota counts a VMI; QuotaPolicy spec.vmAccounting."""

CPU_ALLOCATION_RATIO = 10
"""vCPUs a requested CPU carries; KubeVirt's default."""
MEMORY_OVERCOMMIT = 100
"""Guest memory in percent of its request; KubeVirt's default."""
VMI_CONTAINER = "compute"
"""The container of a launcher Pod in which the guest runs."""

EVEN_PARITY = "alpha.kubevirt.io/EmulatorThreadCompleteToEvenParity"
"""The annotation of a VMI whose pinned CPUs are to be an even number."""

_COMPUTE = ("cpu", "memory")
_SCOPES = {
    (ends, asks): frozenset({"Terminating" if ends else "NotTerminating", "NotBestEffort" if asks else "BestEffort"})
    for ends in (False, True)
    for asks in (False, True)
}
"""(has a deadline, asks for cpu or memory) → scopes."""


def _amounts(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    return {name: amount(name, value) for name, value in quantities.items()} if quantities else {}


def _container(container: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """(requests, limits) of a container; a limit stands in for a request that is not stated."""
    resources = container.get("resources")
    if not resources:
        return {}, {}
    limits = _amounts(resources.get("limits"))
    return {**limits, **_amounts(resources.get("requests"))}, _set(limits)


def _set(limits: Mapping[str, int]) -> dict[str, int]:
    """The limits that limit something: a cgroup takes 0 for none, so 0 counts as not stated."""
    return {name: value for name, value in limits.items() if value}


def _pod_level(name: str) -> bool:
    return name in _COMPUTE or name.startswith("hugepages-")


class PodAsks(NamedTuple):
    """What a Pod asks for. ``requests`` and ``limits``: init steps, sidecars, pod-level resources (they win), overhead."""

    requests: dict[str, int]
    limits: dict[str, int]
    scopes: frozenset[str]
    """The ResourceQuota scopes it is in, PriorityClass aside (that one compares a value)."""
    unspecified: dict[str, tuple[str, ...]]
    """``limits.cpu`` → the containers that leave it open.

    A quota on such a resource refuses the Pod (``must specify limits.cpu for: web``), since it could not count it.
    """


def pod_asks(spec: Mapping[str, Any]) -> PodAsks:
    """All of it in one walk over the containers, for every create asks. Raises ValueError on a malformed quantity."""
    containers, inits = spec.get("containers") or (), spec.get("initContainers") or ()
    mains, steps = [_container(c) for c in containers], [_container(c) for c in inits]
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    for own, most in mains:
        add(requests, own)
        add(limits, most)
    if steps:
        sidecars = [c.get("restartPolicy") == "Always" for c in inits]
        with_steps(requests, zip(sidecars, (own for own, _ in steps), strict=True))
        with_steps(limits, zip(sidecars, (most for _, most in steps), strict=True))
    asks = any(side.get(name, 0) > 0 for pair in (*mains, *steps) for side in pair for name in _COMPUTE)
    level = spec.get("resources")
    unspecified = _unspecified((*inits, *containers), (*steps, *mains), level or {})
    scopes = _SCOPES[spec.get("activeDeadlineSeconds") is not None, asks or _asks_compute(level)]
    if "affinity" in spec and _crosses_namespaces(spec["affinity"] or {}):
        scopes |= {"CrossNamespacePodAffinity"}
    if level or spec.get("overhead"):
        _of_the_pod(spec, requests, limits)
    return PodAsks(requests, limits, scopes, unspecified)


def _unspecified(
    containers: Sequence[Mapping[str, Any]],
    amounts: Sequence[tuple[dict[str, int], dict[str, int]]],
    level: Mapping[str, Any],
) -> dict[str, tuple[str, ...]]:
    stated = level.get("limits") or {}
    # Whoever states something for the Pod as a whole need not state requests for each container (KEP-2837); a limit that
    # stands nowhere still limits nothing, so that one is insisted on as ever, which upstream lets pass.
    whole = any(_pod_level(name) for side in ("limits", "requests") for name in level.get(side) or ())
    missing: dict[str, list[str]] = {}
    for container, (own, most) in zip(containers, amounts, strict=True):
        for name in _COMPUTE:
            if name in most or (name in stated and amount(name, stated[name])):
                continue
            missing.setdefault(f"limits.{name}", []).append(str(container.get("name", "")))
            if name not in own and not whole:
                missing.setdefault(f"requests.{name}", []).append(str(container.get("name", "")))
    return {name: tuple(sorted(lacking)) for name, lacking in missing.items()}


def _of_the_pod(spec: Mapping[str, Any], requests: dict[str, int], limits: dict[str, int]) -> None:
    """What is stated for the Pod as a whole, put into the sums over its containers."""
    level = spec.get("resources") or {}
    stated = {name: value for name, value in _amounts(level.get("limits")).items() if _pod_level(name)}
    # A pod-level limit without a request stands in for it only where no container asks for that resource.
    for name, value in stated.items():
        requests.setdefault(name, value)
    requests.update({name: value for name, value in _amounts(level.get("requests")).items() if _pod_level(name)})
    limits.update(_set(stated))
    overhead = _amounts(spec.get("overhead"))
    add(requests, overhead)
    # Overhead is added to a limit only where there is one.
    add(limits, {name: value for name, value in overhead.items() if limits.get(name)})


def _asks_compute(resources: Mapping[str, Any] | None) -> bool:
    """Whether any cpu or memory is requested or limited: such a Pod is not of the quality of service BestEffort."""
    if not resources:
        return False
    for side in (resources.get("requests"), resources.get("limits")):
        if side and any(name in side and amount(name, side[name]) > 0 for name in _COMPUTE):
            return True
    return False


def _crosses_namespaces(affinity: Mapping[str, Any]) -> bool:
    """Whether an affinity term looks into other namespaces (by name or by selector)."""
    terms: list[Mapping[str, Any]] = []
    for side in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(side) or {}
        terms += rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred: Iterable[Mapping[str, Any]] = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [weighted.get("podAffinityTerm") or {} for weighted in preferred]
    return any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms)


def guest_memory(spec: Mapping[str, Any]) -> int:
    """The memory the guest sees, in bytes: memory.guest, else the request, else the limit, else one huge page."""
    domain = spec.get("domain") or {}
    memory = domain.get("memory") or {}
    resources = domain.get("resources") or {}
    for stated in (
        memory.get("guest"),
        (resources.get("requests") or {}).get("memory"),
        (resources.get("limits") or {}).get("memory"),
        (memory.get("hugepages") or {}).get("pageSize"),
    ):
        if stated:
            return whole(stated)
    return 0


def _stated_memory(spec: Mapping[str, Any]) -> int:
    """The memory request that a machine states, else its limit, else 0."""
    resources = (spec.get("domain") or {}).get("resources") or {}
    for side in ("requests", "limits"):
        stated = (resources.get(side) or {}).get("memory")
        if stated and whole(stated):
            return whole(stated)
    return 0


def _guest_request(spec: Mapping[str, Any], overcommit: int) -> int:
    """The guest's memory request before overhead: as stated, else the guest's size over the overcommit."""
    if stated := _stated_memory(spec):
        return stated
    domain = spec.get("domain") or {}
    guest = guest_memory(spec)
    pinned = dedicated(spec) or (domain.get("memory") or {}).get("hugepages")
    return guest if pinned or overcommit == 100 else guest * 100 // overcommit


def _cpu_request(spec: Mapping[str, Any], ratio: int, *, even: bool) -> int:
    """Millicores: pinned CPUs count whole; an explicit request (or limit) wins; else vCPUs over the ratio."""
    domain = spec.get("domain") or {}
    cpu = domain.get("cpu") or {}
    threads = vcpus(spec) + int((domain.get("ioThreads") or {}).get("supplementalPoolThreadCount") or 0)
    if dedicated(spec):
        emulator = 1 if cpu.get("isolateEmulatorThread") else 0
        if even and threads % 2 == 0:
            emulator *= 2
        return 1000 * (threads + emulator)
    resources = domain.get("resources") or {}
    for side in ("requests", "limits"):
        if stated := (resources.get(side) or {}).get("cpu"):
            return amount("cpu", stated)
    return -(-threads * 1000 // ratio)


def _devices(spec: Mapping[str, Any]) -> dict[str, int]:
    """Extended resources: one of each named GPU and host device."""
    devices = (spec.get("domain") or {}).get("devices") or {}
    found: dict[str, int] = {}
    for device in [*(devices.get("gpus") or ()), *(devices.get("hostDevices") or ())]:
        if name := device.get("deviceName"):
            found[name] = found.get(name, 0) + 1
    return found


def vmi_requests(
    spec: Mapping[str, Any],
    mode: str = GUEST_PLUS_OVERHEAD,
    version: str = DEFAULT_VERSION,
    *,
    even_parity: bool = False,
    cpu_allocation_ratio: int = CPU_ALLOCATION_RATIO,
    memory_overcommit: int = MEMORY_OVERCOMMIT,
    overhead_ratio: str | float = 1,
) -> dict[str, int]:
    """A VMI's requests by accounting mode.

    ``GuestPlusOverhead``: what KubeVirt requests for it, overhead included. ``GuestOnly``: what the guest sees, whole
    vCPUs and its memory. ``Requests``: what KubeVirt requests, without the overhead.  Raises ValueError otherwise.
    ``even_parity``: pinned CPUs, the emulator's among them, are filled up to an even number (:data:`EVEN_PARITY`).
    """
    if mode not in ACCOUNTING_MODES:
        raise ValueError(f"vmAccounting {mode!r} is unknown: choose one of {', '.join(ACCOUNTING_MODES)}")
    domain = spec.get("domain") or {}
    explicit = (domain.get("resources") or {}).get("requests") or {}
    others = {name: amount(name, value) for name, value in explicit.items() if name not in _COMPUTE}
    add(others, _devices(spec))
    if mode == GUEST_ONLY:
        return {"cpu": 1000 * vcpus(spec), "memory": guest_memory(spec), **others}
    memory = _guest_request(spec, memory_overcommit)
    request = {"cpu": _cpu_request(spec, cpu_allocation_ratio, even=even_parity), "memory": memory, **others}
    overhead = 0
    if mode == GUEST_PLUS_OVERHEAD and not (domain.get("resources") or {}).get("overcommitGuestOverhead"):
        overhead = memory_overhead(spec, _stated_memory(spec), version, ratio=overhead_ratio)
    if pages := (domain.get("memory") or {}).get("hugepages"):
        # The guest lives in huge pages; ordinary memory is taken by what surrounds it.
        guest = min(memory, guest_memory(spec))
        request[f"hugepages-{pages.get('pageSize')}"] = guest
        request["memory"] = memory - guest
    request["memory"] += overhead
    return request


def vmi_limits(
    spec: Mapping[str, Any],
    version: str = DEFAULT_VERSION,
    *,
    even_parity: bool = False,
    memory_overcommit: int = MEMORY_OVERCOMMIT,
    overhead_ratio: str | float = 1,
) -> dict[str, int]:
    """A VMI's limits, whatever the accounting mode: what its cgroup may use is what is charged.

    Those stated, memory with the overhead that KubeVirt adds; pinned CPUs make limits equal requests.  What is not stated
    limits nothing and is not charged: a quota on it then insists (:func:`vmi_unspecified`).
    """
    limits = _set(_amounts(((spec.get("domain") or {}).get("resources") or {}).get("limits")))
    if dedicated(spec):
        request = vmi_requests(
            spec,
            version=version,
            even_parity=even_parity,
            memory_overcommit=memory_overcommit,
            overhead_ratio=overhead_ratio,
        )
        return {**limits, "cpu": request["cpu"], "memory": request["memory"]}
    if "memory" in limits:
        memory = (spec.get("domain") or {}).get("memory") or {}
        if memory.get("hugepages"):
            # The guest lives in huge pages, which have no name among limits; what is left is for what surrounds it.
            limits["memory"] = max(0, limits["memory"] - whole(memory["guest"])) if memory.get("guest") else 0
        limits["memory"] += memory_overhead(spec, _stated_memory(spec), version, ratio=overhead_ratio)
    return limits


def vmi_unspecified(limits: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """``limits.cpu`` → the container of a VMI that leaves it open, in KubeVirt's name for it."""
    return {f"limits.{name}": (VMI_CONTAINER,) for name in _COMPUTE if name not in limits}


def vmi_scopes(spec: Mapping[str, Any]) -> frozenset[str]:
    """The ResourceQuota scopes a VMI is in: a guest always asks for something and has no deadline."""
    scopes = {"NotTerminating", "NotBestEffort"}
    if _crosses_namespaces(spec.get("affinity") or {}):
        scopes.add("CrossNamespacePodAffinity")
    return frozenset(scopes)
