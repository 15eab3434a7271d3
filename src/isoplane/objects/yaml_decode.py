"""YAML to JSON values, as Kubernetes reads it: YAML 1.1 scalars with the surprises taken out.

Built on libyaml's event stream rather than PyYAML's constructors, for four reasons: clock-like values (``22:30``) and
dates stay strings as in Go's parser; nesting is counted before it can exhaust the stack; events and what aliases add are
counted, so that nobody's ten lines become a gigabyte; and repeated keys are seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import yaml

from isoplane.objects.copying import MAX_DEPTH, deep_copy, too_deep, weight
from isoplane.objects.errors import BadRequest, TooLarge
from isoplane.objects.paths import Trail

MAX_EVENTS = 250_000
"""Keys, values, beginnings and ends that one document may have: reading each costs microseconds."""
MAX_EXPANDED = 200_000
"""Values that aliases may add to a document; long text counts by its length."""
_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"))
_FALSE = frozenset(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"))
INTEGER = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TAGS = "tag:yaml.org,2002:"
_MERGE = object()


def decode_yaml(body: bytes) -> tuple[Any, list[str]]:
    """The one document in ``body`` and its repeated keys. Raises BadRequest with line and column."""
    try:
        loader = yaml.CSafeLoader(body)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid YAML: {error}") from None
    try:
        return _Reader(loader).document()
    except yaml.MarkedYAMLError as error:
        if is_too_deep(error):
            raise too_deep() from None
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadRequest(f"the body is not valid YAML{where}: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid YAML: {error}") from None
    finally:
        loader.dispose()


def is_too_deep(error: yaml.YAMLError) -> bool:
    """Whether libyaml itself gave up on nesting, as newer ones do at a thousand levels, before it was counted here."""
    return isinstance(error, yaml.MarkedYAMLError) and "nesting depth" in str(error.problem)


class _Reader:
    """Reads one document from an event stream."""

    def __init__(self, loader: yaml.CSafeLoader) -> None:
        # The stream ends with StreamEnd, which every loop below meets in time; never with None.
        self.get_event: Callable[[], Any] = loader.get_event
        self.anchors: dict[str, Any] = {}
        self.events = 0
        self.expanded = 0
        self.trail = Trail()

    def next_event(self) -> Any:
        self.events += 1
        if self.events > MAX_EVENTS:
            raise TooLarge(f"the YAML document has more than {MAX_EVENTS} keys and values; send less at once, or JSON")
        return self.get_event()

    def document(self) -> tuple[Any, list[str]]:
        self.next_event()  # the stream's start
        event = self.next_event()
        if isinstance(event, yaml.StreamEndEvent):
            raise BadRequest("the body is empty: an object is expected")
        value = self.value(self.next_event(), MAX_DEPTH)
        self.next_event()  # the document's end
        if not isinstance(self.next_event(), yaml.StreamEndEvent):
            raise BadRequest("the body holds more than one YAML document")
        return value, self.trail.repeated

    def value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            if value is _MERGE:
                value = event.value
        elif depth <= 0:
            raise too_deep()
        elif isinstance(event, yaml.SequenceStartEvent):
            _check_tag(event, "seq")
            value = []
            while not isinstance(item := self.next_event(), yaml.SequenceEndEvent):
                self.trail.enter(len(value))
                value.append(self.value(item, depth - 1))
                self.trail.leave()
        else:
            _check_tag(event, "map")
            value = self.mapping(depth)
        if event.anchor:
            self.anchors[event.anchor] = value
        return value

    def mapping(self, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(event := self.next_event(), yaml.MappingEndEvent):
            key = self.key(event)
            if key is _MERGE:
                _merge(merged, self.value(self.next_event(), depth - 1), event)
                continue
            self.trail.enter(key)
            if key in result:
                self.trail.repeats()
            result[key] = self.value(self.next_event(), depth - 1)
            self.trail.leave()
        return {**merged, **result} if merged else result

    def key(self, event: Any) -> Any:
        """A key as JSON has it: a string. Numbers and booleans are written out."""
        value = self.alias(event) if isinstance(event, yaml.AliasEvent) else None
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            if value is not _MERGE and event.anchor:
                self.anchors[event.anchor] = value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return str(value).removesuffix(".0")
        if value is _MERGE or isinstance(value, str):
            return value
        raise _wrong(event, "a key must be a string")

    def alias(self, event: yaml.AliasEvent) -> Any:
        if event.anchor not in self.anchors:
            raise _wrong(event, f"unknown or recursive alias *{event.anchor}")
        value = self.anchors[event.anchor]
        self.expanded += weight(value)
        if self.expanded > MAX_EXPANDED:
            raise _wrong(event, f"aliases expand to more than {MAX_EXPANDED} values, or as much text")
        return deep_copy(value)


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    tag = event.tag
    if tag is None or tag == "!":
        return text if tag == "!" or not event.implicit[0] else _plain(event, text)
    if not tag.startswith(_TAGS):
        raise _wrong(event, f"the tag {tag} is not supported")
    kind = tag.removeprefix(_TAGS)
    if kind == "str":
        return text
    value = _plain(event, text)
    fits = {"null": value is None, "bool": isinstance(value, bool), "int": type(value) is int}
    if kind == "float" and type(value) in (int, float):
        return float(value)
    if not fits.get(kind):
        raise _wrong(event, f"{text!r} is no !!{kind}")
    return value


def _plain(event: yaml.ScalarEvent, text: str) -> Any:
    """An unquoted scalar by YAML 1.1's rules, without clock times, dates and infinities."""
    if text in _NULL:
        return None
    first = text[0]
    if first in "0123456789-+.":
        if INTEGER.fullmatch(text):
            return _integer(event, text)
        if FLOAT.fullmatch(text):
            number = float(text)
            if math.isinf(number):
                raise _wrong(event, f"{text} is out of range")
            return number
        return text
    if first in "tTyYoOfFnN":
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
    return _MERGE if text == "<<" else text


def _integer(event: yaml.ScalarEvent, text: str) -> int | float | str:
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-").replace("_", "")
    base = {"0b": 2, "0x": 16, "0o": 8}.get(digits[:2], 8 if len(digits) > 1 and digits[0] == "0" else 10)
    if base != 10:
        digits = digits.lstrip("0").lstrip("bxo") or "0"
    if len(digits) > 64:
        raise _wrong(event, "a number is too long")
    value = sign * int(digits, base)
    # As in JSON: what does not fit into 64 bits is a floating-point number.
    return value if -(2**63) <= value < 2**64 else float(value)


def _merge(into: dict[str, Any], value: Any, event: Any) -> None:
    for source in value if isinstance(value, list) else [value]:
        if not isinstance(source, dict):
            raise _wrong(event, "<< merges maps only")
        for key, child in source.items():
            into.setdefault(key, child)


def _check_tag(event: yaml.CollectionStartEvent, kind: str) -> None:
    if event.tag not in (None, "!", _TAGS + kind):
        raise _wrong(event, f"the tag {event.tag} is not supported")


def _wrong(event: Any, text: str) -> BadRequest:
    mark = event.start_mark
    return BadRequest(f"the body is not valid YAML at line {mark.line + 1}, column {mark.column + 1}: {text}")
