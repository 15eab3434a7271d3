"""What a connection is given at once, however much a service has for it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from isoplane.http import request_info, streaming
from isoplane.http.items import EncodedObject
from isoplane.http.negotiation import PLAIN
from isoplane.http.representation import Representation
from isoplane.http.request import Request
from isoplane.http.user import SYSTEM
from isoplane.http.watch import GROUP, GROUP_BYTES, ObjectEvent, Step
from isoplane.objects.kinds import CONFIGMAPS


async def test_a_watch_is_sent_in_groups_whatever_comes_at_once() -> None:
    sent: list[bytes] = []
    left_open: list[bool] = []

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            sent.append(message["body"])

    async def receive() -> Mapping[str, Any]:
        raise AssertionError("nothing is read")

    def event(number: int, size: int) -> ObjectEvent:
        meta = {"name": f"c{number}", "resourceVersion": str(number)}
        return ObjectEvent("ADDED", EncodedObject.of({"metadata": meta, "data": {"x": "y" * size}}))

    async def steps() -> AsyncGenerator[Sequence[Step], None]:
        left_open.append(True)
        try:
            yield [event(n, 10) for n in range(1, 1001)]
            yield [event(n, 10_000) for n in range(1001, 1101)]
        finally:
            left_open.pop()

    info = request_info.read("GET", "/api/v1/configmaps", b"watch=1")
    scope = {"method": "GET", "path": info.path, "query_string": b"watch=1", "headers": []}
    request = Request(scope, receive, send, SYSTEM, info)
    await streaming.watch(request, Representation(CONFIGMAPS, PLAIN, ""), steps())
    lines = [line for piece in sent for line in piece.splitlines()]
    assert [json.loads(line)["object"]["metadata"]["resourceVersion"] for line in lines] == [
        str(n) for n in range(1, 1101)
    ]
    assert max(len(piece.splitlines()) for piece in sent) == GROUP
    assert max(len(piece) for piece in sent) < GROUP_BYTES + 10_000
    assert not left_open
