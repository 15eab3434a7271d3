"""The QEMU guest agent: a ping, and commands run inside the guest, for probes.

A machine has the agent's channel (org.qemu.guest_agent.0) when one of its probes needs it; that an agent answers there is
the guest's affair.  The channel serves one client at a time, hence the ``turn`` that callers share.
Every question opens it anew and begins with a handshake that throws away what an earlier,
abandoned question left behind.  Source: docs/interop/qemu-ga-ref of QEMU.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from isoplane.client.sockets import short
from isoplane.node.runtime.protocol import ExecResult, RuntimeFailure, RuntimeReason

_POLL = 0.05
_MARK = b"\xff"
"""A byte no JSON has: the agent resets its parser at it, and puts it before the answer to the handshake."""
_numbers = itertools.count(1)


async def ping(socket: Path, turn: asyncio.Lock, timeout: float) -> None:
    """Return if the agent answers within ``timeout`` seconds. Raises RuntimeFailure saying what is missing."""
    async with _channel(socket, turn, timeout) as agent:
        await agent.ask("guest-ping")


async def execute(socket: Path, turn: asyncio.Lock, command: Sequence[str], timeout: float) -> ExecResult:
    """Run a command in the guest and wait for it. Raises RuntimeFailure when it cannot run or does not end in time."""
    async with _channel(socket, turn, timeout) as agent:
        arguments = {"path": command[0], "arg": list(command[1:]), "capture-output": True}
        pid = (await agent.ask("guest-exec", arguments))["pid"]
        while True:
            status = await agent.ask("guest-exec-status", {"pid": pid})
            if status["exited"]:
                break
            await asyncio.sleep(_POLL)
    output = b"".join(base64.b64decode(status.get(stream, "")) for stream in ("out-data", "err-data"))
    return ExecResult(128 + status["signal"] if "signal" in status else status.get("exitcode", 0), output)


@asynccontextmanager
async def _channel(socket: Path, turn: asyncio.Lock, timeout: float) -> AsyncIterator[_Agent]:
    """An opened channel. All that happens inside the block is bounded by ``timeout`` seconds."""
    try:
        async with asyncio.timeout(timeout), turn:
            with short(socket) as address:
                reader, writer = await asyncio.open_unix_connection(address)
            try:
                agent = _Agent(reader, writer)
                await agent.handshake()
                yield agent
            finally:
                writer.close()
    except TimeoutError:
        message = f"the guest agent did not answer within {timeout:g} s: does qemu-guest-agent run in the guest?"
        raise RuntimeFailure(RuntimeReason.RUN, message) from None
    except (FileNotFoundError, ConnectionRefusedError) as error:
        message = (
            "no guest agent: a machine has its channel when it runs and one of its probes is exec or guestAgentPing"
        )
        raise RuntimeFailure(RuntimeReason.RUN, message) from error
    except (OSError, EOFError, orjson.JSONDecodeError) as error:
        raise RuntimeFailure(RuntimeReason.RUN, f"the guest agent's channel broke: {error}") from error


class _Agent:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def handshake(self) -> None:
        number = next(_numbers)
        self._writer.write(_MARK)
        self._send("guest-sync-delimited", {"id": number})
        while True:
            await self._reader.readuntil(_MARK)
            if orjson.loads(await self._reader.readline()).get("return") == number:
                return

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Send one command and wait for its answer. Raises RuntimeFailure when the guest refuses."""
        self._send(command, arguments)
        line = await self._reader.readline()
        if not line:
            raise EOFError("closed by QEMU")
        answer = orjson.loads(line)
        if "error" in answer:
            raise RuntimeFailure(RuntimeReason.RUN, f"the guest agent refused {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def _send(self, command: str, arguments: Mapping[str, Any] | None) -> None:
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._writer.write(orjson.dumps(request) + b"\n")
