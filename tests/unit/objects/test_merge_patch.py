"""JSON merge patch against the examples of RFC 7386 and its defining properties."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.errors import BadRequest
from isoplane.objects.patch import apply_merge

EXAMPLES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), EXAMPLES)
def test_examples_of_the_standard(target: Any, patch: Any, expected: Any) -> None:
    assert apply_merge(target, patch) == expected


@pytest.mark.parametrize("patch", [None, [], "x", 1])
def test_a_patch_is_an_object(patch: Any) -> None:
    with pytest.raises(BadRequest):
        apply_merge({}, patch)


def test_depth_is_limited() -> None:
    patch: dict[str, Any] = {}
    for _ in range(5000):
        patch = {"a": patch}
    with pytest.raises(BadRequest):
        apply_merge({}, patch)


values = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.sampled_from("abc"), values, max_size=3)
patches = st.recursive(
    st.none() | values,
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
).filter(lambda value: isinstance(value, dict))


def difference(old: Any, new: Any) -> Any:
    """The merge patch from one object to another."""
    patch = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old or not (isinstance(old[key], dict) and isinstance(value, dict)):
            patch[key] = value
        else:
            patch[key] = difference(old[key], value)
    return patch


@given(objects, objects)
def test_the_difference_leads_to_the_other_object(old: Any, new: Any) -> None:
    assert apply_merge(old, difference(old, new)) == new


@given(objects, patches)
def test_it_is_idempotent_and_leaves_its_inputs(target: Any, patch: Any) -> None:
    before = json.dumps([target, patch])
    once = apply_merge(target, patch)
    assert apply_merge(once, patch) == once
    assert json.dumps([target, patch]) == before
