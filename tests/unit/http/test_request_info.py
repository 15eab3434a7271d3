"""What a request is about, as upstream reads it from the same lines; whatever the line, it is read and never fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.http.request_info import RequestInfo, read

CORE = {"version": "v1"}


@pytest.mark.parametrize(
    ("line", "verb", "rest"),
    [
        # The table of upstream's TestGetAPIRequestInfo, without its legacy /watch/ and /proxy/ prefixes.
        ("GET /api/v1/namespaces", "list", {"resource": "namespaces"}),
        ("GET /api/v1/namespaces/other", "get", {"namespace": "other", "resource": "namespaces", "name": "other"}),
        ("GET /api/v1/namespaces/other/pods", "list", {"namespace": "other", "resource": "pods"}),
        ("GET /api/v1/namespaces/other/pods/foo", "get", {"namespace": "other", "resource": "pods", "name": "foo"}),
        ("HEAD /api/v1/namespaces/other/pods/foo", "get", {"namespace": "other", "resource": "pods", "name": "foo"}),
        ("GET /api/v1/pods", "list", {"resource": "pods"}),
        ("HEAD /api/v1/pods", "list", {"resource": "pods"}),
        ("GET /api/v1/namespaces/other/pods?watch=1", "watch", {"namespace": "other", "resource": "pods"}),
        ("GET /api/v1/namespaces/other/pods?watch=false", "list", {"namespace": "other", "resource": "pods"}),
        (
            "GET /api/v1/namespaces/other/pods/foo/status",
            "get",
            {"namespace": "other", "resource": "pods", "name": "foo", "subresource": "status"},
        ),
        (
            "GET /api/v1/namespaces/other/finalize",
            "get",
            {"namespace": "other", "resource": "namespaces", "name": "other", "subresource": "finalize"},
        ),
        (
            "DELETE /api/v1/namespaces/other/pods/foo",
            "delete",
            {"namespace": "other", "resource": "pods", "name": "foo"},
        ),
        ("DELETE /api/v1/nodes/foo", "delete", {"resource": "nodes", "name": "foo"}),
        ("DELETE /api/v1/nodes", "deletecollection", {"resource": "nodes"}),
        ("POST /api/v1/namespaces/other/pods", "create", {"namespace": "other", "resource": "pods"}),
        ("PUT /api/v1/namespaces/other/pods/a", "update", {"namespace": "other", "resource": "pods", "name": "a"}),
        ("PATCH /api/v1/namespaces/other/pods/a", "patch", {"namespace": "other", "resource": "pods", "name": "a"}),
        (
            "GET /api/v1/pods?watch=1&fieldSelector=metadata.name%3Dfoo",
            "watch",
            {"resource": "pods", "name": "foo"},
        ),
        ("GET /api/v1/pods?fieldSelector=metadata.name==foo", "list", {"resource": "pods", "name": "foo"}),
        ("GET /api/v1/pods?fieldSelector=metadata.name%3Dfoo,spec.nodeName=n", "list", {"resource": "pods"}),
        ("GET /api/v1/pods?fieldSelector=metadata.name!=foo", "list", {"resource": "pods"}),
        ("GET /api/v1/pods?limit=5&w%61tch=1", "watch", {"resource": "pods"}),
        ("BREW /api/v1/pods", "", {"resource": "pods"}),
        # Not upstream's.
        ("GET /api/v1/pods?watch=maybe", "list", {"resource": "pods"}),
        (
            "GET /api/v1/namespaces/n/pods/p/proxy/a/b",
            "get",
            {"namespace": "n", "resource": "pods", "name": "p", "subresource": "proxy", "rest": "a/b"},
        ),
        ("GET /api/v1/pods/", "list", {"resource": "pods"}),
        ("GET /api/v1/pods//", "list", {"resource": "pods"}),
    ],
)
def test_requests_for_resources(line: str, verb: str, rest: dict[str, str]) -> None:
    method, url = line.split()
    path, _, query = url.partition("?")
    assert read(method, path, query.encode()) == RequestInfo(verb, path, **CORE, **rest)


def test_groups() -> None:
    info = read("GET", "/apis/batch/v1/namespaces/a/jobs/b")
    assert (info.group, info.version, info.namespace, info.resource, info.name) == ("batch", "v1", "a", "jobs", "b")


@pytest.mark.parametrize(
    ("path", "read_as"),
    [
        ("/", "/"), ("/healthz/", "/healthz"), ("/api", "/api"), ("/api/v1", "/api/v1"), ("/apis/batch/v1", "/apis/batch/v1"),
        ("/apis/batch/v1/", "/apis/batch/v1"), ("*", "*"), ("", ""), ("/api/v1/namespaces//pods", "/api/v1/namespaces//pods"),
        ("//api/v1/pods", "//api/v1/pods"), ("x/api/v1/pods", "x/api/v1/pods"), ("/apis//v1/x", "/apis//v1/x"),
    ],
)  # fmt: skip
def test_requests_for_paths(path: str, read_as: str) -> None:
    assert read("GET", path) == RequestInfo("get", read_as)
    assert read("OPTIONS", path) == RequestInfo("options", read_as)


@given(st.sampled_from(["GET", "POST", "DELETE", "X"]), st.text("/ap-iv1sn?%=", max_size=40), st.binary(max_size=40))
def test_anything_is_read(method: str, path: str, query: bytes) -> None:
    info = read(method, path, query)
    assert bool(info.resource) == bool(info.version)
    if info.resource:
        assert "" not in path.rstrip("/").split("/")[1:]
        assert info.resource in path
