"""Field paths and values as Kubernetes' messages print them: ``spec.containers[0].image``, ``"web"``, ``3``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

_MAX_SHOWN = 200
_MAX_PATH = 1000
_MAX_REPEATED = 100


class Trail:
    """Where a decoder is in a document, and which keys it met twice: the first hundred, as told to the client.

    A path is written out only for those: a document of long names and many fields would otherwise make far more text
    of its paths than it has itself.
    """

    __slots__ = ("repeated", "steps")

    def __init__(self) -> None:
        self.steps: list[str | int] = []
        self.repeated: list[str] = []

    def enter(self, step: str | int) -> None:
        self.steps.append(step)

    def leave(self) -> None:
        self.steps.pop()

    def repeats(self) -> None:
        """Note that the key of the present place was there before."""
        if len(self.repeated) < _MAX_REPEATED:
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:_MAX_PATH]}" for step in self.steps)
            path = path.removeprefix(".")
            self.repeated.append(f'duplicate field "{path if len(path) <= _MAX_PATH else path[:_MAX_PATH] + "…"}"')


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
