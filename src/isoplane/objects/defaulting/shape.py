"""Reading parts of a document that has not been validated yet."""

from __future__ import annotations

from typing import Any


def mapping(parent: Any, name: str) -> dict[str, Any] | None:
    """The object in a field, or None when there is none."""
    value = parent.get(name) if isinstance(parent, dict) else None
    return value if isinstance(value, dict) else None


def mappings(parent: Any, name: str) -> list[dict[str, Any]]:
    """The objects in a list field; anything else in it is skipped."""
    value = parent.get(name) if isinstance(parent, dict) else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
