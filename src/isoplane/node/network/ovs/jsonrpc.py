"""One call over a unix socket, as OVSDB (RFC 7047) and the daemons' control sockets (unixctl) understand it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from isoplane.node.network.protocol import FabricFailure

_LONGEST_SOCKET_PATH = 107


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A stream to a unix socket, however long its path is."""
    directory = -1
    name = str(path)
    try:
        if len(os.fsencode(name)) > _LONGEST_SOCKET_PATH:
            directory = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
            name = f"/proc/self/fd/{directory}/{path.name}"
        reader, writer = await asyncio.open_unix_connection(name, limit=1 << 20)
    finally:
        if directory >= 0:
            os.close(directory)
    try:
        yield reader, writer
    finally:
        writer.close()


async def call(
    path: Path,
    method: str,
    parameters: Sequence[Any],
    timeout: float = 10,
    meanwhile: Callable[[], Awaitable[object]] | None = None,
) -> Any:
    """The result. FabricFailure when nobody answers there, or the answer is an error. ``timeout`` in seconds.

    ``meanwhile`` begins once the question is sent, so that a daemon reads it before whatever is asked then.
    """
    request = json.dumps({"method": method, "params": list(parameters), "id": 1}).encode()
    try:
        async with asyncio.timeout(timeout), connect(path) as (reader, writer):
            writer.write(request)
            if meanwhile is not None:
                await writer.drain()
                await meanwhile()
            answer = await _answer(reader, writer)
    except TimeoutError:
        raise FabricFailure(f"no answer from {path} to {method} within {timeout:g} s") from None
    except (OSError, ValueError) as error:
        raise FabricFailure(f"{path}: {method}: {error}") from error
    if answer.get("error") is not None:
        raise FabricFailure(f"{path}: {method} {' '.join(map(str, parameters))[:200]}: {str(answer['error']).strip()}")
    return answer.get("result")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, Any]:
    decoder, buffer = json.JSONDecoder(), bytearray()
    while True:
        chunk = await reader.read(1 << 20)
        if not chunk:
            raise ConnectionResetError("the daemon hung up in mid-answer")
        buffer += chunk
        if not buffer.rstrip().endswith(b"}"):
            continue
        text, at = buffer.decode(errors="replace"), 0
        try:
            while at < len(text):
                message, at = decoder.raw_decode(text, at)
                if message.get("id") == 1 and "method" not in message:
                    return dict(message)
                if message.get("method") == "echo":
                    echo = {"result": message["params"], "error": None, "id": message["id"]}
                    writer.write(json.dumps(echo).encode())
        except json.JSONDecodeError:
            continue
        buffer.clear()
