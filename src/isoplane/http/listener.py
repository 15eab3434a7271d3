"""The listening socket, its TLS and the end of it all: uvicorn's protocol without uvicorn's process management."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ssl
from typing import Any

import uvicorn

from isoplane.http.acceptor import Acceptor, listening_sockets
from isoplane.http.protocol import ApiProtocol, ApiWebSocket, Connections

MESSAGE_BYTES = 1 << 20
"""The largest message of a WebSocket: one is held for each command whose input is not taken; kubectl sends 32 KiB."""
_KEEP_ALIVE_SECONDS = 120


class ListenError(Exception):
    """The address cannot be listened on; the message says which and why."""


class Listener:
    """Serves an ASGI app on one address."""

    def __init__(self, app: Any, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._context = context
        self._config = uvicorn.Config(
            app,
            http=ApiProtocol,
            ws=ApiWebSocket,
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._state = Connections()
        self._acceptor: Acceptor | None = None

    async def start(self) -> None:
        """Listen. Raises ListenError when the address is taken or not ours."""
        self._config.load()
        loop = asyncio.get_running_loop()

        def protocol() -> ApiProtocol:
            return ApiProtocol(config=self._config, server_state=self._state, app_state={}, _loop=loop)

        try:
            sockets = await listening_sockets(self._host, self._port)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            if error.errno == errno.EADDRINUSE:
                raise ListenError(f"{where} is already in use; choose another with --listen HOST:PORT") from error
            raise ListenError(f"cannot listen on {where}: {error.strerror or error}") from error
        self._acceptor = Acceptor(sockets, protocol, self._context)

    @property
    def port(self) -> int:
        """The port, also when 0 was asked for."""
        assert self._acceptor is not None
        return int(self._acceptor.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        return len(self._state.connections)

    async def stop(self, grace_seconds: float = 2.0) -> None:
        """Stop accepting, let running requests finish for a moment, then close what is left."""
        if self._acceptor is None:
            return
        await self._acceptor.close()
        for connection in list(self._state.connections):
            with contextlib.suppress(Exception):
                connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=grace_seconds)
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=grace_seconds)
        self._acceptor = None
