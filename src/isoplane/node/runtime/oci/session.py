"""A command in a container as the API server wants it: input, output and terminal size, without ever blocking the loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from isoplane.node.runtime.oci.execute import Execution

STDOUT, STDERR = 1, 2
_PIECE = 1 << 15
_BACKLOG = 16
"""Pieces read ahead of a slow client: more, and the command waits."""
_LINGER = 0.3
"""Seconds to read on after the command ended, for what its background children keep open."""


class ExecSession:
    """One running command for one client; implements ``server.node_backend.ExecSession``."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._loop = asyncio.get_running_loop()
        self._exit = asyncio.ensure_future(execution.wait())

    async def write_stdin(self, data: bytes) -> None:
        """Hand input on; what a command that has ended did not read is dropped."""
        view = memoryview(data)
        while view and self._execution.stdin >= 0:
            try:
                view = view[os.write(self._execution.stdin, view) :]
            except BlockingIOError:
                if not await self._writable():
                    return
            except OSError:
                return

    async def close_stdin(self) -> None:
        self._execution.close_stdin()

    async def resize(self, width: int, height: int) -> None:
        self._execution.resize(height, width)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1 stdout or 2 stderr, data) until both are closed, or the command has ended and nothing more comes."""
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(_BACKLOG)
        channels = {self._execution.stdout: STDOUT, self._execution.stderr: STDERR}
        readers = [asyncio.create_task(self._read(fd, channel, queue)) for fd, channel in channels.items() if fd >= 0]
        ended = asyncio.create_task(self._ended(readers))
        try:
            while not (ended.done() and queue.empty()):
                item = asyncio.ensure_future(queue.get())
                await asyncio.wait({item, ended}, return_when=asyncio.FIRST_COMPLETED)
                if item.done():
                    yield item.result()
                else:
                    item.cancel()
        finally:
            for task in (*readers, ended):
                task.cancel()
            await asyncio.gather(*readers, ended, return_exceptions=True)

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """Kill the command if it still runs, and let go of it."""
        if not self._exit.done():
            self._execution.kill()
            await asyncio.wait({self._exit}, timeout=2.0)
        self._exit.cancel()
        await asyncio.to_thread(self._execution.close)

    async def _ended(self, readers: list[asyncio.Task[None]]) -> None:
        """Both streams at their end; or the command at its end, and a moment later."""
        left: set[asyncio.Future[Any]] = set(readers)
        while left and not self._exit.done():
            await asyncio.wait({*left, self._exit}, return_when=asyncio.FIRST_COMPLETED)
            left = {reader for reader in left if not reader.done()}
        if left:
            await asyncio.wait(left, timeout=_LINGER)

    async def _read(self, fd: int, channel: int, queue: asyncio.Queue[tuple[int, bytes]]) -> None:
        while True:
            try:
                data = os.read(fd, _PIECE)
            except BlockingIOError:
                await self._readable(fd)
                continue
            except OSError:
                return  # the other end of a terminal is gone
            if not data:
                return
            await queue.put((channel, data))

    async def _readable(self, fd: int) -> None:
        ready = asyncio.Event()
        self._loop.add_reader(fd, ready.set)
        try:
            await ready.wait()
        finally:
            self._loop.remove_reader(fd)

    async def _writable(self) -> bool:
        """Wait until input can be taken; False once the command has ended."""
        fd, ready = self._execution.stdin, asyncio.Event()
        # A terminal is one descriptor for both directions, and a loop has one reader and one writer for each.
        self._loop.add_writer(fd, ready.set)
        waiting = asyncio.ensure_future(ready.wait())
        try:
            await asyncio.wait({waiting, self._exit}, return_when=asyncio.FIRST_COMPLETED)
            return waiting.done()
        finally:
            waiting.cancel()
            self._loop.remove_writer(fd)
