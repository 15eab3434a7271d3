"""Reading fields of a plain object with their paths, collecting every problem instead of stopping at the first."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from isoplane.objects import names, selectors
from isoplane.objects.errors import Cause
from isoplane.objects.selectors import Selector
from isoplane.policy import addresses
from isoplane.policy.addresses import Prefix


class Problems:
    """The causes found so far; the readers below add to it and return a harmless value."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []

    def add(self, path: str, message: str, reason: str = "FieldValueInvalid") -> None:
        self.causes.append(Cause(path, message, reason))

    def required(self, path: str, message: str = "Required value") -> None:
        self.add(path, message, "FieldValueRequired")

    def forbidden(self, path: str, message: str) -> None:
        self.add(path, message, "FieldValueForbidden")

    def unsupported(self, path: str, value: object, allowed: tuple[str, ...]) -> None:
        supported = ", ".join(f'"{a}"' for a in allowed)
        self.add(path, f'Unsupported value: "{value}": supported values: {supported}', "FieldValueNotSupported")

    def mapping(self, value: Any, path: str) -> Mapping[str, Any]:
        if value is None or isinstance(value, dict | Mapping):  # a dict is recognised ten times faster
            return value or {}
        self.add(path, f"Invalid type: must be an object, not {_kind(value)}", "FieldValueTypeInvalid")
        return {}

    def items(self, value: Any, path: str) -> list[Any]:
        if value is None:
            return []
        if isinstance(value, list | tuple):
            return list(value)
        self.add(path, f"Invalid type: must be a list, not {_kind(value)}", "FieldValueTypeInvalid")
        return []

    def text(self, value: Any, path: str) -> str:
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        self.add(path, f"Invalid type: must be a string, not {_kind(value)}", "FieldValueTypeInvalid")
        return ""

    def known(self, value: Mapping[str, Any], path: str, allowed: tuple[str, ...]) -> None:
        """Refuse unknown fields where guessing would open or close something."""
        for key in value:
            if key not in allowed:
                self.add(f"{path}.{key}", f"Unknown field; allowed here: {', '.join(allowed)}", "FieldValueForbidden")

    def port(self, value: Any, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.add(path, f"Invalid type: must be a port number, not {_kind(value)}", "FieldValueTypeInvalid")
            return 1
        if not 1 <= value <= 65535:
            self.add(path, f"Invalid value: {value}: must be between 1 and 65535, inclusive")
            return 1
        return value

    def cidr(self, value: Any, path: str) -> Prefix | None:
        written = self.text(value, path)
        if not written:
            self.required(path, "Required value: a CIDR such as 10.0.0.0/8 or fd00::/8")
            return None
        try:
            return addresses.prefix(written)
        except ValueError as error:
            self.add(path, f'Invalid value: "{written}": must be a valid CIDR ({error})')
            return None

    def selector(self, value: Any, path: str) -> Selector:
        """A label selector; an empty one selects everything.  Keys and values are checked as Kubernetes does."""
        found = self.mapping(value, path)
        before = len(self.causes)
        self.known(found, path, ("matchLabels", "matchExpressions"))
        for key, label in self.mapping(found.get("matchLabels"), f"{path}.matchLabels").items():
            self._label(str(key), label, f"{path}.matchLabels")
        for index, item in enumerate(self.items(found.get("matchExpressions"), f"{path}.matchExpressions")):
            where = f"{path}.matchExpressions[{index}]"
            expression = self.mapping(item, where)
            self.known(expression, where, ("key", "operator", "values"))
            for value_index, label in enumerate(self.items(expression.get("values"), f"{where}.values")):
                self._label(str(expression.get("key") or ""), label, f"{where}.values[{value_index}]")
        if len(self.causes) > before:
            return selectors.NOTHING
        try:
            return selectors.from_object(found)
        except ValueError as error:
            self.add(path, f"Invalid value: {error}")
            return selectors.NOTHING

    def label(self, key: str, value: Any, path: str) -> str:
        """A label's value, checked with its key."""
        self._label(key, value, path)
        return value if isinstance(value, str) else ""

    def _label(self, key: str, value: Any, path: str) -> None:
        if not isinstance(value, str):
            hint = f"label values are strings: write {key}: {str(value).lower()!r} in quotes"
            self.add(path, f"Invalid type: {hint}", "FieldValueTypeInvalid")
            return
        problem = _label_problem(key, value)
        if problem:
            self.add(path, f'Invalid value: "{key}={value}": {problem}')


@lru_cache(maxsize=1 << 14)
def _label_problem(key: str, value: str) -> str | None:
    """Ten thousand policies name the same few labels."""
    return names.qualified(key) or names.label_value(value)


def _kind(value: object) -> str:
    kinds = {"str": "a string", "int": "a number", "float": "a number", "bool": "a boolean", "dict": "an object"}
    return kinds.get(type(value).__name__, "a list" if isinstance(value, list | tuple) else type(value).__name__)
