"""What the node remembers of one workload between two looks. All of it can be lost: the next look rebuilds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isoplane.objects.metadata import Object
from isoplane.workload.adapters import Adapter, Waiting
from isoplane.workload.delta import Memory
from isoplane.workload.health import Health
from isoplane.workload.shape import Stage, Verdict, Workload


@dataclass(frozen=True, slots=True)
class Desired:
    """A workload as its object tells it, with the adapter that can write back."""

    adapter: Adapter
    object: Object
    workload: Workload


@dataclass(slots=True)
class Track:
    """The mutable notes behind a :class:`~isoplane.workload.delta.Memory`."""

    runtime: str = ""
    asked: dict[str, float] = field(default_factory=dict)
    asked_first: dict[str, float] = field(default_factory=dict)
    crashes: dict[str, int] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    """Unit → the attempt that ``health`` speaks of."""
    told: dict[str, int] = field(default_factory=dict)
    """Unit → the attempt whose start people were told of."""
    ended: dict[str, int] = field(default_factory=dict)
    """Unit → the attempt whose bad end people were told of."""
    stops_told: dict[str, set[str]] = field(default_factory=dict)
    """Unit → how people were told that this attempt of it ends."""
    hook_told: dict[str, int] = field(default_factory=dict)
    """Unit → the attempt whose failed hook people were told of."""
    backed_off: dict[str, int] = field(default_factory=dict)
    """Unit → the attempt after whose end people were told that the next one waits."""
    waiting: dict[str, Waiting] = field(default_factory=dict)
    verdict: Verdict | None = None
    """Why this node ends it, once it does."""
    failures: int = 0
    retry_at: float = 0.0
    stages: dict[Stage, float] = field(default_factory=dict)
    """Stages seen and not yet on the object, POSIX seconds."""
    latest: Object | None = None
    """The newest version of the object that this node wrote."""
    addresses: tuple[str, ...] = ()
    refresh_at: float = 0.0
    """When its volumes are next brought up to their objects, POSIX seconds."""
    measure_at: float = 0.0
    """When its use of the disk is next measured, POSIX seconds."""
    told_of_itself: tuple[Mapping[str, str], Mapping[str, str]] | None = None
    """The labels and annotations that its volumes were last brought up to."""

    def memory(self) -> Memory:
        """An immutable view for the pure core."""
        return Memory(self.asked, self.asked_first, self.crashes, self.health, self.retry_at, self.verdict)

    def forget_unit(self, unit: str) -> None:
        """A unit starts anew: what was asked of its last attempt is over."""
        for notes in (self.asked, self.asked_first, self.stops_told, self.health, self.waiting):
            notes.pop(unit, None)

    def newer(self, obj: Object) -> Object:
        """``obj``, or what this node wrote since."""
        if self.latest is None or _revision(self.latest) <= _revision(obj):
            self.latest = None
            return obj
        return self.latest


def _revision(obj: dict[str, Any]) -> int:
    text = str((obj.get("metadata") or {}).get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0
