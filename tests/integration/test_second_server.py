"""A server that keeps nothing, on the parts of ``isoplane.http``: an aggregated API behind a front proxy, and a webhook.

What kube-apiserver needs of such a server, over real TLS: identity by the proxy's headers, delegated authorization, lists as
tables, watches, health without credentials, and AdmissionReview.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from isoplane.http import protocol
from isoplane.http.app import App
from isoplane.http.authentication import Authentication, ClientCertificates, FrontProxy, Headers
from isoplane.http.listener import Listener
from isoplane.http.peer import Authorities, PeerCertificate
from isoplane.http.tls import Identity, Pki, serving_context
from isoplane.http.user import User
from isoplane.objects.errors import Unauthorized
from second_server_support import BASE, ONE, Workloads


class Tokens:
    """One token, which takes a moment to look up."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def known(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        return User("bot", ("team-a",)) if dict(headers).get(b"authorization") in self.seen else None

    async def ask(self, certificate: PeerCertificate | None, headers: Headers) -> User | None:
        shown = dict(headers).get(b"authorization")
        if shown is None:
            return None
        await asyncio.sleep(0)
        if shown != b"Bearer good":
            raise Unauthorized("the token is not valid")
        self.seen.add(shown)
        return self.known(certificate, headers)


class Cluster:
    """The CAs, and the server with whoever may ask it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.serving, self.clients, self.proxies = (Pki(directory / name) for name in ("serving", "clients", "proxies"))
        self.serving.server(["127.0.0.1"])
        self.service = Workloads()
        context = serving_context(
            directory / "serving" / "server.crt",
            directory / "serving" / "server.key",
            self.clients.ca.certificate + self.proxies.ca.certificate,
        )
        chain = Authentication(
            [
                FrontProxy(Authorities(self.proxies.ca.certificate), ["front-proxy"]),
                ClientCertificates(Authorities(self.clients.ca.certificate)),
                Tokens(),
            ]
        )
        app = App(self.service, chain, self.service.authorize, ask=self.service.ask)
        self.listener = Listener(app, "127.0.0.1", 0, context)

    def client(self, identity: Identity | None, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        context = ssl.create_default_context(cadata=self.serving.ca.certificate.decode())
        if identity is not None:
            pem = self.directory / "client.pem"
            pem.write_bytes(identity.certificate + identity.key)
            context.load_cert_chain(pem)
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{self.listener.port}", verify=context, headers=headers)

    def proxy(self, user: str = "ann", name: str = "front-proxy", **more: str) -> httpx.AsyncClient:
        headers = {"X-Remote-User": user, "X-Remote-Group": "team-a", **more}
        return self.client(self.proxies.client(name, ["system:masters"]), headers)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path)
    await made.listener.start()
    yield made
    await made.listener.stop()


async def test_a_proxy_says_who_asks_and_another_who_may(cluster: Cluster) -> None:
    async with cluster.proxy(**{"X-Remote-Extra-Scopes%2fA": "x", "X-Remote-Uid": "u1"}) as client:
        assert (await client.get(f"{ONE}/two")).json()["metadata"]["name"] == "two"
        user, info = cluster.service.asked[-1]
        assert user == User("ann", ("team-a", "system:authenticated"), "u1", (("scopes/a", ("x",)),))
        assert (info.verb, info.group, info.resource, info.namespace, info.name) == (
            "get", "view.isoplane.io", "workloads", "shop", "two",
        )  # fmt: skip
        refused = (await client.get(f"{BASE}/namespaces/b/workloads")).json()
        assert (refused["code"], refused["reason"]) == (403, "Forbidden")
        assert refused["message"] == (
            'workloads.view.isoplane.io is forbidden: User "ann" cannot list resource "workloads" in API group '
            '"view.isoplane.io" in the namespace "b": team-a has namespace shop'
        )
        # What there is none of is told to those alone who may ask for it.
        assert (await client.get(f"{BASE}/namespaces/shop/others")).status_code == 404
        assert (await client.get(f"{BASE}/namespaces/b/others")).status_code == 403


async def test_nobody_else_is_believed(cluster: Cluster) -> None:
    """The headers of a client are nothing, nor are the groups of a certificate that only a proxy's CA has issued."""
    forged = {"X-Remote-User": "ann", "X-Remote-Group": "team-a"}
    async with cluster.client(cluster.clients.client("eve", ["team-b"]), forged) as client:
        assert (await client.get(ONE)).status_code == 403
        assert cluster.service.asked[-1][0].name == "eve"
    async with cluster.client(None, forged) as client:
        assert (await client.get(ONE)).status_code == 401
        assert (await client.get("/healthz")).text == "ok"
        assert (await client.get("/metrics")).status_code == 401
    async with cluster.proxy(name="somebody") as client:
        answer = await client.get(ONE)
        assert answer.status_code == 401
        assert "somebody is no proxy" in answer.json()["message"]
    async with cluster.client(cluster.proxies.client("front-proxy", ["system:masters"])) as client:
        assert (await client.get("/metrics")).status_code == 401, "a proxy that names nobody asks for nobody"
    async with cluster.client(cluster.clients.client("root", ["system:masters"]), forged) as client:
        metrics = (await client.get("/metrics")).text
        refused = 'apiserver_request_total{verb="LIST",group="",resource="",subresource="",code="403"} 1'
        assert refused in metrics.splitlines(), "what nobody may ask for has no name"


