"""Request bodies to objects: JSON, YAML and Kubernetes protobuf, with one set of limits.

Whatever a client sends, the outcome is an object or an ApiError that says what is wrong and where; never another
exception, and never more memory or stack than the body's size justifies.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from isoplane.objects import protobuf
from isoplane.objects.copying import MAX_DEPTH, check_depth, count
from isoplane.objects.errors import BadRequest, TooLarge, UnsupportedMediaType
from isoplane.objects.paths import Trail
from isoplane.objects.yaml_decode import decode_yaml

MAX_BYTES = 3 * 1024 * 1024
"""The largest body that is read, as the Kubernetes API server limits it."""
MAX_VALUES = 250_000
"""Values in one body, whatever its form: each costs every step of a write its microsecond. A policy of 20,000 rules has fewer."""
JSON, YAML, PROTOBUF = "application/json", "application/yaml", protobuf.MEDIA_TYPE
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PATCH_KINDS = {JSON_PATCH: "json", MERGE_PATCH: "merge", STRATEGIC_PATCH: "strategic", APPLY_PATCH: "apply"}
"""Media types of patches, each with its name in the Api protocol."""
_OBJECT_TYPES = (JSON, YAML, PROTOBUF)


def decode_body(content_type: str | None, body: bytes, *, duplicates: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The object in a request body, and a text such as ``duplicate field "spec.x"`` for each repeated key.

    Repeated keys are looked for with ``duplicates`` only (field validation Warn or Strict); the last one counts.
    Raises BadRequest, TooLarge or UnsupportedMediaType.
    """
    media = media_type(content_type)
    if media == JSON:
        value, repeated = _json(body, duplicates)
    elif media in (YAML, "text/yaml", "application/x-yaml"):
        value, repeated = _yaml(body)
    elif media == PROTOBUF:
        _check_size(body)
        value, repeated = protobuf.decode(body), []
        check_depth(value)
        _check_values(value)
    else:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            f"{', '.join(_OBJECT_TYPES)}; got {media}"
        )
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be an object, not {_name(value)}")
    return value, repeated if duplicates else []


def decode_patch(content_type: str | None, body: bytes) -> tuple[str, Any, list[str]]:
    """The kind of a patch (json, merge, strategic, apply), the patch, and its repeated keys."""
    media = media_type(content_type)
    kind = PATCH_KINDS.get(media)
    if kind is None:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            f"{', '.join(PATCH_KINDS)}; got {media}"
        )
    value, repeated = _yaml(body) if kind == "apply" else _json(body, duplicates=True)
    if kind != "json" and not isinstance(value, dict):
        raise BadRequest(f"a {media} body must be an object, not {_name(value)}")
    return kind, value, repeated


def media_type(content_type: str | None) -> str:
    """The media type without its parameters; JSON where the client names none."""
    return (content_type or JSON).partition(";")[0].strip().lower() or JSON


def _check_size(body: bytes) -> None:
    if len(body) > MAX_BYTES:
        raise TooLarge(f"Request entity too large: limit is {MAX_BYTES} bytes, the body has {len(body)}")
    if not body.strip():
        raise BadRequest("the body is empty: an object is expected")


def _json(body: bytes, duplicates: bool) -> tuple[Any, list[str]]:
    _check_size(body)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:  # fewer brackets cannot nest deeper, and most bodies have fewer
        check_depth(value)
    if body.count(b",") + body.count(b":") > MAX_VALUES:  # likewise
        _check_values(value)
    # A compact body without repeated keys is as long as what it decodes to, which is cheap to see; only others (and
    # they are mostly indented or escaped) are parsed again by the slower parser that shows repetitions.
    if not duplicates or len(orjson.dumps(value)) == len(body.rstrip()):
        return value, []
    watcher = _Watcher()
    json.loads(body, object_pairs_hook=watcher)
    if not watcher.found:
        return value, []
    trail = Trail()
    _repetitions(json.loads(body, object_pairs_hook=_Pairs), trail)
    return value, trail.repeated


def _check_values(value: Any) -> None:
    if (found := count(value)) > MAX_VALUES:
        raise TooLarge(f"Request entity too large: limit is {MAX_VALUES} values, the body has {found}")


def _yaml(body: bytes) -> tuple[Any, list[str]]:
    _check_size(body)
    if body.lstrip()[:1] in (b"{", b"["):
        # Most "YAML" is JSON in fact; where it is not, YAML's parser has the say.
        try:
            return _json(body, duplicates=True)
        except BadRequest as error:
            if "not valid JSON" not in error.message:
                raise
    value, repeated = decode_yaml(body)
    _check_values(value)
    try:
        orjson.dumps(value)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the YAML body holds a value that JSON cannot express: {error}") from None
    return value, repeated


class _Watcher:
    """Sees whether any object has a key more than once."""

    def __init__(self) -> None:
        self.found = False

    def __call__(self, pairs: list[tuple[str, Any]]) -> None:
        self.found = self.found or len(pairs) != len({key for key, _ in pairs})


class _Pairs(dict[str, Any]):
    """An object that remembers which of its keys came more than once."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated: dict[str, None] = {}
        if len(self) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self.repeated[key] = None
                seen.add(key)


def _repetitions(value: Any, trail: Trail) -> None:
    if isinstance(value, _Pairs):
        for key in value.repeated:
            trail.enter(key)
            trail.repeats()
            trail.leave()
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in children:
        if isinstance(child, (dict, list)):
            trail.enter(step)
            _repetitions(child, trail)
            trail.leave()


def _name(value: Any) -> str:
    if value is None:
        return "null"
    return {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}[type(value)]
