"""Bodies that clients send, well-formed and hostile: an object or an API error, never anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.decode import (
    APPLY_PATCH,
    JSON,
    JSON_PATCH,
    MAX_BYTES,
    MERGE_PATCH,
    PROTOBUF,
    YAML,
    decode_body,
    decode_patch,
)
from isoplane.objects.errors import ApiError, BadRequest, TooLarge, UnsupportedMediaType
from isoplane.objects.yaml_decode import decode_yaml


def from_yaml(text: str) -> Any:
    return decode_yaml(text.encode())[0]


def test_json_and_its_parameters() -> None:
    assert decode_body("application/json; charset=utf-8", b'{"a": 1}') == ({"a": 1}, [])
    assert decode_body(None, b'{"a": 1}') == ({"a": 1}, [])


def test_repeated_keys_are_found_on_request() -> None:
    body = b'{"a": 1, "spec": [{"x": 1, "x": 2, "x": 3}], "a": 2}'
    assert decode_body(JSON, body) == ({"a": 2, "spec": [{"x": 3}]}, [])
    assert decode_body(JSON, body, duplicates=True)[1] == ['duplicate field "a"', 'duplicate field "spec[0].x"']
    assert decode_body(YAML, b"a: 1\nb:\n- c: 1\n  c: 2\n", duplicates=True)[1] == ['duplicate field "b[0].c"']


@given(
    st.dictionaries(
        st.text(max_size=4), st.lists(st.text(max_size=4)) | st.floats(allow_nan=False) | st.integers(), max_size=4
    )
)
def test_objects_without_repeated_keys_have_none(obj: Any) -> None:
    for body in (
        json.dumps(obj),
        json.dumps(obj, separators=(",", ":"), ensure_ascii=False),
        json.dumps(obj, indent=2),
    ):
        try:
            assert decode_body(JSON, body.encode("utf-8", "surrogatepass"), duplicates=True)[1] == []
        except BadRequest:
            assert any(isinstance(v, float) and v in (float("inf"), float("-inf")) for v in obj.values())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x: 22:30", "22:30"), ("x: 2026-01-01", "2026-01-01"), ("x: 0644", 420), ("x: 0o644", 420), ("x: 0x1F", 31),
        ("x: 1_000", 1000), ("x: yes", True), ("x: Off", False), ("x: y", "y"), ("x: ~", None), ("x:", None),
        ("x: '1'", "1"), ("x: \"yes\"", "yes"), ("x: !!str 5", "5"), ("x: !!float 5", 5.0), ("x: 1e3", 1000.0), ("x: .5", 0.5),
        ("x: 1.2.3", "1.2.3"), ("x: 10.0.0.1", "10.0.0.1"), ("x: -1", -1), ("x: .inf", ".inf"), ("x: 089", 89.0),
        ("x: |\n  a\n  b\n", "a\nb\n"), ("x: >-\n  a\n  b\n", "a b"), ("x: 18446744073709551616", 18446744073709551616.0),
    ],
)  # fmt: skip
def test_yaml_scalars(text: str, value: Any) -> None:
    found = from_yaml(text)["x"]
    assert found == value
    assert type(found) is type(value)


def test_yaml_keys_anchors_and_merges() -> None:
    assert from_yaml("1: a\ntrue: b\n1e3: c\n") == {"1": "a", "true": "b", "1000": "c"}
    found = from_yaml("a: &x {b: 1, c: [1]}\nd: *x\ne: {<<: *x, b: 2}\nf: {<<: [*x, {z: 1}]}\n")
    assert found["e"] == {"b": 2, "c": [1]}
    assert found["f"] == {"b": 1, "c": [1], "z": 1}
    assert found["d"]["c"] is not found["a"]["c"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line 2, column"), ("a: *b", "unknown or recursive alias *b"), ("&a [*a]", "recursive"),
        ("a: b\n---\nc: d", "more than one YAML document"), ("", "empty"), ("? [a]\n: b", "a key must be a string"),
        ("a: !!python/object:os.system x", "is no !!python/object:os.system"), ("a: !mine x", "the tag !mine is not supported"),
        ("a: !!binary aGk=", "is no !!binary"), ("[" * 10_000, "nests deeper"), ("- " * 5_000, "nests deeper"),
        ("a: '\\", "line 1"), ("a: \x01", "not valid YAML"), ("a: 1" + "0" * 99, "too long"), ("a: 1e999", "out of range"),
        ("<<: 5", "merges maps only"), ("just text", "must be an object"), ("- a", "must be an object, not a list"),
    ],
)  # fmt: skip
def test_bad_yaml_says_what_and_where(text: str, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_body(YAML, text.encode())
    assert said in caught.value.message


def test_aliases_expand_under_a_budget() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 12):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n"
    with pytest.raises(BadRequest, match="aliases expand"):
        decode_body(YAML, bomb.encode())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"), (b" \n", "empty"), (b"null", "not null"), (b"[]", "not a list"), (b"1", "not a number"),
        (b'{"a":}', "line 1 column 6"),
        (b'{"a":NaN}', "not valid JSON"), (b'{"a":"\xff"}', "UTF-8"), (b'{"a":"\\ud800"}', "surrogate"),
        (b"[" * 100_000, "depth"), (b'{"a":' * 300 + b"1" + b"}" * 300, "nests deeper"), (b"{'a': 1}", "not valid JSON"),
    ],
)  # fmt: skip
def test_bad_json_says_what_and_where(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_body(JSON, body)
    assert said in caught.value.message


def test_size_and_media_type() -> None:
    with pytest.raises(TooLarge):
        decode_body(JSON, b" " * MAX_BYTES + b"{}")
    with pytest.raises(UnsupportedMediaType, match="application/json, application/yaml"):
        decode_body("application/cbor", b"{}")
    with pytest.raises(UnsupportedMediaType, match="merge-patch"):
        decode_patch(JSON, b"{}")


def test_patches() -> None:
    assert decode_patch(JSON_PATCH, b"[]") == ("json", [], [])
    assert decode_patch(APPLY_PATCH, b"a: 1") == ("apply", {"a": 1}, [])
    assert decode_patch(APPLY_PATCH, b'{"a": 1}') == ("apply", {"a": 1}, [])
    assert decode_patch(APPLY_PATCH, b"{a: 1}") == ("apply", {"a": 1}, [])
    with pytest.raises(BadRequest, match="must be an object"):
        decode_patch(MERGE_PATCH, b"[]")


yaml_pieces = st.lists(
    st.sampled_from(
        [
            "a",
            ": ",
            "- ",
            "\n",
            "  ",
            "[",
            "]",
            "{",
            "}",
            ",",
            "&x ",
            "*x",
            "!!int ",
            "'",
            '"',
            "|",
            "<<",
            "1",
            "---",
            "#",
            "?",
        ]
    ),
    max_size=25,
).map("".join)


@given(st.binary(max_size=60) | yaml_pieces.map(str.encode))
def test_only_api_errors_come_out(body: bytes) -> None:
    for media in (JSON, YAML, PROTOBUF):
        try:
            json.dumps(decode_body(media, body, duplicates=True))
        except ApiError:
            pass


# No digits: PyYAML writes 0E0 without quotes, and to Go's parser, which is followed here, that is a number.
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Nd")), max_size=5)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(words, plain, max_size=3))
def test_what_yaml_writes_is_read_back(obj: Any) -> None:
    text = yaml.safe_dump(obj, allow_unicode=True)
    assert decode_body(YAML, text.encode("utf-8", "surrogatepass"))[0] == obj
