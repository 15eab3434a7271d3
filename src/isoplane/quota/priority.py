"""From the name of a PriorityClass to the integer that is compared: the same for every kind of workload.

A workload names its class in ``spec.priorityClassName`` or in the annotation ``scheduling.k8s.io/priority-class``; the two
may not differ.  Without a name the global default counts, without one 0.  Source: kube-apiserver's Priority plug-in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.objects import metadata
from isoplane.workload.adapters import PRIORITY_HANDLE

PREEMPTS = "PreemptLowerPriority"


@dataclass(frozen=True, slots=True)
class PriorityClass:
    """A class as a workload gets it; ``name`` '' when there is none."""

    name: str = ""
    value: int = 0
    preemption_policy: str = PREEMPTS
    is_default: bool = False


NO_CLASS = PriorityClass()


class HandleConflict(ValueError):
    """The annotation and the spec name different classes. ``in_spec`` and ``in_handle`` say which."""

    def __init__(self, in_spec: str, in_handle: str) -> None:
        super().__init__(
            f'annotation {PRIORITY_HANDLE} "{in_handle}" differs from spec.priorityClassName "{in_spec}"; '
            "set one of the two, or both to the same class"
        )
        self.in_spec = in_spec
        self.in_handle = in_handle


def class_of(obj: Mapping[str, Any]) -> PriorityClass:
    """A PriorityClass object."""
    return PriorityClass(
        metadata.name(obj),
        int(obj.get("value") or 0),
        str(obj.get("preemptionPolicy") or PREEMPTS),
        bool(obj.get("globalDefault")),
    )


def class_name(obj: Mapping[str, Any]) -> str:
    """The class that an object (or a template) names, '' for none. Raises HandleConflict."""
    in_spec = str((obj.get("spec") or {}).get("priorityClassName") or "")
    in_handle = str(metadata.annotations_of(obj).get(PRIORITY_HANDLE) or "")
    if in_spec and in_handle and in_spec != in_handle:
        raise HandleConflict(in_spec, in_handle)
    return in_spec or in_handle


def default_class(classes: Iterable[PriorityClass]) -> PriorityClass:
    """The global default; of several (written before they were refused) the least, as upstream; NO_CLASS for none."""
    return min((c for c in classes if c.is_default), key=lambda c: c.value, default=NO_CLASS)
