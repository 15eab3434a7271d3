"""CONTRACT: what an adapter does.  Which one serves a resource: :mod:`isoplane.workload.registry`.

An adapter is the only code that knows a kind.  It reads an object into the shape, and writes what is decided or observed
back in that kind's own words.  Every method returns a new object; none touches its argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.workload.accounting import Accounting
from isoplane.workload.health import Health
from isoplane.workload.machine_offer import MachineOffer
from isoplane.workload.networked import Networked
from isoplane.workload.shape import Claim, Observed, Stage, Workload
from isoplane.workload.wording import Wording

QUOTA_GATE = "isoplane.io/quota"
PRIORITY_HANDLE = "scheduling.k8s.io/priority-class"
"""The founding document's common handle, an annotation honoured on both kinds."""
TRANSITIONS_ANNOTATION = "isoplane.io/transitions"
"""Compact JSON: stage → POSIX seconds with millisecond precision, for honest latencies on both kinds."""
PAUSED_ANNOTATION = "isoplane.io/paused"
ACCELERATOR_ANNOTATION = "isoplane.io/accelerator"
"""What runs a machine's guest code (kvm, tcg, simulated): KubeVirt's status has no field for it."""
PRIORITY_ANNOTATION = "isoplane.io/priority"
"""The resolved integer priority where upstream has no field for it."""
PREEMPTION_ANNOTATION = "isoplane.io/preemption-policy"
"""The resolved preemption policy where upstream has no field for it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a unit does not run: CrashLoopBackOff, ErrImagePull…"""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What the node knows of a workload; the adapter tells it in the kind's own status."""

    stage: Stage
    observed: Observed | None = None
    initialized: bool = False
    """Whether every init unit has done its part."""
    health: Mapping[str, Health] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    transitions: Mapping[str, float] = field(default_factory=dict)
    """Stages first reached since the object's last word, POSIX seconds."""
    addresses: tuple[str, ...] = ()
    node: str = ""
    node_addresses: tuple[str, ...] = ()
    enforced: str | None = None
    """The policy revision enforced on its port; None while it is closed or nothing enforces."""
    not_enforced: str = ""
    """Why the rules that policies ask for cannot be had at the moment; those of ``enforced`` stay in force."""
    reachable: bool = True
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Write:
    """How a change reaches the server: the subresource ('' for the object itself) and the body."""

    body: Object
    subresource: str
    action: bool = False
    """Whether the body is posted to the subresource (an action) rather than put."""


class Adapter(Protocol):
    """One kind, seen as a workload."""

    resource: Resource
    wording: Wording

    def claim(self, obj: Mapping[str, Any], accounting: Accounting) -> Claim:
        """The part of :meth:`project` that a quota looks at, its amounts by a QuotaPolicy's ``accounting``
        (``project``'s are by the default one); a kind that is counted in one way only ignores it. Raises ValueError."""
        ...

    def project(self, obj: Mapping[str, Any]) -> Workload:
        """The workload that an object stands for. Raises ValueError, with the field, on what validation should refuse."""
        ...

    def networked(self, obj: Mapping[str, Any]) -> Networked:
        """The part of :meth:`project` that NetworkPolicies look at: the same for what is stored and what is in a manifest."""
        ...

    def place(self, obj: Mapping[str, Any], node: str, now: float) -> Write:
        """Bind it to a node."""
        ...

    def unplaceable(self, obj: Mapping[str, Any], message: str, now: float) -> Object:
        """Say in the status that no node has room, and why."""
        ...

    def report(self, obj: Mapping[str, Any], report: Report, now: float) -> Object:
        """Its status (and transitions) as of now."""
        ...

    def nominate(self, obj: Mapping[str, Any], node: str) -> Object:
        """Name the node on which room is being made for it ('' for none); a kind without a field for it says nothing."""
        ...

    def gate(self, obj: Mapping[str, Any], message: str, now: float) -> Object:
        """Hold it back for quota: it is Gated, uncharged, and says what it waits for."""
        ...

    def ungate(self, obj: Mapping[str, Any], now: float) -> Object:
        """Release it: its quota is charged."""
        ...

    def mark_victim(self, obj: Mapping[str, Any], reason: str, message: str, now: float) -> Object:
        """Condition DisruptionTarget: by what it is preempted, for whom in the message. Deleting it is the caller's."""
        ...

    def set_priority(self, obj: Mapping[str, Any], class_name: str, value: int, preemption_policy: str) -> Object:
        """Record the resolved priority."""
        ...

    def fill_limits(self, obj: Mapping[str, Any], ranges: Sequence[Mapping[str, Any]]) -> tuple[Object, list[str]]:
        """What LimitRanges fill in for a new object, and what was set, in words; a kind without defaults is left alone."""
        ...

    def limit_violations(self, obj: Mapping[str, Any], limit_range: Mapping[str, Any]) -> list[str]:
        """What one LimitRange holds against a new object."""
        ...

    def trouble(self, obj: Mapping[str, Any], unit: str = "") -> Waiting | None:
        """What keeps it (or one unit of it) from running well, as its status tells; None while nothing does."""
        ...

    def ineffective(self, obj: Mapping[str, Any]) -> list[str]:
        """A line for each field that it sets and that changes nothing here."""
        ...

    def impossible(self, obj: Mapping[str, Any], offer: MachineOffer) -> list[tuple[str, str]]:
        """(path, why) for each field that it sets and that can never run here, on a host that offers this."""
        ...
