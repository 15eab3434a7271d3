"""One connection: who is at the other end of the TLS, and how long it may take.

uvicorn's HTTP protocol knows neither the client's certificate nor any limit on slow senders and readers; both are added
here, at no cost to a well-behaved request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from isoplane import memory
from isoplane.http.app import App
from isoplane.http.peer import of_connection
from isoplane.http.scope import AUTHENTICATED, CERTIFICATE, LOST
from isoplane.http.wire import write_whole

HEADER_SECONDS = 10.0
"""From the first byte of a request (or the connection) to the end of its headers."""
STALLED_SECONDS = 60.0
"""How long a client may leave a response unread before the connection is dropped."""
BODY_SECONDS = 30.0
"""From the end of the headers to the end of the body."""
HEADER_BYTES = 64 * 1024
UNREAD_BYTES = 128 * 1024 * 1024
"""What all connections together may hold that their clients have not read; beyond it the fullest is dropped."""
FULL_BYTES = 32 * 1024
"""What one connection may hold before whoever writes to it waits; TLS by itself would take half a megabyte."""
ANONYMOUS = 256
"""Connections at once without a client certificate on which no request has proven who asks, either."""
ANONYMOUS_SECONDS = 60.0
"""How long such a connection may live: what it may ask for is answered soon."""
ENDED = 64
"""Connections that end before the memory they held is given back to the system: fewer cannot have held much."""
GIVE_BACK_SECONDS = 2.0
"""How long after them, so that a burst of ends is followed by one giving back."""
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 138\r\n\r\n"
    b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the request came too slowly",'
    b'"reason":"Timeout","code":408}'
)
_JSON_HEAD = b"content-type: application/json\r\n"


def _nothing() -> None: ...


class Connections(ServerState):
    """What the connections of one listener share: how many are nobody's, and which are not read."""

    def __init__(self) -> None:
        super().__init__()
        self.anonymous = 0
        self.unread: set[ApiProtocol] = set()
        self.given_back = 0
        """How often memory was given back."""
        self._ended = 0

    def one_ended(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give memory back once many connections have ended."""
        self._ended += 1
        if self._ended == ENDED:
            loop.call_later(GIVE_BACK_SECONDS, self._give_back, loop)

    def _give_back(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ended = 0
        self.given_back += 1
        loop.run_in_executor(None, memory.give_back)

    def relieve(self) -> None:
        """Drop the fullest connections while all together hold too much."""
        sizes = {one: one.transport.get_write_buffer_size() for one in self.unread}
        total = sum(sizes.values())
        for one in sorted(sizes, key=lambda each: sizes[each], reverse=True):
            if total <= UNREAD_BYTES:
                return
            total -= sizes[one]
            self.unread.discard(one)
            one.transport.abort()


class ApiProtocol(HttpToolsProtocol):
    """Adds to the scope the client's certificate and where to register for the end of the connection (``http.scope``)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        assert isinstance(self.server_state, Connections)
        transport.set_write_buffer_limits(high=FULL_BYTES)
        self._shared = self.server_state
        self._certificate = of_connection(transport.get_extra_info("ssl_object"))
        self._guard: asyncio.TimerHandle | None = self.loop.call_later(HEADER_SECONDS, self._too_slow)
        self._stalled: asyncio.TimerHandle | None = None
        self._in_headers = True
        self._header_bytes = 0
        self._lost_callbacks: list[Callable[[], object]] = []
        self._lifetime: asyncio.TimerHandle | None = None
        if self._certificate is None:
            self._shared.anonymous += 1
            self._lifetime = self.loop.call_later(ANONYMOUS_SECONDS, self._expire)
            if self._shared.anonymous > ANONYMOUS:
                transport.abort()

    def handle_websocket_upgrade(self) -> None:
        # From here on the WebSocket's own keep-alive watches over the connection.
        self._release_guard()
        super().handle_websocket_upgrade()
        upgraded = self.transport.get_protocol()
        assert isinstance(upgraded, ApiWebSocket)
        upgraded.ended = self._is_known
        if upgraded.response.status_code == 101:
            # The application's task starts after this; it finds in its scope what plain requests have in theirs.
            extra: dict[str, Any] = upgraded.scope  # type: ignore[assignment]
            extra[CERTIFICATE], extra[AUTHENTICATED] = self._certificate, self._is_known

    def connection_lost(self, exc: Exception | None) -> None:
        self._release_guard()
        self._is_known()
        self._shared.unread.discard(self)
        self._shared.one_ended(self.loop)
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)
        for callback in self._lost_callbacks:
            callback()
        self._lost_callbacks.clear()

    def _is_known(self) -> None:
        """It is nobody's connection no longer: a request on it has proven whose it is, or it has ended."""
        if self._lifetime is not None:
            self._lifetime.cancel()
            self._lifetime = None
            self._shared.anonymous -= 1

    def _expire(self) -> None:
        """A nobody's time is over; what is being answered is answered first."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._drop()
            return
        cycle.keep_alive = False
        self._lifetime = self.loop.call_later(BODY_SECONDS, self._drop)

    def _drop(self) -> None:
        self.transport.abort()

    def _too_slow(self) -> None:
        """Say why before hanging up, if nothing was said yet."""
        cycle = self.cycle
        if not self.transport.is_closing() and (cycle is None or cycle.response_complete or not cycle.response_started):
            self.transport.write(_TOO_SLOW)
        self.transport.close()

    def _release_guard(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A request that came whole leaves nothing to guard; only one cut inside its headers or its body does.
        if self._guard is None and self.parser is not None:
            cycle = self.cycle
            idle = cycle is None or cycle.response_complete
            if self._in_headers or (idle and self.timeout_keep_alive_task is None):
                self._guard = self.loop.call_later(HEADER_SECONDS, self._too_slow)
            elif not idle and cycle.more_body:
                self._guard = self.loop.call_later(BODY_SECONDS, self._too_slow)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0
        extra: dict[str, Any] = self.scope  # type: ignore[assignment]
        extra[CERTIFICATE] = self._certificate
        extra[LOST] = self._lost_callbacks.append
        if self._certificate is None:
            extra[AUTHENTICATED] = self._is_known

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > HEADER_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._release_guard()
        self._lost_callbacks.clear()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer at once what needs neither the body nor any waiting; a task is made for everything else."""
        body = app.quick(cycle.scope) if isinstance(app, App) else None
        if body is not None and write_whole(cycle.send, 200, _JSON_HEAD, body):
            cycle.on_response = _nothing
            app.quick_sent()
            return
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._release_guard()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_SECONDS, self._drop)
        self._shared.unread.add(self)
        self._shared.relieve()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._shared.unread.discard(self)
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class ApiWebSocket(WebSocketsSansIOProtocol):
    """A connection that was upgraded: its end is told to the one that it was."""

    ended: Callable[[], None] = staticmethod(_nothing)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended()
