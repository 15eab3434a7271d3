"""Errors, names, kinds and metadata: the small vocabulary that everything shares."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.objects import errors, kinds, metadata, names
from isoplane.objects.errors import ApiError, Cause, Forbidden, Internal, Invalid, QuotaExceeded
from isoplane.objects.resource import READ_VERBS

ALL_ERRORS = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ApiError) and value is not ApiError
]  # fmt: skip


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda c: c.__name__)
def test_an_error_survives_the_wire(cls: type[ApiError]) -> None:
    message = "exceeded quota: team" if cls is QuotaExceeded else "because"
    sent = cls(
        message,
        causes=[Cause("spec.x", "Required value", "FieldValueRequired")],
        details={"name": "web", "kind": "pods"},
    )
    received = errors.from_status(sent.to_status())
    assert type(received) is cls
    assert received.to_status() == sent.to_status()


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        ({"reason": "Gone", "code": 410}, errors.Expired), ({"code": 403, "reason": "Strange"}, Forbidden), ({}, Internal),
        ({"code": 422}, Invalid), ({"code": 418}, Internal), ({"code": 507}, errors.InsufficientStorage),
    ],
)  # fmt: skip
def test_unknown_reasons_fall_back_on_the_code(status: Any, cls: type[ApiError]) -> None:
    assert type(errors.from_status(status)) is cls


def test_a_status_has_details_only_when_there_are_some() -> None:
    assert "details" not in errors.BadRequest("x").to_status()
    assert errors.BadRequest("x").to_status()["code"] == 400


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (names.dns_label, ["a", "a-b", "0", "a" * 63], ["", "A", "-a", "a-", "a.b", "a_b", "a" * 64, "ä"]),
        (names.dns_subdomain, ["a", "a.b", "a-b.c", "a" * 253], ["", "A", "a..b", ".a", "a.", "a" * 254, "a/b"]),
        (names.qualified, ["a", "A_b.c-d", "x.y/z", "a" * 63], ["", "/a", "a/", "X/y", "a/b/c", "-a", "a" * 64, "a b"]),
        (names.label_value, ["", "a", "A.b_c-d"], ["-", "a b", "a/", "a" * 64]),
        (names.port_name, ["http", "a-1", "x" * 15], ["", "80", "a--b", "-a", "x" * 16, "HTTP"]),
    ],
)  # fmt: skip
def test_names(check: Any, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if check(text) is not None] == []
    assert [text for text in bad if check(text) is None] == []


def test_every_resource_is_found_both_ways_and_named_once() -> None:
    for resource in kinds.BUILT_IN:
        assert kinds.of({"apiVersion": resource.api_version, "kind": resource.kind}) is resource
    taken = [name for r in kinds.BUILT_IN for name in (r.plural, r.singular, *r.short_names)]
    assert len(taken) == len(set(taken))
    assert kinds.VIRTUALMACHINES.qualified == "virtualmachines.kubevirt.io"
    assert kinds.PODS.qualified == "pods"
    with pytest.raises(LookupError, match='no matches for kind "Deployment" in version "apps/v1"'):
        kinds.of({"apiVersion": "apps/v1", "kind": "Deployment"})


def test_computed_resources_are_read_only() -> None:
    for resource in kinds.BUILT_IN:
        if resource.computed:
            assert resource.verbs == READ_VERBS


def test_identity() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "team", "uid": "1"}}
    assert (metadata.name(pod), metadata.namespace(pod), metadata.uid(pod)) == ("web", "team", "1")
    assert metadata.key(pod) == "team/web"
    assert metadata.split_key("team/web") == ("team", "web")
    assert metadata.split_key(metadata.key({"metadata": {"name": "node"}})) == ("", "node")
    assert metadata.labels({}) == {}
    assert metadata.annotations_of({"metadata": None}) == {}
    assert not metadata.is_deleting(pod)


def test_owners() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "uid": "1"}}
    plain, controller = metadata.owner_reference(owner, controller=False), metadata.owner_reference(owner)
    assert metadata.controller_of({"metadata": {"ownerReferences": [plain, controller]}}) == controller
    assert metadata.controller_of({"metadata": {"ownerReferences": [plain]}}) is None


def test_conditions_move_their_time_only_with_their_status() -> None:
    first = metadata.set_condition([], {"type": "Ready", "status": "False", "reason": "A"}, "t1")
    second = metadata.set_condition(first, {"type": "Ready", "status": "False", "reason": "B"}, "t2")
    third = metadata.set_condition(second, {"type": "Ready", "status": "True"}, "t3")
    assert [c["lastTransitionTime"] for c in (first[0], second[0], third[0])] == ["t1", "t1", "t3"]
    assert second[0]["reason"] == "B"
    assert metadata.condition({"status": {"conditions": third}}, "Ready") == third[0]
    assert metadata.drop_condition(third, "Ready") == []


def test_times() -> None:
    assert metadata.rfc3339(0) == "1970-01-01T00:00:00Z"
    assert metadata.rfc3339(0.5, micro=True) == "1970-01-01T00:00:00.500000Z"
    assert metadata.posix("1970-01-01T00:00:01Z") == 1.0
    assert metadata.posix(metadata.rfc3339(1234567.25, micro=True)) == 1234567.25
    assert metadata.posix(None) is None
    with pytest.raises(ValueError, match="yesterday"):
        metadata.posix("yesterday")
