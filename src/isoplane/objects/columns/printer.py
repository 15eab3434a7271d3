"""A printer of one kind, and the pieces that rows are made of: ages, labels, conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.metadata import Object

Cell = str | int | bool | None
UNKNOWN, NONE = "<unknown>", "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``wide`` ones are shown with ``-o wide`` only.

    ``path``: the simple JSONPath of what it shows, for a kind that is also served by other API servers (``objects.crd``).
    """

    name: str
    description: str = ""
    type: str = "string"
    format: str = ""
    wide: bool = False
    path: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As metav1.TableColumnDefinition."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description or self.name,
            "priority": 1 if self.wide else 0,
        }


@dataclass(frozen=True, slots=True)
class Printer:
    """``row(object, now)`` gives one cell a column; ``now`` is POSIX seconds. ``conditions`` mark finished rows."""

    columns: tuple[Column, ...]
    row: Callable[[Object, float], list[Cell]]
    conditions: Callable[[Object], list[dict[str, str]]] | None = None


NAME = Column("Name", "Name must be unique within a namespace.", format="name")
AGE = Column("Age", "Time since the object was created.", path=".metadata.creationTimestamp")


def age(obj: Mapping[str, Any], now: float) -> str:
    """How old an object is."""
    return since((obj.get("metadata") or {}).get("creationTimestamp"), now)


PLAIN = Printer((NAME, AGE), lambda obj, now: [metadata.name(obj), age(obj, now)])
"""For a kind without columns of its own."""


def since(stamp: str | None, now: float) -> str:
    """The time since a timestamp, as kubectl shortens it; ``<unknown>`` when there is none."""
    try:
        moment = metadata.posix(stamp)
    except ValueError:
        return "<invalid>"
    return UNKNOWN if moment is None else human_duration(now - moment)


def human_duration(seconds: float) -> str:
    """A duration in two units at most, as apimachinery's duration.HumanDuration writes it."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(0, whole)}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    if hours < 24 * 365 * 8:
        return _two(hours // 24 // 365, "y", hours // 24 % 365, "d")
    return f"{hours // 24 // 365}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def condition_status(obj: Mapping[str, Any], type_: str) -> str:
    """The status of a condition, '' when it is not there."""
    return str((metadata.condition(obj, type_) or {}).get("status") or "")


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """A label selector in its text form; ``<none>`` for one that selects everything."""
    if not selector:
        return NONE
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        key, operator, values = expression.get("key"), expression.get("operator"), expression.get("values") or ()
        listed = ",".join(sorted(str(value) for value in values))
        forms = {
            "In": f"{key} in ({listed})",
            "NotIn": f"{key} notin ({listed})",
            "Exists": f"{key}",
            "DoesNotExist": f"!{key}",
        }
        parts.append(forms.get(str(operator), f"{key} {operator}"))
    return ",".join(parts) or NONE


def amounts_text(amounts: Mapping[str, Any] | None) -> str:
    """Amounts by resource: ``cpu: 2, memory: 1Gi``."""
    return ", ".join(f"{name}: {value}" for name, value in sorted((amounts or {}).items()))
