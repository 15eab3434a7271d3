"""QMP, QEMU's machine protocol: one connection, requests answered by number, events handed to a callback.

Written here, although the qemu.qmp package exists, because a plane keeps one connection a machine for as long as both
live: this one is a bare asyncio protocol without tasks, and losing the guest is an ordinary ``QmpClosed`` for everybody
who waits.  bench/vm_start.py has the figures of both.  Source: docs/interop/qmp-spec.txt of QEMU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from isoplane.client.sockets import short

EventCallback = Callable[[str, Mapping[str, Any]], None]
_LONGEST_LINE = 16 * 2**20


class QmpError(Exception):
    """The machine refused a command; the message is QEMU's own."""


class QmpClosed(QmpError):
    """The connection is gone, usually together with its QEMU."""


class Qmp(asyncio.Protocol):
    """A negotiated connection. Make one with ``connect``; ``closed`` completes when it ends, whoever ended it."""

    def __init__(self, on_event: EventCallback) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._on_event = on_event
        self._greeting: asyncio.Future[None] = loop.create_future()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, path: Path, on_event: EventCallback, *, timeout: float = 5) -> Qmp:
        """Connect and negotiate. Raises QmpClosed when nobody listens or answers within ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        qmp: Qmp | None = None
        try:
            with short(path) as address:
                async with asyncio.timeout(timeout):
                    _, qmp = await loop.create_unix_connection(lambda: cls(on_event), address)
                    await qmp._greeting
                    await qmp.execute("qmp_capabilities")
                    return qmp
        except (OSError, TimeoutError) as error:
            if qmp is not None:
                qmp.close()
            raise QmpClosed(f"no monitor at {path}: {error or 'no answer'}") from error

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, timeout: float = 10) -> Any:
        """Run a command and return its value. Raises QmpError, or QmpClosed when the machine is gone or does not answer."""
        if self._transport is None or self.closed.done():
            raise QmpClosed("the machine's monitor is closed")
        self._last += 1
        number = self._last
        request: dict[str, Any] = {"execute": command, "id": number}
        if arguments:
            request["arguments"] = arguments
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._transport.write(orjson.dumps(request) + b"\n")
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise QmpClosed(f"the machine did not answer {command} in {timeout:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """Let go of the connection; the machine runs on."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        for line in lines:
            try:
                self._message(orjson.loads(line))
            except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
                self.close()
                return
        if len(rest) > _LONGEST_LINE:
            self.close()

    def _message(self, message: Mapping[str, Any]) -> None:
        if "event" in message:
            self._on_event(message["event"], message.get("data") or {})
        elif "QMP" in message:
            if not self._greeting.done():
                self._greeting.set_result(None)
        elif (answer := self._waiting.get(message.get("id", 0))) and not answer.done():
            if "error" in message:
                answer.set_exception(QmpError(message["error"]["desc"]))
            else:
                answer.set_result(message["return"])

    def connection_lost(self, error: Exception | None) -> None:
        gone = QmpClosed("the machine closed its monitor")
        for waiting in (self._greeting, *self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # whoever waits gets it; nobody need be
        if not self.closed.done():
            self.closed.set_result(None)
