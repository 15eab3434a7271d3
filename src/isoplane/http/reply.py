"""Responses: status, headers, body, in the form ASGI sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from isoplane.http.wire import write_large, write_whole
from isoplane.objects.errors import ApiError
from isoplane.objects.kinds import Resource

Send = Callable[[Mapping[str, Any]], Awaitable[None]]
JSON = b"application/json"


async def send(
    send_: Send,
    status: int,
    body: bytes,
    *,
    content_type: bytes = JSON,
    warnings: Sequence[str] = (),
    close: bool = False,
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """One whole response."""
    if (
        not warnings
        and not close
        and not extra
        and write_whole(send_, status, b"content-type: %b\r\n" % content_type, body)
    ):
        return
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    headers.extend((b"warning", text) for text in bounded(warnings))
    headers.extend(extra)
    if close:
        headers.append((b"connection", b"close"))
    await send_({"type": "http.response.start", "status": status, "headers": headers})
    await send_({"type": "http.response.body", "body": write_large(send_, body)})


def warning(text: str) -> bytes:
    """A Warning header (RFC 7234) as Kubernetes clients print it; control characters cannot be in a header."""
    clean = "".join(c if c.isprintable() else " " for c in text).replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{clean}"'.encode()[:4096]


WARNINGS = 20
"""Warning headers of one answer, and together at most this many bytes of text: clients limit their headers too."""
WARNING_BYTES = 4096


def bounded(texts: Sequence[str]) -> list[bytes]:
    """The first warnings as headers; the last one says how many are left out."""
    made: list[bytes] = []
    size = 0
    for text in texts:
        header = warning(text)
        size += len(header)
        if len(made) == WARNINGS - 1 or size > WARNING_BYTES:
            made.append(warning(f"{len(texts) - len(made)} more warnings are left out"))
            break
        made.append(header)
    return made


async def send_error(send_: Send, error: ApiError, *, close: bool = False, upgrade: bool = False) -> None:
    """``upgrade``: the client asked for a WebSocket, and gets this instead."""
    if upgrade:
        headers = [(b"content-type", JSON)]
        await send_({"type": "websocket.http.response.start", "status": error.code, "headers": headers})
        await send_({"type": "websocket.http.response.body", "body": orjson.dumps(error.to_status())})
        return
    after = error.details.get("retryAfterSeconds")
    headers = [(b"retry-after", b"%d" % after)] if after else []
    await send(send_, error.code, orjson.dumps(error.to_status()), close=close, extra=headers)


def success(resource: Resource, name: str, uid: str = "", code: int = 200) -> bytes:
    """The Status of a deed that has no object to show."""
    details: dict[str, Any] = {"name": name, "kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    if uid:
        details["uid"] = uid
    status: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
    if code != 200:
        status["code"] = code
    return orjson.dumps(status)
