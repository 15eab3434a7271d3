"""One HTTP request as the handlers see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from isoplane.http import body, query, reply
from isoplane.http.body import Receive
from isoplane.http.negotiation import Media, accepted
from isoplane.http.reply import Send
from isoplane.http.request_info import RequestInfo
from isoplane.http.request_options import Call
from isoplane.http.scope import LOST, Scope
from isoplane.http.user import User
from isoplane.objects.decode import decode_body
from isoplane.objects.metadata import Object

T = TypeVar("T")
LARGE = 128 * 1024
"""Bodies from this size on are decoded beside the event loop, which answers others meanwhile."""


async def aside(work: Callable[[], T], size: int) -> T:
    """Do work on a body, on the loop or beside it."""
    return await asyncio.to_thread(work) if size > LARGE else work()


class Request:
    """Method, path, query, headers, and the body on demand."""

    __slots__ = ("_headers", "_query", "info", "method", "path", "receive", "scope", "send", "status", "user")

    def __init__(self, scope: Scope, receive: Receive, send: Send, user: User, info: RequestInfo) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.user = user
        self.info = info
        self.status = 200
        """What was answered, for metrics; a stream begins with 200."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._query: query.Query | None = None
        self._headers: dict[bytes, bytes] | None = None

    @property
    def query(self) -> query.Query:
        if self._query is None:
            self._query = query.parse(self.scope["query_string"])
        return self._query

    def header(self, name: bytes) -> bytes | None:
        if self._headers is None:
            self._headers = dict(reversed(self.scope["headers"]))
        return self._headers.get(name)

    def all_headers(self, name: bytes) -> str:
        """A header that may be given in several lines, joined."""
        return ",".join(value.decode("latin-1") for key, value in self.scope["headers"] if key == name)

    @property
    def content_type(self) -> str:
        return (self.header(b"content-type") or b"").decode("latin-1")

    def media(self) -> Media:
        return accepted(self.all_headers(b"accept"))

    async def answer(
        self, status: int, data: bytes, *, content_type: bytes = reply.JSON, warnings: Sequence[str] = ()
    ) -> None:
        """Send the whole response."""
        self.status = status
        await reply.send(self.send, status, data, content_type=content_type, warnings=warnings)

    async def raw(self) -> bytes:
        return await body.read(self.receive, self.header(b"content-length"))

    async def decoded(self, call: Call, *, optional: bool = False) -> Object:
        """The decoded body; repeated fields are noted in ``call``. ``optional``: an empty body is {}.

        Raises BadRequest, TooLarge, UnsupportedMediaType.
        """
        raw = await self.raw()
        if not raw and optional:
            return {}
        work = partial(decode_body, self.content_type, raw, duplicates=call.field_validation != "Ignore")
        obj, repeated = await aside(work, len(raw))
        call.repeated.extend(repeated)
        return obj

    def call(self) -> Call:
        return Call(
            self.user,
            query.dry_run(self.query),
            query.field_validation(self.query),
            manager=query.field_manager(self.query) or self._agent(),
            force=query.boolean(self.query, "force"),
        )

    def _agent(self) -> str:
        """The program's name, as its User-Agent has it: who writes when no field manager is named."""
        agent = (self.header(b"user-agent") or b"").decode("latin-1").partition("/")[0]
        return "".join(c for c in agent if c.isprintable())[:128] or "unknown"

    def on_lost(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the connection ends before the response does."""
        register = self.scope.get(LOST)
        if register is not None:
            register(callback)
