"""The plane's control socket in the data directory: what is asked of the process itself, not of the API.

One JSON line asks, one answers: ``{"backup": PATH}`` → ``{"done": …}`` or ``{"error": …}``.  Whoever may open the socket
(mode 0600) may read the data directory anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from isoplane.client.sockets import short
from isoplane.store import Store
from isoplane.store.errors import StoreError

SOCKET = "control.sock"
LINE = 16 << 10
"""Bytes that a question may have."""
_ASK_SECONDS = 10.0
_CONNECTIONS = 8


class ControlRefused(Exception):
    """The plane does not answer, or says no. The message says why."""


class Control:
    """Answers between :meth:`start` and :meth:`stop`."""

    def __init__(self, directory: Path, store: Store) -> None:
        self._path = directory / SOCKET
        self._store = store
        self._server: asyncio.Server | None = None
        self._asking: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. The caller holds the directory's lock, so a socket that is there is left over."""
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # Before it has a name: there is no moment at which others could connect.
            os.fchmod(listening.fileno(), 0o600)
            with short(self._path) as address:
                listening.bind(address)
            self._server = await asyncio.start_unix_server(self._connected, sock=listening, limit=LINE)
        except BaseException:
            listening.close()
            raise

    async def stop(self) -> None:
        """Stop listening, and let what is under way come to its end."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._path.unlink(missing_ok=True)
        if self._asking:
            await asyncio.wait(set(self._asking))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._asking.add(task)
        try:
            if len(self._asking) > _CONNECTIONS:
                answer: dict[str, Any] = {"error": "the plane is asked too much at once; try again"}
            else:
                answer = await self._answer(reader)
            with contextlib.suppress(OSError):
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        finally:
            self._asking.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                question = json.loads(await reader.readline())
            target = Path(question["backup"])
        except (ValueError, KeyError, TypeError, TimeoutError, OSError):
            return {"error": 'not understood; write one line: {"backup": "/absolute/path"}'}
        if not target.is_absolute():
            return {"error": f"{target} is no absolute path"}
        try:
            return {"done": (await self._store.back_up(target)).to_json()}
        except StoreError as error:
            return {"error": str(error)}


def ask_for_backup(directory: Path, target: Path) -> dict[str, Any]:
    """Have the plane that runs on ``directory`` write a backup to ``target``. Raises ControlRefused."""
    try:
        with short(directory / SOCKET) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(address)
            connection.sendall(json.dumps({"backup": str(target)}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline() or b"{}")
    except (OSError, ValueError) as error:
        raise ControlRefused(
            f"what runs on {directory} does not answer at {directory / SOCKET}: {error}. It may still be starting; "
            "or stop it, and back up then"
        ) from error
    if "done" not in answer:
        raise ControlRefused(str(answer.get("error", f"the plane on {directory} ended before the backup was made")))
    done: dict[str, Any] = answer["done"]
    return done
