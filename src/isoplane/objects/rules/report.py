"""Collects what is wrong with an object, in Kubernetes' own words and reasons.

Source: apimachinery pkg/util/validation/field.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from isoplane.objects import quantity
from isoplane.objects.errors import Cause
from isoplane.objects.paths import shown

QUANTITY_FORM = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_MAX_CAUSES = 50


@lru_cache(maxsize=4096, typed=True)
def _amount(value: Any, cpu: bool, whole: bool) -> int:
    """A quantity in isoplane's unit of its resource. Raises ValueError that says what is wrong, which is not remembered."""
    try:
        exact = quantity.parse(value)
    except (ValueError, TypeError):
        raise ValueError(QUANTITY_FORM) from None
    if exact < 0:
        raise ValueError("must be greater than or equal to 0")
    if whole and exact.denominator != 1:
        raise ValueError("must be an integer")
    if exact > 2**63 - 1:
        raise ValueError("must be less than 2^63")
    return quantity.milli(value) if cpu else quantity.whole(value)


class Report:
    """The causes found so far. Each method notes one and takes the path of the field."""

    __slots__ = ("causes",)

    def __init__(self) -> None:
        self.causes: list[Cause] = []

    def _add(self, path: str, message: str, reason: str) -> None:
        if len(self.causes) < _MAX_CAUSES:
            self.causes.append(Cause(path, message, reason))

    def invalid(self, path: str, value: Any, text: str) -> None:
        if len(self.causes) < _MAX_CAUSES:  # a large value is not written out for nobody
            self._add(path, f"Invalid value: {shown(value)}: {text}", "FieldValueInvalid")

    def required(self, path: str, text: str = "") -> None:
        self._add(path, f"Required value: {text}" if text else "Required value", "FieldValueRequired")

    def unsupported(self, path: str, value: Any, options: Iterable[str]) -> None:
        text = ", ".join(shown(option) for option in options)
        self._add(path, f"Unsupported value: {shown(value)}: supported values: {text}", "FieldValueNotSupported")

    def duplicate(self, path: str, value: Any) -> None:
        self._add(path, f"Duplicate value: {shown(value)}", "FieldValueDuplicate")

    def not_found(self, path: str, value: Any) -> None:
        self._add(path, f"Not found: {shown(value)}", "FieldValueNotFound")

    def forbidden(self, path: str, text: str) -> None:
        self._add(path, f"Forbidden: {text}", "FieldValueForbidden")

    def too_long(self, path: str, limit: int) -> None:
        self._add(path, f"Too long: may not be more than {limit} bytes", "FieldValueTooLong")

    def too_many(self, path: str, count: int, limit: int) -> None:
        self._add(path, f"Too many: {count}: must have at most {limit} items", "FieldValueTooMany")

    def text(self, path: str, value: Any, problem: str | None) -> None:
        """Note the problem that a check of ``objects.names`` found, if it found one."""
        if problem is not None:
            self.invalid(path, value, problem)

    def one_of(self, path: str, value: Any, options: Iterable[str]) -> None:
        """An enumerated field; absent is fine."""
        if value is not None and value != "" and value not in options:
            self.unsupported(path, value, options)

    def quantity(self, path: str, resource: str, value: Any, *, whole: bool = False) -> int | None:
        """A quantity that is not negative, in isoplane's unit of the resource; None (and noted) when it is wrong."""
        try:
            return _amount(value, quantity.is_cpu(resource), whole)
        except ValueError as problem:
            self.invalid(path, value, str(problem))
        except TypeError:  # not hashable, so neither text nor number
            self.invalid(path, value, QUANTITY_FORM)
        return None

    def port(self, path: str, value: Any) -> None:
        if not isinstance(value, int) or not 1 <= value <= 65535:
            self.invalid(path, value, "must be between 1 and 65535, inclusive")

    def not_negative(self, path: str, value: Any) -> None:
        if isinstance(value, (int, float)) and value < 0:
            self.invalid(path, value, "must be greater than or equal to 0")

    def positive(self, path: str, value: Any) -> None:
        if isinstance(value, (int, float)) and value <= 0:
            self.invalid(path, value, "must be greater than 0")

    def immutable(self, path: str, new: Any, old: Any) -> None:
        if new != old:
            self.invalid(path, new, "field is immutable")
