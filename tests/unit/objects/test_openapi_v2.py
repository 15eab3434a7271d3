"""The protobuf document for older clients, read back field by field."""

from __future__ import annotations

from typing import Any

import yaml

from isoplane.objects import kinds
from isoplane.objects.openapi_v2 import ACCEPTED, MEDIA_TYPE, document_v2


def fields(data: bytes) -> dict[int, list[bytes]]:
    """The length-delimited fields of a message; this document has no others."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        key = number()
        assert key & 7 == 2
        length = number()
        found.setdefault(key >> 3, []).append(data[at : at + length])
        at += length
    return found


def test_every_kind_that_can_be_patched_says_that_fields_are_validated() -> None:
    document = fields(document_v2())
    assert document[1] == [b"2.0"]
    kinds_found: list[Any] = []
    for entry in fields(document[8][0])[2]:
        path = fields(entry)
        operation = fields(fields(path[2][0])[8][0])
        extensions = {fields(e)[1][0].decode(): fields(fields(e)[2][0])[2][0] for e in operation[13]}
        kinds_found.append(yaml.safe_load(extensions["x-kubernetes-group-version-kind"]))
        queries = [fields(fields(fields(fields(p)[1][0])[2][0])[3][0]) for p in operation[8]]
        assert {query[4][0] for query in queries} >= {b"dryRun", b"fieldValidation"}
    expected = [
        {"group": r.group, "version": r.version, "kind": r.kind} for r in kinds.SERVED if "patch" in r.verbs
    ]  # fmt: skip
    assert kinds_found == expected


def test_the_answer_is_called_by_a_name_that_parsers_take() -> None:
    assert "@" in ACCEPTED
    assert "@" not in MEDIA_TYPE
