"""Answers that last: a log, a watch. Sent as they come, until they end or the client leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import orjson

from isoplane.http import reply
from isoplane.http.representation import Representation
from isoplane.http.request import Request
from isoplane.http.watch import Step, groups
from isoplane.http.wire import write_piece
from isoplane.objects.errors import ApiError

_log = logging.getLogger(__name__)


async def stream(
    request: Request, pieces: AsyncGenerator[bytes, None], *, content_type: bytes = reply.JSON, at_once: bool = True
) -> None:
    """``at_once``: the head goes out before the first piece is there. Else what is raised before it is the answer.

    What goes wrong later breaks the connection off: the client must not take what it has for the whole.
    """
    task = asyncio.current_task()
    gone = started = False

    def lost() -> None:
        nonlocal gone
        gone = True
        if task is not None:
            task.cancel()

    async def begin() -> None:
        nonlocal started
        started = True
        await request.send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
        # Now, and not with the first piece: a client must not wait for it to know that its stream stands.
        await request.send({"type": "http.response.body", "body": b"", "more_body": True})

    request.on_lost(lost)
    try:
        async with aclosing(pieces):
            if at_once:
                await begin()
            async for piece in pieces:
                if not started:
                    await begin()
                if piece and not write_piece(request.send, piece):
                    await request.send({"type": "http.response.body", "body": piece, "more_body": True})
    except asyncio.CancelledError:
        if not gone:
            raise
        return
    except ApiError as error:
        if not started:
            raise
        _log.warning("%s %s broke off: %s", request.method, request.path, error.message)
        return
    if started:
        await request.send({"type": "http.response.body", "body": b""})
    else:
        await request.answer(200, b"", content_type=content_type)


async def watch(request: Request, form: Representation, steps: AsyncGenerator[Sequence[Step], None]) -> None:
    """Send a watch until its time is over or the client leaves; what ends it is its last event.

    However many steps come at once, a connection that is not read holds one group of them.
    """
    await stream(request, _lines(form, steps))


async def _lines(form: Representation, steps: AsyncGenerator[Sequence[Step], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(steps):
        try:
            async for some in steps:
                for group in groups(some):
                    yield form.lines(group)
        except ApiError as error:
            yield orjson.dumps({"type": "ERROR", "object": error.to_status()}) + b"\n"
