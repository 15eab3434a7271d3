"""Label and field selectors, from objects and from text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects import selectors

LABELS = {"app": "web", "tier": "front", "level": "3"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True), ("app=web", True), ("app==web", True), ("app=db", False), ("app!=db", True), ("other!=x", True),
        ("app", True), ("other", False), ("!other", True), ("!app", False), ("app in (web,db)", True), ("app in (db)", False),
        ("app notin (db)", True), ("other notin (x)", True), ("level>2", True), ("level<2", False), ("app>2", False),
        ("other>2", False), ("app=web,tier=front", True), ("app=web, tier in (back)", False), ("app=", False), ("x/y.z!=1", True),
    ],
)  # fmt: skip
def test_text_selectors(text: str, matches: bool) -> None:
    assert selectors.parse(text).matches(LABELS) is matches


@pytest.mark.parametrize("text", ["=x", "a=b c", "a in x", "a in (", "!a=b", "a>b", "(", "a,,b"])
def test_unreadable_text(text: str) -> None:
    with pytest.raises(ValueError, match="unable to parse selector"):
        selectors.parse(text)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (None, False), ({}, True), ({"matchLabels": {"app": "web"}}, True), ({"matchLabels": {"app": "x"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}, {"key": "x", "operator": "DoesNotExist"}]}, True),
    ],
)  # fmt: skip
def test_object_selectors(selector: Any, matches: bool) -> None:
    assert selectors.from_object(selector).matches(LABELS) is matches


@pytest.mark.parametrize(
    "expression",
    [
        {"operator": "In", "values": ["x"]}, {"key": "a", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["x"]},
        {"key": "a", "operator": "Like"}, {"key": "a"},
    ],
)  # fmt: skip
def test_malformed_expressions(expression: Any) -> None:
    with pytest.raises(ValueError, match="matchExpressions"):
        selectors.from_object({"matchExpressions": [expression]})


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3))
def test_equal_selectors_are_equal_values(labels: dict[str, str]) -> None:
    one = selectors.from_object({"matchLabels": labels})
    other = selectors.from_object({"matchLabels": dict(reversed(labels.items()))})
    assert one == other
    assert hash(one) == hash(other)
    assert one.matches(labels)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("metadata.name=web", True), ("metadata.name!=web", False), ("status.phase=", True), ("spec.hostNetwork=true", True),
        ("status.phase!=Running,metadata.name=web", True), ("metadata.name.x=", True), ("", True),
    ],
)  # fmt: skip
def test_field_selectors(text: str, matches: bool) -> None:
    obj = {"metadata": {"name": "web"}, "spec": {"hostNetwork": True}}
    assert selectors.parse_fields(text).matches(obj) is matches


def test_field_selectors_know_their_paths() -> None:
    assert list(selectors.parse_fields("a.b=1,c!=2").paths()) == ["a.b", "c"]
    with pytest.raises(ValueError, match="field selector term 'a'"):
        selectors.parse_fields("a")


@given(st.text(max_size=12))
def test_nothing_but_value_errors(text: str) -> None:
    for parse in (selectors.parse, selectors.parse_fields):
        try:
            parse(text)
        except ValueError:
            pass