async def test_lists_are_tables_and_watches_are_events(cluster: Cluster) -> None:
    async with cluster.proxy() as client:
        assert [item["metadata"]["name"] for item in (await client.get(ONE)).json()["items"]] == ["one", "two"]
        as_table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        table = (await client.get(ONE, headers=as_table)).json()
        assert table["kind"] == "Table"
        assert [row["cells"][0] for row in table["rows"]] == ["one", "two"]
        assert table["metadata"]["resourceVersion"] == "5"
        for headers, kind in (({}, "Workload"), (as_table, "Table")):
            async with client.stream("GET", ONE, params={"watch": "1"}, headers=headers) as answer:
                events = [json.loads(line) async for line in answer.aiter_lines()]
            assert [event["type"] for event in events] == ["ADDED", "BOOKMARK", "DELETED", "ERROR"]
            assert events[0]["object"]["kind"] == kind
            assert events[1]["object"]["metadata"]["resourceVersion"] == "7"
            assert events[3]["object"]["code"] == 410


async def test_a_webhook_reviews_admission(cluster: Cluster) -> None:
    review: dict[str, Any] = {
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "7", "operation": "CREATE"},
    }  # fmt: skip
    async with cluster.client(None) as client:
        post = partial(client.post, "/admit", params={"timeout": "10s"})
        answer = (await post(json=review)).json()
        assert answer["response"] == {"uid": "7", "allowed": False, "status": {"message": "not here"}}
        assert (await post(content=b"{", headers={"content-type": "application/json"})).status_code == 400
        assert (await client.get("/admit")).status_code == 404


async def test_tokens_are_looked_up_and_known_from_then_on(cluster: Cluster) -> None:
    for token, code in (("good", 200), ("bad", 401), ("good", 200)):
        async with cluster.client(None, {"authorization": f"Bearer {token}"}) as client:
            assert (await client.get(ONE)).status_code == code
    async with cluster.client(cluster.clients.client("ann", ["team-a"]), {"authorization": "Bearer bad"}) as client:
        assert (await client.get(ONE)).status_code == 200, "proof that is bad does not hide a good one"


async def test_a_connection_is_nobodys_until_somebody_is_proven(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "ANONYMOUS_SECONDS", 0.3)
    state = cluster.listener._state
    async with cluster.client(None) as nobody, cluster.client(None, {"authorization": "Bearer good"}) as bot:
        assert (await bot.get(ONE)).status_code == 200
        assert state.anonymous == 0
        slow = await nobody.get("/admit/slow")
        assert slow.status_code == 200, "what is being answered is answered first"
        assert slow.headers["connection"] == "close"
        assert (await bot.get(ONE)).status_code == 200
        assert cluster.listener.connections == 1


async def test_a_stream_that_fails_on_its_way_is_not_taken_for_a_whole_one(cluster: Cluster) -> None:
    async with cluster.client(None) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/admit/broken")
