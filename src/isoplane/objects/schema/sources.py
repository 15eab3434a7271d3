"""The schema definitions from the files of this package, as OpenAPI v3 components by name.

Loaded at the first use.  Descriptions are more than half of the data and only ``explain`` wants them, so the shared
copy that validation and patches use has none.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

REF = "#/components/schemas/"
"""What precedes a definition's name in a ``$ref``."""
_PACKED = ("kubernetes.json.gz", "kubevirt.json.gz")

Definition = dict[str, Any]


def read_definitions() -> dict[str, Definition]:
    """All definitions with their descriptions; read anew at each call."""
    import yaml  # who only names kinds does not wait for it

    folder = files(__package__)
    result: dict[str, Definition] = {}
    for name in _PACKED:
        result |= orjson.loads(gzip.decompress(folder.joinpath(name).read_bytes()))["definitions"]
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            result |= yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)["definitions"]
    return result


@cache
def definitions() -> dict[str, Definition]:
    """All definitions by name, without descriptions. Shared: do not change it."""
    return {name: bare(definition) for name, definition in read_definitions().items()}


@cache
def _names() -> dict[tuple[str, str, str], str]:
    return named(definitions())


def named(pool: Mapping[str, Definition]) -> dict[tuple[str, str, str], str]:
    """(group, version, kind) → the name of its definition, for those of ``pool``."""
    return {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, definition in pool.items()
        for gvk in definition.get("x-kubernetes-group-version-kind", ())
    }


def definition_name(group: str, version: str, kind: str) -> str:
    """The name of the kind's definition. Raises LookupError for a kind without a schema."""
    try:
        return _names()[group, version, kind]
    except KeyError:
        raise LookupError(f"no schema for kind {kind!r} of {group or 'core'}/{version}") from None


def bare(node: Any) -> Any:
    """A definition without its descriptions."""
    if isinstance(node, list):
        return [bare(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        if key == "properties":
            # Here a key is a field's name, and a field may well be called "description".
            result[key] = {name: bare(child) for name, child in value.items()}
        elif key != "description":
            result[key] = bare(value)
    return result
