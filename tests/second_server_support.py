"""A server that keeps nothing, on the parts of ``isoplane.http``: a view of a few objects, and a webhook.

What the tests of http/ serve: in process behind a proxy of their own, and as an aggregated API of a real kube-apiserver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import orjson

from isoplane.http import streaming
from isoplane.http.app import Handle, Service
from isoplane.http.authorization import Decision
from isoplane.http.items import EncodedObject, Listing
from isoplane.http.representation import Representation
from isoplane.http.request import Request
from isoplane.http.request_info import RequestInfo
from isoplane.http.request_options import Call
from isoplane.http.user import User
from isoplane.http.watch import Bookmark, ObjectEvent, Step
from isoplane.objects.errors import Expired, NotFound, Unavailable
from isoplane.objects.kinds import WORKLOADS

VIEWED = replace(WORKLOADS, group="view.isoplane.io")
BASE = f"/apis/{VIEWED.api_version}"
ONE = f"{BASE}/namespaces/shop/workloads"


def workload(name: str, revision: int) -> EncodedObject:
    meta = {
        "name": name,
        "namespace": "shop",
        "resourceVersion": str(revision),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return EncodedObject.of({"apiVersion": VIEWED.api_version, "kind": "Workload", "metadata": meta})


class Workloads(Service):
    """Two objects, a watch that tells of a third, and a webhook that lets nothing through."""

    def __init__(self) -> None:
        self.asked: list[tuple[User, RequestInfo]] = []
        self.present = [workload("one", 3), workload("two", 5)]

    def authorize(self, user: User, info: RequestInfo) -> Decision | None:
        if info.path.startswith(("/healthz", "/admit")):
            return Decision(True)
        return Decision(True) if info.path == "/metrics" and "system:masters" in user.groups else None

    async def ask(self, user: User, info: RequestInfo) -> Decision:
        """In place of a SubjectAccessReview."""
        await asyncio.sleep(0)
        self.asked.append((user, info))
        return Decision(info.namespace == "shop" and "team-a" in user.groups, "team-a has namespace shop")

    def find(self, info: RequestInfo) -> Handle | None:
        if info.path == BASE:
            return self._discover
        if info.path == "/admit" and info.verb == "post":
            return self._admit
        if info.path == "/admit/slow":
            return self._slow
        if info.path == "/admit/broken":
            return lambda request: streaming.stream(request, self._broken())
        verbs: dict[str, Handle] = {"get": self._get, "list": self._list, "watch": self._watch}
        return verbs.get(info.verb) if info.resource == VIEWED.plural else None

    def _form(self, request: Request) -> Representation:
        return Representation(VIEWED, request.media(), request.query.get("includeObject", ""))

    async def _discover(self, request: Request) -> None:
        resource = {
            "name": VIEWED.plural, "singularName": VIEWED.singular, "namespaced": True, "kind": VIEWED.kind,
            "verbs": ["get", "list", "watch"],
        }  # fmt: skip
        found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VIEWED.api_version}
        await request.answer(200, orjson.dumps({**found, "resources": [resource]}))

    async def _get(self, request: Request) -> None:
        for item in self.present:
            if item.object()["metadata"]["name"] == request.info.name:
                await request.answer(200, self._form(request).one(item))
                return
        raise NotFound(f"there is no {request.info.name}")

    async def _list(self, request: Request) -> None:
        await request.answer(200, self._form(request).many(Listing(self.present, 5)))

    async def _watch(self, request: Request) -> None:
        await streaming.watch(request, self._form(request), self._steps())

    async def _steps(self) -> AsyncGenerator[Sequence[Step], None]:
        yield [ObjectEvent("ADDED", workload("three", 7)), Bookmark(7)]
        await asyncio.sleep(0.01)
        yield [ObjectEvent("DELETED", workload("one", 8))]
        raise Expired("too old")

    async def _admit(self, request: Request) -> None:
        review = await request.decoded(Call())
        answer = {"uid": review["request"]["uid"], "allowed": False, "status": {"message": "not here"}}
        await request.answer(200, orjson.dumps({**review, "response": answer}))

    async def _slow(self, request: Request) -> None:
        await asyncio.sleep(0.6)
        await request.answer(200, b"{}")

    async def _broken(self) -> AsyncGenerator[bytes, None]:
        yield b"a part"
        raise Unavailable("the node is gone")
