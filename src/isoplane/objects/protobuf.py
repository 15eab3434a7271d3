"""Kubernetes protobuf request bodies (``application/vnd.kubernetes.protobuf``) to JSON-shaped objects.

Current kubectl sends protobuf for built-in kinds and does not fall back on JSON.  A body is the magic ``k8s\\0`` and a
runtime.Unknown envelope (apiVersion, kind, the message's bytes); what is inside is decoded over protobuf_fields.json,
a table generated from the published Go types by tools/protobuf_fields.

The result is what Go would print as JSON: fields that JSON omits when empty are omitted, pointers to zero stay.  It
fails closed: a field that the table does not know is an error unless it is empty, so that nothing a newer client says
is dropped silently.  Answers are always JSON.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from isoplane.objects.errors import BadRequest

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_NESTED = 60
"""Messages inside messages; the kinds themselves nest less than 15 deep."""

Field = tuple[str, str, bool, bool]
"""JSON name ('' inlines), form, whether a pointer, whether omitted when empty."""


_EMPTY: dict[str, Any] = {"string": "", "bytes": "", "quantity": "0"}
"""Values of map entries that carry only a key."""


class _Malformed(ValueError):
    """The bytes are no protobuf message, or not one of ours; the text says why."""


def decode(body: bytes) -> dict[str, Any]:
    """The object in a request body. Raises BadRequest when it cannot be read or its kind is not in the table."""
    if not body.startswith(MAGIC):
        raise BadRequest("the body is not Kubernetes protobuf: it does not start with the magic k8s\\0")
    try:
        api_version, kind, raw = _envelope(body[len(MAGIC) :])
        name = _message_of(api_version, kind)
        obj = _message(raw, name, 0)
    except _Malformed as error:
        raise BadRequest(f"the protobuf body cannot be decoded: {error}") from None
    return {"apiVersion": api_version, "kind": kind, **obj}


def _message_of(api_version: str, kind: str) -> str:
    kinds = _table()[0]
    found = kinds.get(f"{api_version} {kind}") or kinds.get(f"* {kind}")
    if found is None:
        raise BadRequest(
            f'no kind "{kind}" is registered for version "{api_version}": send it as application/json if it is served'
        )
    return found


def _envelope(data: bytes) -> tuple[str, str, bytes]:
    api_version = kind = encoding = content_type = ""
    raw = b""
    for number, wire, value in _fields(data):
        if number == 1 and wire == _LENGTH:
            for inner, inner_wire, text in _fields(value):
                if inner == 1 and inner_wire == _LENGTH:
                    api_version = _text(text)
                elif inner == 2 and inner_wire == _LENGTH:
                    kind = _text(text)
        elif number == 2 and wire == _LENGTH:
            raw = value
        elif number == 3 and wire == _LENGTH:
            encoding = _text(value)
        elif number == 4 and wire == _LENGTH:
            content_type = _text(value)
    if encoding or content_type not in ("", MEDIA_TYPE):
        raise _Malformed(
            f"content encoding {encoding!r} and type {content_type!r} inside the envelope are not supported"
        )
    if not api_version or not kind:
        raise _Malformed("the envelope names no apiVersion and kind")
    return api_version, kind, raw


def _message(data: bytes, name: str, depth: int) -> dict[str, Any]:
    if depth > _MAX_NESTED:
        raise _Malformed(f"messages nest deeper than {_MAX_NESTED} levels")
    table = _table()[1][name]
    result: dict[str, Any] = {}
    for number, wire, value in _fields(data):
        field = table.get(number)
        if field is None:
            if value:
                raise _Malformed(f"{name} has no field number {number}; this client is newer than the server")
            continue
        json_name, form, pointer, omitted = field
        try:
            if form[0] == "[":
                _append(result, json_name, form, wire, value, depth)
                continue
            if form[0] == "{":
                _entry(result, json_name, form[2:], value, wire, depth)
                continue
            decoded = _single(form, wire, value, depth)
        except _Malformed as error:
            raise _Malformed(f"{json_name or name}: {error}" if depth else f"{error}") from None
        if not json_name:
            result.update(decoded)
        elif decoded is None or (omitted and not pointer and not decoded and not isinstance(decoded, dict)):
            result.pop(json_name, None)
        elif isinstance(decoded, dict) and isinstance(known := result.get(json_name), dict):
            result[json_name] = known | decoded  # A message may arrive in pieces.
        else:
            result[json_name] = decoded
    return result


def _append(result: dict[str, Any], name: str, form: str, wire: int, value: Any, depth: int) -> None:
    if form.startswith("[w]"):
        result[name] = _wrapped(form[3:], value, wire, depth)
        return
    items, element = result.setdefault(name, []), form[2:]
    if element == "int" and wire == _LENGTH:  # packed
        position = 0
        while position < len(value):
            number, position = _varint(value, position)
            items.append(_signed(number))
        return
    items.append(_single(element, wire, value, depth))


def _wrapped(element: str, value: Any, wire: int, depth: int) -> list[Any]:
    """A named list type: a message with the items as its field 1."""
    if wire != _LENGTH:
        raise _Malformed("a list has the wrong wire type")
    return [_single(element, inner, item, depth) for number, inner, item in _fields(value) if number == 1]


def _entry(result: dict[str, Any], name: str, form: str, value: Any, wire: int, depth: int) -> None:
    if wire != _LENGTH:
        raise _Malformed("a map has the wrong wire type")
    key, decoded = "", None
    for number, inner, item in _fields(value):
        if number == 1 and inner == _LENGTH:
            key = _text(item)
        elif number == 2 and form.startswith("[w]"):
            decoded = _wrapped(form[3:], item, inner, depth)
        elif number == 2:
            decoded = _single(form, inner, item, depth)
        else:
            raise _Malformed(f"a map entry has an unknown field number {number}")
    if decoded is None:
        decoded = [] if form.startswith("[w]") else _EMPTY.get(form)
    if decoded is not None:
        result.setdefault(name, {})[key] = decoded


def _single(form: str, wire: int, value: Any, depth: int) -> Any:
    scalar = _SCALARS.get(form)
    if scalar is None:
        if wire != _LENGTH:
            raise _Malformed(f"a {form} has the wrong wire type {wire}")
        return _message(value, form, depth + 1)
    wanted, convert = scalar
    if wire != wanted:
        raise _Malformed(f"a value of type {form} has the wrong wire type {wire}")
    return convert(value)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _Malformed("a string is not valid UTF-8") from None


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _moment(value: bytes) -> tuple[datetime, int] | None:
    seconds = nanos = 0
    for number, wire, item in _fields(value):
        if wire != _VARINT:
            raise _Malformed("a time has the wrong wire type")
        if number == 1:
            seconds = _signed(item)
        elif number == 2:
            nanos = _signed(item)
    if not seconds and not nanos:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds), nanos
    except OverflowError:
        raise _Malformed("a time lies outside the years 1 to 9999") from None


def _time(value: bytes) -> str | None:
    moment = _moment(value)
    return None if moment is None else f"{moment[0]:%Y-%m-%dT%H:%M:%SZ}".rjust(20, "0")


def _micro_time(value: bytes) -> str | None:
    moment = _moment(value)
    if moment is None:
        return None
    return f"{moment[0]:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + f".{max(0, moment[1]) // 1000 % 1_000_000:06d}Z"


def _quantity(value: bytes) -> str:
    text = next((_text(item) for number, wire, item in _fields(value) if number == 1 and wire == _LENGTH), "")
    return text or "0"


def _int_or_string(value: bytes) -> int | str:
    kind, number_value, text = 0, 0, ""
    for number, wire, item in _fields(value):
        if number == 3 and wire == _LENGTH:
            text = _text(item)
        elif number in (1, 2) and wire == _VARINT:
            kind, number_value = (_signed(item), number_value) if number == 1 else (kind, _signed(item))
        else:
            raise _Malformed("an IntOrString has an unknown field")
    return text if kind == 1 else number_value


def _json(value: bytes) -> Any:
    raw = next((item for number, wire, item in _fields(value) if number == 1 and wire == _LENGTH), b"")
    try:
        return orjson.loads(raw) if raw else None
    except orjson.JSONDecodeError as error:
        raise _Malformed(f"embedded JSON: {error}") from None


def _double(value: bytes) -> float:
    number: float = struct.unpack("<d", value)[0]
    if number != number or number in (float("inf"), float("-inf")):
        raise _Malformed("a number is not finite")
    return number


_SCALARS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "string": (_LENGTH, _text),
    "bool": (_VARINT, bool),
    "int": (_VARINT, _signed),
    "double": (_FIXED64, _double),
    "bytes": (_LENGTH, lambda value: base64.b64encode(value).decode()),
    "time": (_LENGTH, _time),
    "microtime": (_LENGTH, _micro_time),
    "quantity": (_LENGTH, _quantity),
    "intorstring": (_LENGTH, _int_or_string),
    "json": (_LENGTH, _json),
}


def _fields(data: bytes) -> list[tuple[int, int, Any]]:
    """The fields of a message in order: number, wire type, and an int or the bytes."""
    result: list[tuple[int, int, Any]] = []
    position, end = 0, len(data)
    while position < end:
        # Nearly every key and length is a single byte; only others pay for a call.
        key = data[position]
        position += 1
        if key > 0x7F:
            key, position = _varint(data, position - 1)
        wire = key & 7
        if key < 8:
            raise _Malformed("field number 0")
        if wire == _LENGTH:
            if position >= end:
                raise _Malformed("the message ends inside a number")
            length = data[position]
            position += 1
            if length > 0x7F:
                length, position = _varint(data, position - 1)
            start, position = position, position + length
            if position > end:
                raise _Malformed("the message ends inside a field")
            result.append((key >> 3, wire, data[start:position]))
        elif wire == _VARINT:
            value, position = _varint(data, position)
            result.append((key >> 3, wire, value))
        elif wire in (_FIXED64, _FIXED32):
            start, position = position, position + (8 if wire == _FIXED64 else 4)
            if position > end:
                raise _Malformed("the message ends inside a field")
            result.append((key >> 3, wire, data[start:position]))
        else:
            raise _Malformed(f"unknown wire type {wire}")
    return result


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if position >= len(data):
            raise _Malformed("the message ends inside a number")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise _Malformed("a number is longer than 64 bits")


@cache
def _table() -> tuple[dict[str, str], dict[str, dict[int, Field]]]:
    """The kinds and the messages of protobuf_fields.json, read once."""
    document = orjson.loads(files("isoplane.objects").joinpath("protobuf_fields.json").read_bytes())
    messages = {
        name: {
            int(number): (json_name, form, "p" in flags, "o" in flags)
            for number, (json_name, form, flags) in fields.items()
        }
        for name, fields in document["messages"].items()
    }
    return document["kinds"], messages
