"""JSON Patch against RFC 6902's own examples, and random patches that may fail only as API errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.copying import MAX_DEPTH, same, token
from isoplane.objects.errors import ApiError, BadRequest, Invalid, TooLarge
from isoplane.objects.patch import apply_json

EXAMPLES: list[tuple[str, Any, list[dict[str, Any]], Any]] = [
    ("A.1", {"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ("A.2", {"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "q"}], {"foo": ["bar", "q", "baz"]}),
    ("A.3", {"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ("A.4", {"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ("A.5", {"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
    (
        "A.6",
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        "A.7",
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    ("A.8", {"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "qux"}], {"baz": "qux"}),
    ("A.10", {"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"g": {}}}], {"foo": "bar", "child": {"g": {}}}),
    ("A.14", {"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ("A.16", {"foo": ["b"]}, [{"op": "add", "path": "/foo/-", "value": ["a"]}], {"foo": ["b", ["a"]]}),
    ("copy", {"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "add", "path": "/b/-", "value": 2}],
     {"a": [1], "b": [1, 2]}),
    ("root", {"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ("absent is null", {"a": 1}, [{"op": "test", "path": "/b", "value": None}], {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("document", "patch", "expected"), [e[1:] for e in EXAMPLES], ids=[e[0] for e in EXAMPLES])
def test_examples_of_the_standard(document: Any, patch: Any, expected: Any) -> None:
    before = json.dumps(document)
    assert apply_json(document, patch) == expected
    assert json.dumps(document) == before


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "test", "path": "/a", "value": 2}],
        [{"op": "test", "path": "/a", "value": True}],
        [{"op": "remove", "path": "/missing"}],
        [{"op": "replace", "path": "/missing", "value": 1}],
        [{"op": "add", "path": "/missing/child", "value": 1}],
        [{"op": "add", "path": "/list/9", "value": 1}],
        [{"op": "add", "path": "/list/01", "value": 1}],
        [{"op": "add", "path": "/list/٣", "value": 1}],
        [{"op": "remove", "path": "/list/-"}],
        [{"op": "move", "from": "/deep", "path": "/deep/er"}],
        [{"op": "remove", "path": ""}],
        [{"op": "add", "path": "/a/b", "value": 1}],
    ],
)
def test_what_does_not_apply_is_invalid_and_names_the_path(patch: Any) -> None:
    with pytest.raises(Invalid) as caught:
        apply_json({"a": 1, "list": [1, 2], "deep": {}}, patch)
    assert caught.value.causes[0].field == patch[0]["path"]
    assert "operation 0" in caught.value.message


@pytest.mark.parametrize(
    "patch",
    [{}, "x", None, [1], [{}], [{"op": "jump", "path": "/a"}], [{"op": ["add"]}], [{"op": "add", "path": "/a"}],
     [{"op": "add", "path": "a", "value": 1}], [{"op": "copy", "path": "/a"}], [{"op": "test", "path": "/a"}] * 10_001],
)  # fmt: skip
def test_what_cannot_be_read_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(BadRequest):
        apply_json({"a": 1}, patch)


def test_repeated_copies_stay_within_their_budget() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"} for _ in range(64)]
    with pytest.raises(TooLarge):
        apply_json({"a": [[1] * 100]}, doubling)


def test_small_steps_do_not_build_what_is_too_deep() -> None:
    steps = [{"op": "add", "path": "/a" * (i + 1), "value": {}} for i in range(MAX_DEPTH + 10)]
    with pytest.raises(BadRequest, match="nests deeper"):
        apply_json({}, steps)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab/~"), inner, max_size=3),
    max_leaves=12,
)
pointers = st.lists(st.sampled_from(["a", "b", "0", "1", "-", "~1", "~0"]), max_size=3).map(
    lambda tokens: "".join("/" + t for t in tokens)
)
operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": pointers},
    optional={"value": values, "from": pointers},
)


@given(values, st.lists(operations, max_size=6) | values)
def test_only_api_errors_come_out_and_inputs_stay(document: Any, patch: Any) -> None:
    before = json.dumps([document, patch])
    try:
        result = apply_json(document, patch)
        json.dumps(result)
    except ApiError:
        pass
    assert json.dumps([document, patch]) == before


@given(values, values)
def test_a_token_is_equal_exactly_when_the_values_are(left: Any, right: Any) -> None:
    assert (token(left) == token(right)) is same(left, right)
    assert same(left, right) is (json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True))


def test_moving_through_a_long_list_and_copying_long_text_have_a_budget() -> None:
    """Counted in steps: 2,000 moves of a list of 100,000, and text that a copy repeats."""
    with pytest.raises(TooLarge):
        apply_json({"a": [0] * 100_000}, [{"op": "move", "from": "/a/0", "path": "/a/99999"}] * 2000)
    with pytest.raises(TooLarge):
        apply_json({"a": "x" * 1_000_000, "b": []}, [{"op": "copy", "from": "/a", "path": "/b/-"}] * 2000)
