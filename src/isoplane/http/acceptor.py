"""Connections from the first packet to the end of their TLS handshake: few at a time, each for a short time.

Until its handshake is over, a connection is nobody's and costs a TLS state all the same.  So they are accepted here, one by
one, and counted; when there are too many, the one that has been at it for longest goes.  A client that means it needs
milliseconds, and is not kept out by any number of others that say nothing.  From then on ``protocol`` watches over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

HANDSHAKES = 256
"""Handshakes at once."""
HANDSHAKE_SECONDS = 10.0
_BACKLOG = 2048
_NO_DESCRIPTORS_SECONDS = 0.1


async def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of ``host``. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            made.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(_BACKLOG)
    except BaseException:
        for one in made:
            one.close()
        raise
    return made


class Acceptor:
    """Accepts on listening sockets, and hands what has finished its handshake to a protocol."""

    def __init__(
        self, sockets: list[socket.socket], protocol: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None
    ) -> None:
        self.sockets = sockets
        self._protocol = protocol
        self._context = context
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}
        """In the order in which they began."""
        self._tasks = [asyncio.create_task(self._accept(one), name="accept") for one in sockets]

    async def close(self) -> None:
        """Accept no more, and end what is in its handshake."""
        tasks = [*self._tasks, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in self.sockets:
            one.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError:
                # No descriptor is left, or the client went meanwhile: those that are connected go on.
                await asyncio.sleep(_NO_DESCRIPTORS_SECONDS)
                continue
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._handshake(connection), name="handshake")
            self._handshakes[task] = connection
            task.add_done_callback(self._ended)
            if len(self._handshakes) > HANDSHAKES:
                oldest = self._handshakes.pop(next(iter(self._handshakes)))
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # its handshake fails, and with it its task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)

    async def _handshake(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._context else None,
            )
        except OSError:
            connection.close()  # it does not speak TLS, was too slow, or went
        except BaseException:
            connection.close()
            raise
