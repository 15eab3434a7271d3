"""Selections: looked up by labels or looked through, the answer is the same, in large namespaces too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.selectors import Selector, from_object
from isoplane.policy import directory, model
from isoplane.policy.directory import Directory
from isoplane.policy.model import Endpoint

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3)
VALUES = st.lists(st.sampled_from("xyzw"), min_size=1, max_size=2, unique=True)
EXPRESSIONS = st.one_of(
    st.builds(lambda k, v, o: {"key": k, "operator": o, "values": v}, st.sampled_from("abcd"), VALUES,
              st.sampled_from(["In", "NotIn"])),
    st.builds(lambda k, o: {"key": k, "operator": o}, st.sampled_from("abcd"), st.sampled_from(["Exists", "DoesNotExist"])),
)  # fmt: skip
SELECTORS = st.lists(EXPRESSIONS, max_size=3).map(lambda found: from_object({"matchExpressions": found}))


@pytest.mark.parametrize("few", [0, directory._FEW], ids=["looked up", "as it is"])
@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), LABELS), max_size=60), SELECTORS)
def test_every_way_selects_the_same(few: int, pods: list[tuple[str, dict[str, str]]], selector: Selector) -> None:
    endpoints = [Endpoint("pod", space, f"p{n}", labels=labels) for n, (space, labels) in enumerate(pods)]
    found = Directory(model.cluster(endpoints, {"one": {}, "two": {}}, [], [], []))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory, "_FEW", few)
        for space in ("one", "two", "three", None):
            wanted = [
                n
                for n, endpoint in enumerate(found.endpoints)
                if space in (None, endpoint.namespace) and selector.matches(endpoint.labels)
            ]
            assert list(found.select(space, None, selector)) == wanted
