"""CONTRACT: what an answer is made of: objects that are encoded already, alone or as a page of a list.

The store's records are such items; a server that keeps nothing makes :class:`EncodedObject` from what it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import orjson

from isoplane.objects.metadata import Object


class Item(Protocol):
    """One object at one revision. ``data`` is its JSON, with that ``metadata.resourceVersion``."""

    @property
    def data(self) -> bytes: ...

    @property
    def revision(self) -> int: ...

    def object(self) -> Object:
        """A parsed copy that belongs to the caller."""
        ...


I = TypeVar("I", bound=Item, covariant=True)  # noqa: E741


@dataclass(frozen=True, slots=True)
class Listing(Generic[I]):
    """A page of items as of ``revision``. ``remaining`` None: not counted (a selector is in play)."""

    records: Sequence[I]
    revision: int
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class EncodedObject:
    """An item that no store keeps."""

    data: bytes
    revision: int

    @classmethod
    def of(cls, obj: Object) -> EncodedObject:
        """``metadata.resourceVersion`` of ``obj`` is a number."""
        return cls(orjson.dumps(obj), int(obj["metadata"]["resourceVersion"]))

    def object(self) -> Object:
        parsed: Object = orjson.loads(self.data)
        return parsed
