"""Request bodies, bounded in size; the protocol bounds them in time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from isoplane.objects.errors import TooLarge

LIMIT = 3 * 1024 * 1024

Receive = Callable[[], Awaitable[Mapping[str, Any]]]


class Disconnected(Exception):
    """The client left before its request was complete; there is nobody to answer."""


async def read(receive: Receive, length: bytes | None) -> bytes:
    """The whole body. Raises TooLarge (over 3 MiB) or Disconnected."""
    if length is not None and length.isdigit() and int(length) > LIMIT:
        raise _too_large()
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        piece: bytes = message.get("body", b"")
        if not pieces and not message.get("more_body"):
            return piece
        pieces.append(piece)
        size += len(piece)
        if size > LIMIT:
            raise _too_large()
        if not message.get("more_body"):
            return b"".join(pieces)


def _too_large() -> TooLarge:
    return TooLarge(f"the request is larger than {LIMIT} bytes (3 MiB)")
