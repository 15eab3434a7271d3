"""The shrinker finds the few lines that matter, held against an engine that is wrong on purpose: it ignores ``except``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects.errors import ApiError
from isoplane.policy import shrink
from isoplane.policy.compile import compile_tables
from isoplane.policy.packets import PacketJudge
from isoplane.policy.snapshot import from_objects
from isoplane.policy.verdict import Connection, judge, party

SOURCE, TARGET = "10.0.0.2", "10.0.0.3"


def pod(name: str, ip: str) -> dict[str, Any]:
    labels = {"app": name, "tier": "x"}
    spec = {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}]}]}
    meta = {"name": name, "namespace": "a", "labels": labels}
    return {"kind": "Pod", "metadata": meta, "spec": spec, "status": {"podIP": ip}}


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "a"}, "spec": spec}


HOLED = {"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.64/26", "10.0.0.2/32", "10.0.0.128/25"]}}
MANIFESTS: list[Mapping[str, Any]] = [
    {"kind": "Namespace", "metadata": {"name": "a", "labels": {"team": "red"}}},
    pod("source", SOURCE),
    pod("target", TARGET),
    *(pod(f"other{n}", f"10.0.0.{n}") for n in range(10, 20)),
    *(policy(f"p{n}", {"podSelector": {}, "ingress": [{"ports": [{"port": n}]}]}) for n in range(1, 9)),
    policy(
        "holed",
        {
            "podSelector": {"matchLabels": {"app": "target"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}, HOLED],
                    "ports": [{"port": 8080}, {"port": 80}],
                },
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]},
            ],
            "egress": [{}],
        },
    ),
]


def without_exceptions(objects: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What an engine sees that ignores ``except``."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key != "except"}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return [strip(one) for one in objects]


def shows(objects: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the faulty engine and the reference differ on SOURCE → TARGET, 80/TCP."""
    try:
        right, wrong = from_objects(objects), from_objects(without_exceptions(objects))
        verdict = judge(right, Connection(party(right, SOURCE), party(right, TARGET), "TCP", 80))
        return PacketJudge(compile_tables(wrong)).judge(SOURCE, TARGET, "TCP", 80).allowed is not verdict.allowed
    except ApiError:
        return False


def ends(one: Mapping[str, Any]) -> bool:
    return one["kind"] == "Pod" and one["metadata"]["name"] in ("source", "target")


def test_what_is_left_is_the_fault_alone() -> None:
    assert shows(MANIFESTS)
    found = shrink.smallest(MANIFESTS, shows, ends)
    assert shows(found)
    assert [one["metadata"]["name"] for one in found if one["kind"] == "Pod"] == ["source", "target"]
    (left,) = (one for one in found if one["kind"] == "NetworkPolicy")
    assert left["metadata"]["name"] == "holed"
    assert left["spec"]["ingress"] == [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.2/32"]}}]}]
    assert len(json.dumps(found)) < 600, found


def test_nothing_smaller_shows_it() -> None:
    found = shrink.smallest(MANIFESTS, shows, ends)
    steps = shrink.shrinking(found, ends)
    asked = [next(steps)]
    with pytest.raises(StopIteration) as done:
        while True:
            assert not shows(asked[-1])
            asked.append(steps.send(False))
    assert done.value.value == found


def test_what_never_shows_again_stays_whole() -> None:
    assert shrink.smallest(MANIFESTS, lambda objects: False, ends) == MANIFESTS


def test_the_questions_end() -> None:
    many = [policy(f"p{n}", {"podSelector": {}}) for n in range(2000)]
    asked: list[int] = []

    def never(objects: Sequence[Mapping[str, Any]]) -> bool:
        asked.append(1)
        return False

    assert shrink.smallest(many, never, ends) == many
    assert len(asked) == shrink.MOST_QUESTIONS


JSON = st.recursive(
    st.integers(0, 3), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner)
)


@given(st.lists(st.builds(lambda kind, spec: {"kind": kind, "spec": spec}, st.sampled_from("PQ"), JSON), max_size=4))
def test_it_ends_at_what_is_kept(objects: list[dict[str, Any]]) -> None:
    """Where everything shows it, nothing is left but the bare objects that must stay."""
    found = shrink.smallest(objects, lambda candidate: True, lambda one: one["kind"] == "P")
    assert found == [{"kind": "P"} for one in objects if one["kind"] == "P"]
