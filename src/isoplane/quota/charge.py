"""A workload's charge: what it takes of a quota, by every name a ResourceQuota may use for it.

Source: the core quota evaluator (podComputeUsageHelper).  ``cpu`` and ``requests.cpu`` are the same amount under two names;
extended resources count as ``requests.NAME`` only; ``pods`` counts workloads of any kind that have not ended, and
``count/RESOURCE.GROUP`` counts objects as long as they are stored.  What the guests of machines see has names of its own, those
of KubeVirt's application-aware quota (``requests.cpu/vmi``…): no Pod counts there, and no overhead.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.objects.scheme import Scheme
from isoplane.quota.model import Amounts, Charge, Quota
from isoplane.quota.scopes import VOLUMES
from isoplane.workload.shape import Claim

_NATIVE = ("cpu", "memory", "ephemeral-storage")
_LIMITED = tuple((resource, f"limits.{resource}") for resource in _NATIVE)
_LIMITS = frozenset(name for _, name in _LIMITED)

_GUEST = {"cpu": "requests.cpu/vmi", "memory": "requests.memory/vmi"}
_INSTANCES = "requests.instances/vmi"
GUESTS = frozenset({*_GUEST.values(), _INSTANCES})
"""What a quota may count of virtual machines alone."""

INSISTED = frozenset({"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"})
"""A quota on one of these refuses a workload that leaves it open."""


def count_name(resource: Resource) -> str:
    """``count/pods`` or ``count/virtualmachines.kubevirt.io``."""
    return f"count/{resource.qualified}"


@lru_cache(maxsize=1024)
def object_amounts(resource: Resource) -> Amounts:
    """What an object takes merely by being stored. Shared: not to be changed."""
    amounts = {count_name(resource): 1}
    if resource.counted_as:
        amounts[resource.counted_as] = 1
    return amounts


def amounts(requests: Amounts, limits: Amounts) -> dict[str, int]:
    """Requests and limits by quota resource name."""
    taken = {name: value for resource, value in requests.items() for name in _requested(resource)}
    for resource, name in _LIMITED:
        if resource in limits:
            taken[name] = limits[resource]
    return taken


def guest_amounts(guest: Amounts) -> dict[str, int]:
    """What the guest of a machine takes by its own names; nothing for what has no guest."""
    return {_INSTANCES: 1, **{_GUEST[name]: value for name, value in guest.items()}} if guest else {}


@lru_cache(maxsize=1024)
def _requested(resource: str) -> tuple[str, ...]:
    """The names under which a quota may count a request."""
    own = (resource,) if resource in _NATIVE or resource.startswith("hugepages-") else ()
    requested = f"requests.{resource}"
    return (*(() if requested in GUESTS else (requested,)), *own)


def counts_nothing(quota: Quota, served: Scheme) -> list[str]:
    """One text for each limit of a quota that nothing here can ever use up: a misspelt name, or a kind that is not served."""
    if any(term.scope == VOLUMES and term.operator != "DoesNotExist" for term in quota.scopes):
        return [f"spec.scopes: {VOLUMES} is a scope of volume claims, which are not served: this quota counts nothing"]
    scoped = "in a quota with scopes only what workloads take is counted: " if quota.scopes else ""
    counted = {name for r in served.stored() if r.namespaced for name in object_amounts(r)}
    return [
        f"spec.hard[{name}]: {scoped}nothing is counted by this name{_instead(name)}"
        for name in sorted(quota.hard)
        if not _is_workloads(name) and (quota.scopes or name not in counted)
    ]


def _is_workloads(name: str) -> bool:
    """Whether Pods or machines are counted by this name."""
    resource = name.removeprefix("requests.")
    native = resource in _NATIVE or resource.startswith("hugepages-")
    if name in _LIMITS or name in GUESTS or name == "pods" or native:
        return True
    if name.startswith("count/"):
        return name in map(count_name, (PODS, VIRTUALMACHINEINSTANCES))
    return name.startswith("requests.") and "/" in resource and not (resource.endswith("/vmi") and "." not in resource)


def _instead(name: str) -> str:
    extended = "/" in name and not name.startswith(("requests.", "limits.", "count/"))
    return f": write requests.{name}" if extended else ""


def charge_of(claim: Claim, *, created: float, since: float = 0) -> Charge:
    """The ledger entry of a workload."""
    stored = object_amounts(claim.resource)
    taken: Mapping[str, int] = stored
    finished = claim.finished
    if not finished:
        taken = {"pods": 1, **stored, **amounts(claim.request, claim.limits), **guest_amounts(claim.guest)}
    return Charge(
        uid=claim.uid,
        id=claim.id,
        tenant=claim.namespace,
        amounts=taken,
        priority=claim.priority,
        priority_class=claim.priority_class,
        scopes=claim.scopes,
        cost=claim.disruption_cost,
        created=created,
        since=since,
        evicting=claim.deleting,
        finished=finished,
        migrating=claim.migrating,
    )


def canonical(name: str) -> str:
    """The one name a resource has in guaranteed, borrowing and capacity: ``cpu`` is ``requests.cpu``, ``pods`` is itself."""
    if name == "pods" or name.startswith(("requests.", "limits.", "count/")):
        return name
    return f"requests.{name}"
