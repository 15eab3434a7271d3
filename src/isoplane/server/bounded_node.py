"""Logs and commands of a node, so many at a time: each holds a connection, descriptors and buffers, a command a process too.

Stands between the API and whatever node is attached.  One that is too many is refused before anything is started for it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from isoplane.client.streams import ExecOptions, ExecSession, LogOptions, NodeBackend
from isoplane.objects.errors import TooManyRequests
from isoplane.objects.kinds import Resource

COMMANDS = 128
"""Commands at once, of all clients together."""
LOGS = 512
"""Logs being read at once, followed or not."""


class BoundedNode:
    """Raises TooManyRequests, else what the node behind it raises."""

    def __init__(self, node: NodeBackend) -> None:
        self._node = node
        self.commands = 0
        self.logs_read = 0

    async def logs(
        self, resource: Resource, namespace: str, name: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        if self.logs_read >= LOGS:
            raise _too_many(f"{LOGS} logs are being read")
        self.logs_read += 1
        try:
            async with aclosing(self._node.logs(resource, namespace, name, options)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self.logs_read -= 1

    def check_exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> None:
        self._node.check_exec(resource, namespace, name, options)

    async def exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> ExecSession:
        if self.commands >= COMMANDS:
            raise _too_many(f"{COMMANDS} commands run")
        self.commands += 1
        try:
            session = await self._node.exec(resource, namespace, name, options)
        except BaseException:
            self.commands -= 1
            raise
        return _Counted(session, self._ended)

    def _ended(self) -> None:
        self.commands -= 1


class _Counted:
    """A command that tells once that it is let go of."""

    def __init__(self, session: ExecSession, ended: Callable[[], None]) -> None:
        self._session = session
        self._ended: Callable[[], None] | None = ended

    async def write_stdin(self, data: bytes) -> None:
        await self._session.write_stdin(data)

    async def close_stdin(self) -> None:
        await self._session.close_stdin()

    async def resize(self, width: int, height: int) -> None:
        await self._session.resize(width, height)

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        return self._session.output()

    async def wait(self) -> int:
        return await self._session.wait()

    async def close(self) -> None:
        try:
            await self._session.close()
        finally:
            if self._ended is not None:
                self._ended()
                self._ended = None


def _too_many(what: str) -> TooManyRequests:
    return TooManyRequests(f"{what} on this node, as many as may at once: end one, or try again later")
