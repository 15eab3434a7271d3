"""Protobuf bodies: as kubectl sent them, and as Kubernetes' own serializer wrote random objects beside their JSON."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects import protobuf
from isoplane.objects.errors import ApiError, BadRequest
from isoplane.objects.scheme import Scheme
from isoplane.objects.validation import unknown_fields

GOLDEN = Path(__file__).parents[2] / "golden/protobuf"
KUBECTL: list[dict[str, Any]] = json.loads((GOLDEN / "kubectl.json").read_text())
RANDOM: list[dict[str, str]] = json.loads(gzip.decompress((GOLDEN / "random.json.gz").read_bytes()))


def without_nulls(value: Any) -> Any:
    """What Go prints as null is a field that is not there, or an empty value in a map."""
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    return [without_nulls(child) for child in value] if isinstance(value, list) else value


def without_empty(value: Any) -> Any:
    """Drops what both sides may write in two ways: entries of maps that carry only a key."""
    if isinstance(value, dict):
        cleaned = {key: without_empty(child) for key, child in value.items()}
        return {key: child for key, child in cleaned.items() if child not in ("", [], {})}
    return [without_empty(child) for child in value] if isinstance(value, list) else value


@pytest.mark.parametrize("entry", KUBECTL, ids=lambda e: f"{e['client']} {e['command']}")
def test_what_kubectl_sends(entry: dict[str, Any]) -> None:
    body = base64.b64decode(entry["body"])
    if entry["object"] is None:
        with pytest.raises(BadRequest, match="is registered for version"):
            protobuf.decode(body)
        return
    obj = protobuf.decode(body)
    assert obj == entry["object"]
    resource = Scheme().kind(obj["apiVersion"], obj["kind"])
    if resource is not None:
        assert unknown_fields(resource, obj) == []


def test_zero_and_empty_follow_json() -> None:
    by_command = {entry["command"]: entry["object"] for entry in KUBECTL}
    assert by_command["priorityclass-zero"]["value"] == 0
    assert by_command["pdb-number"]["spec"]["maxUnavailable"] == 0
    assert "minAvailable" not in by_command["pdb-number"]["spec"]
    assert "immutable" not in by_command["configmap"]
    assert by_command["configmap"]["binaryData"] == {"b.bin": "AP/+"}


@pytest.mark.parametrize("kind", sorted({json.loads(entry["json"])["kind"] for entry in RANDOM}))
def test_random_objects_decode_to_their_json(kind: str) -> None:
    seen = 0
    for entry in RANDOM:
        expected = without_nulls(json.loads(entry["json"]))
        if expected["kind"] == kind:
            decoded = protobuf.decode(base64.b64decode(entry["protobuf"]))
            assert without_empty(decoded) == without_empty(expected)
            seen += 1
    assert seen


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def body_of(kind: str, raw: bytes, api_version: str = "v1") -> bytes:
    return protobuf.MAGIC + field(1, field(1, api_version.encode()) + field(2, kind.encode())) + field(2, raw)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "magic"), (b"{}", "magic"), (protobuf.MAGIC, "no apiVersion and kind"),
        (body_of("Tardis", b""), 'no kind "Tardis"'),
        (body_of("Pod", b"\xff"), "ends inside a number"), (body_of("Pod", b"\x0a\x05a"), "ends inside a field"),
        (body_of("Pod", field(90, b"new")), "no field number 90; this client is newer"),
        (body_of("Pod", varint(1 << 3)+ b"\x01"), "wrong wire type"), (body_of("Pod", b"\x0f"), "unknown wire type 7"),
        (body_of("Pod", b"\x00\x00"), "field number 0"), (body_of("Pod", field(1, field(1, b"\xff"))), "not valid UTF-8"),
        (body_of("Pod", b"\xff" * 11), "longer than 64 bits"),
        (body_of("Pod", field(1, field(8, varint(1 << 3) + varint(1 << 62)))), "outside the years"),
        (protobuf.MAGIC + field(1, field(1, b"v1") + field(2, b"Pod")) + field(3, b"gzip"), "content encoding"),
    ],
)  # fmt: skip
def test_bad_bodies_say_why(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        protobuf.decode(body)
    assert said in caught.value.message


def test_an_unknown_field_that_says_nothing_is_skipped() -> None:
    raw = field(1, field(1, b"web")) + field(90, b"") + varint(91 << 3) + b"\x00"
    assert protobuf.decode(body_of("Namespace", raw)) == {
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "web"},
    }  # fmt: skip


@given(st.data())
def test_damage_gives_only_api_errors(data: st.DataObject) -> None:
    body = bytearray(base64.b64decode(data.draw(st.sampled_from(RANDOM[31:]))["protobuf"]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, len(body) - 1))
        match data.draw(st.sampled_from("xdi")):
            case "x":
                body[at] = data.draw(st.integers(0, 255))
            case "d":
                del body[at : at + data.draw(st.integers(1, 8))]
            case "i":
                body[at:at] = data.draw(st.binary(max_size=5))
        if len(body) < 6:
            break
    try:
        json.dumps(protobuf.decode(bytes(body)))
    except ApiError:
        pass
