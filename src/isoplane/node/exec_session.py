"""A command inside a unit, as the API server's exec speaks of it: input, two outputs, a size, an exit code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Protocol

STDOUT, STDERR = 1, 2
CHUNK = 65536
_AFTER_END = 0.2
"""Seconds that output may still trickle in once the command has ended; a background child may hold the pipes for ever."""


class Process(Protocol):
    """What a runtime hands out: non-blocking descriptors (-1: none), one terminal for all three with ``tty``."""

    stdin: int
    stdout: int
    stderr: int

    async def wait(self) -> int: ...

    def resize(self, rows: int, columns: int) -> None: ...

    def close_stdin(self) -> None: ...

    def close(self) -> None: ...


class DescriptorSession:
    """Implements ``server.node_backend.ExecSession`` over a process's descriptors."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(64)
        self._readers = [asyncio.ensure_future(self._read(channel, fd)) for channel, fd in self._outputs(process)]
        self._ended = asyncio.ensure_future(self._finish())

    @staticmethod
    def _outputs(process: Process) -> list[tuple[int, int]]:
        found = [(STDOUT, process.stdout)] if process.stdout >= 0 else []
        if process.stderr >= 0 and process.stderr != process.stdout:
            found.append((STDERR, process.stderr))
        return found

    async def write_stdin(self, data: bytes) -> None:
        """Everything is written before it returns; a command that reads no more loses the rest."""
        rest = memoryview(data)
        while rest and self._process.stdin >= 0:
            try:
                rest = rest[os.write(self._process.stdin, rest) :]
            except BlockingIOError:
                await self._ready(self._process.stdin, write=True)
            except OSError:
                return

    async def close_stdin(self) -> None:
        self._process.close_stdin()

    async def resize(self, width: int, height: int) -> None:
        self._process.resize(height, width)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (piece := await self._queue.get()) is not None:
            yield piece

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        self._ended.cancel()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(self._ended, *self._readers, return_exceptions=True)
        self._process.close()

    async def _finish(self) -> int:
        code = await self._process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_AFTER_END):
                await asyncio.gather(*self._readers)
        for reader in self._readers:
            reader.cancel()
        await self._queue.put(None)
        return code

    async def _read(self, channel: int, fd: int) -> None:
        while True:
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                await self._ready(fd, write=False)
                continue
            except OSError:
                return  # a terminal whose other end is closed
            if not data:
                return
            await self._queue.put((channel, data))

    @staticmethod
    async def _ready(fd: int, *, write: bool) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)

        def fired() -> None:
            if not ready.done():
                ready.set_result(None)

        add(fd, fired)
        try:
            await ready
        finally:
            remove(fd)
