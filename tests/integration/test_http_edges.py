"""The wire at its edges: who may ask, what cannot be read, how much, how slowly; the server stays up through all of it."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from isoplane.client import kubeconfig
from isoplane.client.streams import NoNode
from isoplane.http import protocol
from isoplane.http.app import App
from isoplane.http.authentication import Authentication, Headers
from isoplane.http.listener import ListenError
from isoplane.http.peer import PeerCertificate
from isoplane.http.tls import Pki
from isoplane.http.user import User
from isoplane.server.apiserver import ApiServer, parse_listen
from isoplane.server.authorization import BuiltIn
from isoplane.server.bootstrap import bootstrap
from isoplane.server.endpoints.documents import Documents
from isoplane.server.endpoints.handlers import Handlers
from isoplane.server.endpoints.service import ApiService
from isoplane.server.verbs import Verbs
from store_support import in_memory

PODS = "/api/v1/namespaces/default/pods"
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    server = ApiServer(tmp_path / "data", "127.0.0.1:0", tmp_path / "kubeconfig")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: ApiServer, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    cluster = kubeconfig.load(tmp_path / "kubeconfig")
    assert cluster.context is not None
    async with httpx.AsyncClient(base_url=cluster.server, verify=cluster.context) as client:
        yield client


def config(name: str = "c", **data: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_anonymous_clients_see_health_and_version_only(server: ApiServer, tmp_path: Path) -> None:
    ca = (tmp_path / "data" / "pki" / "ca.crt").read_text()
    async with httpx.AsyncClient(base_url=server.url, verify=ssl.create_default_context(cadata=ca)) as client:
        for path in ("/healthz", "/readyz", "/livez"):
            assert (await client.get(path)).text == "ok"
        assert (await client.get("/version/")).json()["minor"].isdigit()
        for path in ("/api", "/apis", PODS, "/openapi/v3", "/"):
            answer = await client.get(path)
            assert answer.status_code == 401
            assert answer.json()["reason"] == "Unauthorized"


async def test_a_certificate_of_another_authority_is_no_identity(server: ApiServer, tmp_path: Path) -> None:
    ca = (tmp_path / "data" / "pki" / "ca.crt").read_text()
    other = Pki(tmp_path / "other")
    other.admin()
    context = ssl.create_default_context(cadata=ca)
    context.load_cert_chain(tmp_path / "other" / "admin.crt", tmp_path / "other" / "admin.key")
    async with httpx.AsyncClient(base_url=server.url, verify=context) as client:
        with pytest.raises(httpx.HTTPError):
            await client.get("/api")


async def test_readiness_is_the_assemblers_word(server: ApiServer, client: httpx.AsyncClient) -> None:
    server.not_ready = "the node has not registered"
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready: the node has not registered\n")
    assert (await client.get("/livez")).status_code == 200


def test_kubeconfig_and_keys_are_private(tmp_path: Path) -> None:
    async def main() -> None:
        target = tmp_path / "kubeconfig"
        target.write_text("apiVersion: v1\nkind: Config\nclusters: [{name: mine, cluster: {server: 'https://x'}}]\n")
        server = ApiServer(tmp_path / "data", "127.0.0.1:0", target)
        await server.start()
        await server.stop()
        assert oct(target.stat().st_mode & 0o777) == "0o600"
        assert "name: mine" in target.read_text()
        for name in ("ca.key", "server.key", "admin.key"):
            assert oct((tmp_path / "data" / "pki" / name).stat().st_mode & 0o777) == "0o600"
        for name in ("isoplane.db",):
            assert oct((tmp_path / "data" / name).stat().st_mode & 0o777) == "0o600"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/api/v1/nope", 404),
        ("GET", "/api/v2/pods", 404),
        ("GET", "/apis/kubevirt.io/v1/namespaces/default/pods", 404),
        ("GET", "/apis/kubevirt.io", 200),
        ("GET", "/apis/kubevirt.io/v1/", 200),
        ("GET", "/api/v1/namespaces/default/pods/a/b/c", 404),
        ("GET", "/api/v1/namespaces//pods", 404),
        ("GET", f"{PODS}/x/nothing", 404),
        ("GET", f"{PODS}/nope", 404),
        ("GET", "/api/v1/namespaces/default/", 200),
        ("POST", f"{PODS}/x", 405),
        ("PUT", PODS, 405),
        ("PATCH", PODS, 405),
        ("GET", f"{PODS}/x/binding", 405),
        ("TRACE", PODS, 405),
        ("DELETE", "/apis/view.isoplane.io/v1alpha1/namespaces/default/workloads/x", 405),
        ("GET", f"{PODS}?limit=x", 400),
        ("GET", f"{PODS}?watch=maybe", 400),
        ("GET", f"{PODS}?labelSelector=a%20in", 400),
        ("GET", f"{PODS}?fieldSelector=spec.colour%3Dred", 400),
        ("GET", f"{PODS}?resourceVersion=abc", 422),
        ("GET", f"{PODS}?resourceVersion=999999", 504),
        ("GET", f"{PODS}?resourceVersionMatch=Exact", 422),
        ("GET", f"{PODS}?continue=!!!", 400),
        ("GET", f"{PODS}?watch=1&sendInitialEvents=true", 422),
        ("POST", f"{PODS}?dryRun=Some", 400),
        ("POST", f"{PODS}?fieldValidation=Perhaps", 400),
        ("GET", "/openapi/v3/apis/nope/v1", 404),
        ("GET", "/openapi/v2", 404),
        ("HEAD", "/api/v1/namespaces/default", 200),
    ],
)
async def test_paths_and_parameters(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status, answer.text
    if status >= 400 and method != "HEAD":
        body = answer.json()
        assert (body["kind"], body["status"], body["code"]) == ("Status", "Failure", status)
        assert body["message"]
        assert body["reason"]
        assert status != 404 or "details" in body, "kubectl debug reads them without looking whether they are there"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "body",
    [
        {"deleteOptions": [{}]},
        {"deleteOptions": {"preconditions": [1]}},
        {"deleteOptions": {"dryRun": 5}},
        {"deleteOptions": "All"},
        {"metadata": "web"},
        {"dryRun": "Allways"},
        {"dryRun": ["Some"]},
        {"preconditions": ["uid"]},
        {"gracePeriodSeconds": "5"},
    ],
    ids=str,
)
async def test_members_of_the_wrong_type_are_refused(
    client: httpx.AsyncClient, method: str, body: dict[str, object]
) -> None:
    """Of a deletion, and of an eviction, which carries one."""
    pod = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a", "image": "i:1"}]}}
    assert (await client.post(PODS, json=pod)).status_code == 201
    if method == "POST" and "gracePeriodSeconds" in body:
        body = {"deleteOptions": body}
    path = f"{PODS}/web/eviction" if method == "POST" else f"{PODS}/web"
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["reason"] == "BadRequest"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"a: [", "application/yaml", 400),
        (b"k8s\x00\xff\xff\xff", "application/vnd.kubernetes.protobuf", 400),
        (b"garbage", "application/vnd.kubernetes.protobuf", 400),
        (b"{}", "application/xml", 415),
        (b"{}", "application/json", 422),
        (b'{"kind":"Pod","apiVersion":"v1"}', "application/json", 400),
        (b'{"kind":"ConfigMap","apiVersion":"v2"}', "application/json", 400),
        (b'{"metadata":[]}', "application/json", 400),
        (b'{"metadata":{"name":7}}', "application/json", 400),
        (b'{"metadata":{"name":"x","labels":[]}}', "application/json", 400),
        (b'{"metadata":{"name":"x","namespace":"other"}}', "application/json", 400),
        (b'{"metadata":{"name":"x","finalizers":{"a":1}}}', "application/json", 400),
        (b'{"metadata":{"name":"x"},"data":{"a":1}}', "application/json", 400),
        (b'{"metadata":{"name":"x"},"data":[]}', "application/json", 400),
        (b'{"metadata":{"name":"UPPER"}}', "application/json", 422),
    ],
)
async def test_bodies_that_cannot_be_taken(
    client: httpx.AsyncClient, body: bytes, content_type: str, status: int
) -> None:
    answer = await client.post(CONFIGMAPS, content=body, headers={"content-type": content_type})
    assert answer.status_code == status, answer.text
    assert answer.json()["kind"] == "Status"
    assert (await client.get("/livez")).status_code == 200


async def test_a_refusal_names_the_field(client: httpx.AsyncClient) -> None:
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 0}]}]},
    }
    answer = await client.post(PODS, json=pod)
    assert answer.status_code == 422
    causes = answer.json()["details"]["causes"]
    assert causes[0]["field"] == "spec.containers[0].ports[0].containerPort"
    pod["spec"]["containers"][0]["ports"] = []  # type: ignore[index]
    pod["spec"]["colour"] = "red"  # type: ignore[index]
    answer = await client.post(f"{PODS}?fieldValidation=Strict", json=pod)
    assert answer.status_code == 400
    assert 'unknown field "spec.colour"' in answer.json()["message"]
    answer = await client.post(f"{PODS}?fieldValidation=Warn", json=pod)
    assert answer.status_code == 201
    assert answer.headers["warning"] == '299 - "unknown field \\"spec.colour\\""'
    answer = await client.post(f"{PODS}?fieldValidation=Ignore", json={**pod, "metadata": {"name": "q"}})
    assert "warning" not in answer.headers


async def test_repeated_fields_are_noticed(client: httpx.AsyncClient) -> None:
    body = b'{"metadata": {"name": "c"}, "data": {"a": "1"}, "data": {"a": "2"}}'
    headers = {"content-type": "application/json"}
    answer = await client.post(f"{CONFIGMAPS}?fieldValidation=Strict", content=body, headers=headers)
    assert answer.status_code == 400
    assert "duplicate field" in answer.json()["message"]
    answer = await client.post(CONFIGMAPS, content=body, headers=headers)
    assert "duplicate field" in answer.headers["warning"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_bodies_over_three_mebibytes(client: httpx.AsyncClient, chunked: bool) -> None:
    body = json.dumps(config(pad="x" * (3 << 20))).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    headers = {"content-type": "application/json"}
    try:
        answer = await client.post(CONFIGMAPS, content=pieces() if chunked else body, headers=headers)
    except httpx.WriteError:
        pytest.skip("the connection was closed while still sending, as it may be")
    assert answer.status_code == 413
    assert answer.json()["reason"] == "RequestEntityTooLarge"
    assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        ("application/json", 200, "ConfigMapList"),
        ("*/*", 200, "ConfigMapList"),
        ("", 200, "ConfigMapList"),
        ("application/vnd.kubernetes.protobuf,application/json", 200, "ConfigMapList"),
        ("application/vnd.kubernetes.protobuf", 406, "Status"),
        ("text/html", 406, "Status"),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", 200, "Table"),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", 200, "Table"),
        ("application/json;as=Table;v=v7;g=meta.k8s.io", 406, "Status"),
        ("application/json;as=Table;v=v7;g=meta.k8s.io,application/json", 200, "ConfigMapList"),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", 200, "PartialObjectMetadataList"),
        ("application/json;q=0.1, application/json;as=Table;v=v1;g=meta.k8s.io", 200, "Table"),
    ],
)
async def test_negotiation(client: httpx.AsyncClient, accept: str, status: int, kind: str) -> None:
    answer = await client.get(CONFIGMAPS, headers={"accept": accept})
    assert (answer.status_code, answer.json()["kind"]) == (status, kind)


async def test_discovery_in_both_forms(client: httpx.AsyncClient) -> None:
    two = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    one = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    for path in ("/api", "/apis"):
        new = await client.get(path, headers={"accept": f"{two},application/json"})
        assert new.json()["kind"] == "APIGroupDiscoveryList"
        assert "v=v2" in new.headers["content-type"]
        old = await client.get(path, headers={"accept": f"{one},application/json"})
        assert old.json()["kind"] in ("APIVersions", "APIGroupList")
    announced = {}
    for group in (await client.get("/apis", headers={"accept": two})).json()["items"]:
        for version in group["versions"]:
            path = f"/apis/{group['metadata']['name']}/{version['version']}"
            announced[path] = {r["resource"] for r in version["resources"]}
    for path, resources in announced.items():
        legacy = (await client.get(path)).json()
        assert {r["name"].partition("/")[0] for r in legacy["resources"]} == resources
    for entry in (await client.get("/openapi/v3")).json()["paths"].values():
        assert (await client.get(entry["serverRelativeURL"])).json()["openapi"].startswith("3.")


async def lines(client: httpx.AsyncClient, path: str, count: int, accept: str = "application/json") -> list[Any]:
    found = []
    async with asyncio.timeout(10), client.stream("GET", path, headers={"accept": accept}) as answer:
        async for line in answer.aiter_lines():
            found.append(json.loads(line))
            if len(found) == count:
                break
    return found


async def test_watch_list_ends_its_initial_events_with_a_bookmark(client: httpx.AsyncClient) -> None:
    for name in "ab":
        await client.post(CONFIGMAPS, json=config(name))
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    events = await lines(client, f"{CONFIGMAPS}?{query}", 3)
    assert [(e["type"], e["object"]["metadata"].get("name")) for e in events[:2]] == [("ADDED", "a"), ("ADDED", "b")]
    assert events[2]["type"] == "BOOKMARK"
    assert events[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    revision = (await client.get(CONFIGMAPS)).json()["metadata"]["resourceVersion"]
    assert events[2]["object"]["metadata"]["resourceVersion"] == revision


async def test_watch_ends_after_its_time_and_begins_with_what_exists(client: httpx.AsyncClient) -> None:
    await client.post(CONFIGMAPS, json=config("a"))
    answer = await client.get(f"{CONFIGMAPS}?watch=1&timeoutSeconds=1&resourceVersion=0")
    assert [json.loads(line)["type"] for line in answer.text.splitlines()] == ["ADDED"]
    answer = await client.get(f"{CONFIGMAPS}?watch=1&timeoutSeconds=1&sendInitialEvents=false"
                              "&resourceVersionMatch=NotOlderThan")  # fmt: skip
    assert answer.text == ""


async def test_table_watch_sends_its_columns_once(client: httpx.AsyncClient) -> None:
    for name in "ab":
        await client.post(CONFIGMAPS, json=config(name))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    events = await lines(client, f"{CONFIGMAPS}?watch=1", 2, accept)
    assert [e["object"]["kind"] for e in events] == ["Table", "Table"]
    assert events[0]["object"]["columnDefinitions"]
    assert not events[1]["object"].get("columnDefinitions")


async def test_a_watcher_that_leaves_is_forgotten(server: ApiServer, client: httpx.AsyncClient) -> None:
    async with client.stream("GET", f"{CONFIGMAPS}?watch=1"):
        for _ in range(100):
            if server.store.watches:
                break
            await asyncio.sleep(0.01)
        assert server.store.watches == 1
    for _ in range(200):
        if not server.store.watches:
            break
        await asyncio.sleep(0.01)
    assert server.store.watches == 0


async def test_a_watch_survives_the_servers_end_politely(tmp_path: Path) -> None:
    server = ApiServer(tmp_path / "data", "127.0.0.1:0", tmp_path / "kubeconfig")
    await server.start()
    cluster = kubeconfig.load(tmp_path / "kubeconfig")
    assert cluster.context is not None
    async with (
        httpx.AsyncClient(base_url=cluster.server, verify=cluster.context) as client,
        client.stream("GET", f"{CONFIGMAPS}?watch=1") as answer,
    ):
        async with asyncio.timeout(10):
            await server.stop()
        try:
            async for _ in answer.aiter_lines():
                pass
        except httpx.HTTPError:
            pass


async def raw(server: ApiServer, tmp_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    cluster = kubeconfig.load(tmp_path / "kubeconfig")
    port = int(server.url.rpartition(":")[2])
    return await asyncio.open_connection("127.0.0.1", port, ssl=cluster.context)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET /api HTTP/1.1\r\nHost: x\r\n",
        b"\r\n",
        b"POST " + CONFIGMAPS.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /li",
    ],
)
async def test_slow_clients_are_hung_up_on(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.3)
    reader, writer = await raw(server, tmp_path)
    writer.write(start)
    async with asyncio.timeout(5):
        answer = await reader.read(-1)
    assert b" 408 " in answer
    writer.close()


async def test_endless_headers_are_cut_off(server: ApiServer, tmp_path: Path) -> None:
    reader, writer = await raw(server, tmp_path)
    writer.write(b"GET /api HTTP/1.1\r\nHost: x\r\n")
    try:
        async with asyncio.timeout(10):
            for number in range(4000):
                writer.write(b"X-%d: %b\r\n" % (number, b"y" * 1000))
                await writer.drain()
            assert await reader.read(-1) == b""
    except ConnectionError:
        pass
    writer.close()


async def test_connections_that_never_speak_tls_do_no_harm(server: ApiServer, client: httpx.AsyncClient) -> None:
    port = int(server.url.rpartition(":")[2])
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + struct.pack(">H", 5) + b"junk!", b""):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        await writer.drain()
        writer.close()
    assert (await client.get("/livez")).status_code == 200


async def test_an_upgrade_needs_an_identity_and_a_place(server: ApiServer, tmp_path: Path) -> None:
    ca = (tmp_path / "data" / "pki" / "ca.crt").read_text()
    anonymous = ssl.create_default_context(cadata=ca)
    known = kubeconfig.load(tmp_path / "kubeconfig").context
    port = server.url.rpartition(":")[2]
    for context, path, status in (
        (anonymous, f"{PODS}/x/exec?command=id&stdout=1", 401),
        (known, f"{PODS}/x/exec?command=id&stdout=1", 404),
        (known, "/api/v1/pods?watch=1", 404),
    ):
        with pytest.raises(InvalidStatus) as caught:
            async with connect(
                f"wss://127.0.0.1:{port}{path}", ssl=context, subprotocols=[Subprotocol("v5.channel.k8s.io")]
            ):
                pass
        assert caught.value.response.status_code == status
        assert json.loads(caught.value.response.body or b"{}")["code"] == status


async def test_pipelined_requests_are_answered_in_order(server: ApiServer, tmp_path: Path) -> None:
    reader, writer = await raw(server, tmp_path)
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    two = b"GET /api/v1/namespaces/default HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    writer.write(one + two + last)
    async with asyncio.timeout(5):
        answer = await reader.read(-1)
    assert answer.index(b"ok") < answer.index(b'"Namespace"') < answer.index(b"NotFound")
    writer.close()


WORDS = st.sampled_from(["api", "apis", "v1", "namespaces", "default", "pods", "kubevirt.io", "status"])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="#?"), max_size=12)


@given(
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    st.lists(st.one_of(WORDS, TEXT), max_size=7),
    st.dictionaries(st.sampled_from(["watch", "limit", "continue", "labelSelector", "fieldSelector", "dryRun"]), TEXT),
    st.binary(max_size=60),
)  # fmt: skip
@settings(max_examples=150)
def test_any_request_gets_an_answer_and_no_500(
    method: str, parts: list[str], query: dict[str, str], body: bytes
) -> None:
    """Through the application without a socket: thousands of odd requests, and none is an internal error."""
    status = asyncio.run(_ask(method, "/" + "/".join(parts), query, body))
    assert status < 500 or status == 504


class Everybody:
    """Is the administrator."""

    def known(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        return User("admin", ("system:masters",))

    async def ask(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        return None


async def _ask(method: str, path: str, query: dict[str, str], body: bytes) -> int:
    store = in_memory()
    verbs = Verbs(store)
    await bootstrap(verbs)
    app = App(
        ApiService(Handlers(verbs, NoNode()), Documents("test", verbs.scheme), BuiltIn()),
        Authentication([Everybody()]),
        BuiltIn().authorize,
    )
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    if "watch" in query:
        query = {**query, "timeoutSeconds": "0"}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": urlencode(query).encode(),
        "headers": [(b"content-type", b"application/json")],
    }
    try:
        async with asyncio.timeout(0.5):
            await app(scope, receive, send)
    except TimeoutError:
        assert sent[0]["status"] == 200
    await store.close()
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:6443", ("127.0.0.1", 6443)), ("[::1]:0", ("::1", 0)), (":8443", ("127.0.0.1", 8443))],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["6443", "host", "host:port", "host:99999", "[::zz]:1"])
def test_bad_listen_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        parse_listen(text)


async def test_a_taken_port_is_named(server: ApiServer, tmp_path: Path) -> None:
    address = server.url.removeprefix("https://")
    other = ApiServer(tmp_path / "other", address)
    with pytest.raises(ListenError, match="already in use"):
        await other.start()
    again = ApiServer(tmp_path / "other", "127.0.0.1:0")
    await again.start()
    await again.stop()


async def test_large_answers_are_whole_at_every_length(client: httpx.AsyncClient) -> None:
    """They are written in pieces of 64 KiB: a length that is a multiple of it, and those beside it, come out right."""
    (await client.post(CONFIGMAPS, json=config(a="x"))).raise_for_status()

    async def read(text: str) -> httpx.Response:
        body, media = {"data": {"a": text}}, {"content-type": "application/merge-patch+json"}
        written = await client.patch(f"{CONFIGMAPS}/c", json=body, headers=media)
        found = await client.get(f"{CONFIGMAPS}/c")
        assert found.json() == written.json()
        assert found.json()["data"] == {"a": text}
        return found

    bare = len((await read("")).content)
    for length in (128 * 1024 + 1, *range(3 * 65536 - 1, 3 * 65536 + 2), 300_000):
        bare += len((await read("x" * (length - bare))).content) - length  # revisions become longer now and then
        assert len((await read("x" * (length - bare))).content) == length
        assert (await client.request("HEAD", f"{CONFIGMAPS}/c")).content == b""
        assert (await client.get(f"{CONFIGMAPS}/none")).status_code == 404
    pods = [{"metadata": {"name": f"c{at}"}, "data": {"a": "y" * 1000}} for at in range(300)]
    await asyncio.gather(*(client.post(CONFIGMAPS, json=one) for one in pods))
    found = (await client.get(CONFIGMAPS)).json()["items"]
    assert len(found) == 301 + sum(one["metadata"]["name"].endswith(".crt") for one in found)
    assert (await client.get("/api/v1/namespaces/none/configmaps")).json()["items"] == []
