"""One function decides, for whoever asks: the administrators, who is known, and everybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.http import authorization
from isoplane.http.authorization import Decision, Remembered, forbidden
from isoplane.http.request_info import RequestInfo, read
from isoplane.http.user import ANONYMOUS, SYSTEM, User
from isoplane.server.authorization import BuiltIn

SOMEBODY = User("somebody", ("team",)).authenticated()
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.mark.parametrize(
    ("line", "who"),
    [
        ("GET /healthz", "all"), ("HEAD /livez", "all"), ("GET /readyz/ping", "all"), ("GET /version", "all"),
        ("POST /healthz", "admins"), ("GET /healthzz", "admins"), ("GET /", "admins"), ("GET /metrics", "admins"),
        ("GET /apis", "admins"), ("GET /api/v1/namespaces/healthz", "admins"), ("GET /api/v1/pods", "admins"),
        ("BREW /api/v1/pods", "admins"), ("OPTIONS *", "admins"),
        (f"POST {REVIEW}", "known"), (f"GET {REVIEW}", "admins"), (f"POST {REVIEW}/x/y", "admins"),
        ("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", "known"),
        ("POST /apis/authentication.k8s.io/v1/selfsubjectaccessreviews", "admins"),
        ("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", "admins"),
    ],
)  # fmt: skip
def test_who_may(line: str, who: str) -> None:
    method, path = line.split()
    info = read(method, path)
    assert BuiltIn().authorize(SYSTEM, info).allowed
    assert BuiltIn().authorize(SOMEBODY, info).allowed == (who in ("known", "all"))
    assert BuiltIn().authorize(ANONYMOUS, info).allowed == (who == "all")


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (
            read("GET", "/api/v1/namespaces/a/pods/p/log"),
            'pods "p" is forbidden: User "somebody" cannot get resource "pods/log" in API group "" in the namespace "a": why',
        ),
        (
            read("GET", "/apis/apps/v1/deployments"),
            'deployments.apps is forbidden: User "somebody" cannot list resource "deployments" in API group "apps" at the '
            "cluster scope: why",
        ),
        (read("GET", "/metrics"), 'forbidden: User "somebody" cannot get path "/metrics": why'),
    ],
)
def test_refusals_are_worded_as_upstreams(info: RequestInfo, message: str) -> None:
    assert forbidden(SOMEBODY, info, "why").message == message


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]),
    st.lists(
        st.sampled_from(["", "api", "apis", "v1", "namespaces", "pods", "healthz", "version", "..", "%2e"]), max_size=6
    ),
)
def test_strangers_never_ask_for_a_resource(method: str, parts: list[str]) -> None:
    info = read(method, "/" + "/".join(parts))
    if BuiltIn().authorize(ANONYMOUS, info).allowed:
        assert not info.resource
        assert info.path.split("/")[1] in ("healthz", "version")
        assert info.verb in ("get", "head")


async def test_what_another_decides_is_remembered_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    asked: list[RequestInfo] = []

    async def another(user: User, info: RequestInfo) -> Decision:
        asked.append(info)
        return Decision(info.resource == "pods", f"answer {len(asked)}")

    def first(user: User, info: RequestInfo) -> Decision | None:
        return Decision(True, "health") if info.path == "/healthz" else None

    kept = Remembered(first, another, lambda: now)
    pods, nodes = read("GET", "/api/v1/pods"), read("GET", "/api/v1/nodes")
    assert kept.authorize(SOMEBODY, read("GET", "/healthz")) == Decision(True, "health")
    for info, allowed in ((pods, True), (nodes, False)):
        assert kept.authorize(SOMEBODY, info) is None
        decision = await kept.ask(SOMEBODY, info)
        assert decision.allowed is allowed
        assert kept.authorize(SOMEBODY, info) is decision, "a refusal too"
        assert kept.authorize(ANONYMOUS, info) is None, "and nobody else's"
    now += authorization.REMEMBERED_SECONDS
    assert kept.authorize(SOMEBODY, pods) is None
    assert (await kept.ask(SOMEBODY, pods)).reason == "answer 3"
    monkeypatch.setattr(authorization, "REMEMBERED", 2)
    await kept.ask(SOMEBODY, read("GET", "/api/v1/secrets"))
    assert kept.authorize(SOMEBODY, pods), "the oldest goes first"
    long = read("GET", f"/api/v1/nodes/{'n' * authorization.REMEMBERED_PATH}")
    await kept.ask(SOMEBODY, long)
    assert kept.authorize(SOMEBODY, long) is None
