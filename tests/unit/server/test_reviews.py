"""The reviews' answers for those who may and those who may not."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.http import request_info
from isoplane.http.user import User
from isoplane.objects.errors import ApiError, BadRequest, Invalid
from isoplane.server import reviews
from isoplane.server.authorization import BuiltIn

ADMIN, OTHER = User("root", ("system:masters",)), User("guest", ("team", "system:authenticated"))


def review(path: str) -> reviews.Review | None:
    return reviews.find(request_info.read("POST", f"/apis/{path}"))


WHO = review("authentication.k8s.io/v1/selfsubjectreviews")
MAY = review("authorization.k8s.io/v1/selfsubjectaccessreviews")
WHAT = review("authorization.k8s.io/v1/selfsubjectrulesreviews")


def ask(review: reviews.Review | None, user: User, spec: Any = None) -> dict[str, Any]:
    assert review is not None
    return dict(reviews.answered(review, BuiltIn(), user, {} if spec is None else {"spec": spec}, now=0)["status"])


def test_access() -> None:
    for spec in ({"resourceAttributes": {"verb": "get", "resource": "pods"}}, {"nonResourceAttributes": {"path": "/"}}):
        assert ask(MAY, ADMIN, spec)["allowed"] is True
        assert ask(MAY, OTHER, spec)["allowed"] is False
    itself = {"verb": "create", "group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"}
    assert ask(MAY, OTHER, {"resourceAttributes": itself})["allowed"] is True
    assert ask(MAY, OTHER, {"resourceAttributes": {**itself, "verb": "*"}})["allowed"] is False
    assert ask(MAY, OTHER, {"nonResourceAttributes": {"verb": "get", "path": "/healthz"}})["allowed"] is True


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({}, Invalid),
        ({"resourceAttributes": {}, "nonResourceAttributes": {}}, Invalid),
        ({"resourceAttributes": {"verbs": "get"}}, BadRequest),
        ({"resourceAttributes": []}, BadRequest),
        ({"resourceAttributes": {"verb": ["get"]}}, BadRequest),
        ([], BadRequest),
    ],
)
def test_access_asked_wrongly(spec: Any, error: type[ApiError]) -> None:
    with pytest.raises(error):
        ask(MAY, ADMIN, spec)


def test_rules() -> None:
    assert ask(WHAT, ADMIN, {"namespace": "x"})["resourceRules"][0]["resources"] == ["*"]
    rules = ask(WHAT, OTHER, {"namespace": "x"})
    assert all(rule["verbs"] == ["create"] for rule in rules["resourceRules"])
    assert not rules["incomplete"]
    with pytest.raises(BadRequest, match="namespace"):
        ask(WHAT, ADMIN, {})


def test_who() -> None:
    assert ask(WHO, OTHER)["userInfo"] == {"username": "guest", "groups": ["team", "system:authenticated"]}
    assert review("authorization.k8s.io/v2/selfsubjectreviews") is None
    assert review("authorization.k8s.io/v1/namespaces/x/selfsubjectaccessreviews") is None
