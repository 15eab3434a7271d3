"""Label and field selectors: from an object (LabelSelector), from text (``-l``, ``--field-selector``), to a predicate.

Nil and empty differ upstream: a nil selector matches nothing, an empty one everything.  Callers that mean "absent is
everything" pass ``{}``.  Source: apimachinery pkg/labels, pkg/fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key. ``operator``: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        if value is None:
            return False
        try:
            number, bound = int(value), int(next(iter(self.values)))
        except ValueError:
            return False
        return number > bound if self.operator == "Gt" else number < bound


@dataclass(frozen=True, slots=True)
class Selector:
    """A conjunction of requirements; hashable, so that equal selectors share one compiled result."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.nothing:
            return False
        return all(requirement.matches(labels) for requirement in self.requirements)


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)


def from_object(selector: Mapping[str, Any] | None) -> Selector:
    """Compile a metav1.LabelSelector. None matches nothing. Raises ValueError on an unknown operator or bad shape."""
    if selector is None:
        return NOTHING
    requirements = [Requirement(k, "In", frozenset((str(v),))) for k, v in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, operator = expression.get("key"), expression.get("operator")
        values = frozenset(str(v) for v in expression.get("values") or ())
        if not key:
            raise ValueError("matchExpressions: a key is required")
        if operator in ("In", "NotIn"):
            if not values:
                raise ValueError(f"matchExpressions: {operator} on {key!r} needs at least one value")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                raise ValueError(f"matchExpressions: {operator} on {key!r} takes no values")
        else:
            raise ValueError(
                f"matchExpressions: {operator!r} is not an operator; use In, NotIn, Exists or DoesNotExist"
            )
        requirements.append(Requirement(str(key), str(operator), values))
    return Selector(tuple(sorted(requirements, key=lambda r: (r.key, r.operator, sorted(r.values)))))


_SET = re.compile(r"\s*(?P<key>[^\s,=!()<>]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*(?:,|$)")
_ONE = re.compile(
    r"\s*(?P<not>!)?\s*(?P<key>[^\s,=!()<>]+)\s*(?:(?P<op>==|=|!=|>|<)\s*(?P<value>[^\s,=!()<>]*))?\s*(?:,|$)"
)


def parse(text: str) -> Selector:
    """Compile the text form (``app=web,tier in (a,b),!old``). Raises ValueError with the place that cannot be read."""
    requirements: list[Requirement] = []
    position = 0
    while position < len(text):
        if match := _SET.match(text, position):
            values = frozenset(v.strip() for v in match["values"].split(","))
            requirements.append(Requirement(match["key"], "In" if match["op"] == "in" else "NotIn", values))
        elif match := _ONE.match(text, position):
            requirements.append(_single(match, text))
        else:
            raise ValueError(f"unable to parse selector {text!r} at {text[position:]!r}")
        position = match.end()
    return Selector(tuple(requirements))


def _single(match: re.Match[str], text: str) -> Requirement:
    operator, key, value = match["op"], match["key"], match["value"]
    if match["not"]:
        if operator:
            raise ValueError(f"unable to parse selector {text!r}: '!' takes a key only")
        return Requirement(key, "DoesNotExist")
    if operator is None:
        return Requirement(key, "Exists")
    if operator in (">", "<"):
        if not re.fullmatch(r"-?\d+", value):
            raise ValueError(f"unable to parse selector {text!r}: {operator} needs an integer")
        return Requirement(key, "Gt" if operator == ">" else "Lt", frozenset((value,)))
    return Requirement(key, "NotIn" if operator == "!=" else "In", frozenset((value,)))


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """A conjunction of (path, wanted equal?, value); an absent field compares as the empty string."""

    terms: tuple[tuple[tuple[str, ...], bool, str], ...] = ()

    def matches(self, obj: Mapping[str, Any]) -> bool:
        return all((field_text(obj, path) == value) is equal for path, equal, value in self.terms)

    def paths(self) -> Sequence[str]:
        return [".".join(path) for path, _, _ in self.terms]


def field_text(obj: Mapping[str, Any], path: Sequence[str]) -> str:
    """The text of a field for comparison: '' when absent, true/false for booleans."""
    current: Any = obj
    for step in path:
        if not isinstance(current, Mapping):
            return ""
        current = current.get(step)
    if current is None:
        return ""
    if isinstance(current, bool):
        return "true" if current else "false"
    return str(current)


def parse_fields(text: str) -> FieldSelector:
    """Compile ``metadata.name=web,status.phase!=Running``. Raises ValueError with the term that cannot be read."""
    terms: list[tuple[tuple[str, ...], bool, str]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(r"([A-Za-z0-9_./-]+)(==|=|!=)(.*)", part)
        if match is None:
            raise ValueError(f"unable to parse field selector term {part!r}: write field=value or field!=value")
        terms.append((tuple(match[1].split(".")), match[2] != "!=", match[3]))
    return FieldSelector(tuple(terms))
