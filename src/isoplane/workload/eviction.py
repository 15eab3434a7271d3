"""Whether a workload takes more of the node's disk than it may, and in which words it is told. Pure.

The node measures from time to time, as a kubelet does.  So a limit may be exceeded for as long as lies between two
measurements; where the file system has project quotas, by a margin at most.  What lies in memory (a volume, small files like
/etc/hosts) has its size from the kernel and is not measured.
Source: kubernetes pkg/kubelet/eviction/eviction_manager.go (localStorageEviction), helpers.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from isoplane.objects import quantity
from isoplane.workload.shape import Verdict, Workload

REASON = "Evicted"
EPHEMERAL = "ephemeral-storage"


@dataclass(frozen=True, slots=True)
class StorageUse:
    """Bytes of the node's disk."""

    units: Mapping[str, int] = field(default_factory=dict)
    """Unit → what it wrote to its file system, and its log."""
    volumes: Mapping[str, int] = field(default_factory=dict)
    """Volume → what lies in it."""

    @property
    def total(self) -> int:
        return sum(self.units.values()) + sum(self.volumes.values())


def volume_limits(workload: Workload) -> dict[str, str]:
    """Volume on the node's disk → its size limit as declared."""
    found = {}
    for volume in workload.volumes:
        source = volume.get("emptyDir") or {}
        if source.get("sizeLimit") and source.get("medium") != "Memory":
            found[str(volume.get("name"))] = str(source["sizeLimit"])
    return found


def is_limited(workload: Workload) -> bool:
    """Whether there is anything to measure for."""
    unit_limited = any(unit.storage_limit for unit in workload.units)
    return bool(unit_limited or workload.limits.get(EPHEMERAL) or volume_limits(workload))


def judge(workload: Workload, use: StorageUse) -> Verdict | None:
    """Why the workload has to go: the first of its volumes, itself as a whole, or a unit that is over its limit."""
    for name, text in volume_limits(workload).items():
        if use.volumes.get(name, 0) > quantity.whole(text) > 0:
            return Verdict(REASON, f'Usage of EmptyDir volume "{name}" exceeds the limit "{text}". ')
    whole = workload.limits.get(EPHEMERAL, 0)
    if whole and use.total > whole:
        text = quantity.render(EPHEMERAL, whole)
        return Verdict(REASON, f"Pod ephemeral local storage usage exceeds the total limit of containers {text}. ")
    for unit in workload.units:
        if unit.storage_limit and use.units.get(unit.name, 0) > unit.storage_limit:
            text = quantity.render(EPHEMERAL, unit.storage_limit)
            message = f'Container {unit.name} exceeded its local ephemeral storage limit "{text}". '
            return Verdict(REASON, message)
    return None
