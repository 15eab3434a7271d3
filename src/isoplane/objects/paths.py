"""Field paths and values as Kubernetes' messages print them: ``spec.containers[0].image``, ``"web"``, ``3``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

_MAX_SHOWN = 200


def field_path(steps: Iterable[str | int]) -> str:
    """The dotted path of a value; '' for the object itself."""
    path = ""
    for step in steps:
        if isinstance(step, int) or "." in step or "/" in step:
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path


def shown(value: Any) -> str:
    """A value as JSON, cut when long; what cannot be written as JSON as Python shows it."""
    try:
        text = orjson.dumps(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
