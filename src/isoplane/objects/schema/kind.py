"""The schema of one kind: where its definition is, and what is made of it, each once and at the first use.

A built-in kind's definition is in the files of this package; a kind that is added while the plane runs brings its own.
What is made of a schema hangs on it and goes with it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from isoplane.objects.schema.compiled import compiled
from isoplane.objects.schema.sources import REF, Definition, bare, definition_name, definitions, named
from isoplane.objects.schema.structure import Node

if TYPE_CHECKING:
    import jsonschema_rs


class Schema:
    """``own``: definitions by name that the package's files do not have; they may refer to those that are there."""

    def __init__(self, group: str, version: str, kind: str, own: Mapping[str, Definition]) -> None:
        self.own = own
        self._gvk = (group, version, kind)

    @cached_property
    def name(self) -> str:
        """The name of the kind's definition. Raises LookupError for a kind without a schema."""
        return named(self.own).get(self._gvk) or definition_name(*self._gvk)

    @cached_property
    def pool(self) -> Mapping[str, Definition]:
        """Every definition that the kind's may refer to, without descriptions."""
        if not self.own:
            return definitions()
        return ChainMap({name: bare(definition) for name, definition in self.own.items()}, definitions())

    @cached_property
    def root(self) -> Node:
        """The structure of the kind."""
        return Node({"$ref": REF + self.name}, self._gvk[2], self.pool)

    @cached_property
    def strict(self) -> jsonschema_rs.Draft4Validator:
        """Knows every field."""
        return compiled(self.name, self.pool, strict=True)

    @cached_property
    def lenient(self) -> jsonschema_rs.Draft4Validator:
        """Lets unknown fields pass."""
        return compiled(self.name, self.pool, strict=False)
