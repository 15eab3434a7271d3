"""Reading a declared dictionary: each reader gives the value of the expected type or refuses it with the field's path.

The API server's schema has checked all this for objects that came through it; a spec that did not is refused here in the
same manner, not with a stack trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason
from isoplane.objects import quantity

Spec = Mapping[str, Any]


def refuse(path: str, what: str) -> RuntimeFailure:
    """The failure for a field that cannot be honoured: a matter of configuration, so retrying will not help."""
    return RuntimeFailure(RuntimeReason.CREATE_CONFIG, f"spec.{path}: {what}")


def mapping(value: Any, path: str) -> Spec:
    """An object; an absent one is empty."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise refuse(path, f"expected an object, found {type(value).__name__}")
    return value


def items(value: Any, path: str) -> list[Spec]:
    """A list of objects; an absent one is empty."""
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise refuse(path, f"expected a list, found {type(value).__name__}")
    return [mapping(item, f"{path}[{index}]") for index, item in enumerate(value)]


def text(value: Any, path: str) -> str:
    """A string; an absent one is empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refuse(path, f"expected text, found {type(value).__name__}")
    return value


def required(parent: Spec, key: str, path: str, why: str = "required") -> str:
    """A string that must be there. ``path`` is the parent's."""
    value = text(parent.get(key), f"{path}.{key}")
    if not value:
        raise refuse(f"{path}.{key}", why)
    return value


def positive(value: Any, path: str) -> int:
    """A whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise refuse(path, f"expected a whole number of at least 1, found {value!r}")
    return value


def amount(value: Any, path: str) -> int:
    """A quantity in whole units, rounded up."""
    if isinstance(value, str | int | float):
        try:
            return quantity.whole(value)
        except ValueError as error:
            raise refuse(path, str(error)) from None
    raise refuse(path, f"expected a quantity, found {type(value).__name__}")
