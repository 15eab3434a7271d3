"""Commands inside a workload over a WebSocket, as kubectl speaks it (v5.channel.k8s.io, v4 without half-close).

Every binary message begins with its channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 terminal size; in v5 a
message 255 closes the channel it names.  Source: apimachinery pkg/util/remotecommand, apiserver pkg/util/wsstream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from isoplane.client.streams import ExecOptions, ExecSession, NodeBackend
from isoplane.http import query
from isoplane.http.body import Receive
from isoplane.http.reply import Send
from isoplane.objects.errors import ApiError, BadRequest, Internal
from isoplane.store.record import Record

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _ERROR, _RESIZE, _CLOSE = 0, 1, 3, 4, 255


def read_options(raw: bytes) -> ExecOptions:
    """PodExecOptions from the query string. Raises BadRequest."""
    asked = query.parse(raw)
    command = query.repeated(raw, "command")
    if not command:
        raise BadRequest("exec: a command is required")
    stdout, stderr = query.boolean(asked, "stdout"), query.boolean(asked, "stderr")
    tty = query.boolean(asked, "tty")
    if not (stdout or stderr or query.boolean(asked, "stdin")):
        raise BadRequest("exec: at least one of stdin, stdout and stderr must be asked for")
    return ExecOptions(
        command, asked.get("container", ""), query.boolean(asked, "stdin"), stdout, stderr and not tty, tty
    )


async def serve(scope: Mapping[str, Any], receive: Receive, send: Send, node: NodeBackend, record: Record) -> None:
    """Run one command for one client. Raises ApiError before the upgrade is accepted."""
    protocol = next((p for p in PROTOCOLS if p in scope["subprotocols"]), None)
    if protocol is None:
        raise BadRequest(f"exec: the client offers {scope['subprotocols']}; one of {', '.join(PROTOCOLS)} is needed")
    options = read_options(scope["query_string"])
    session = await node.exec(record.resource, record.namespace, record.name, options)
    try:
        await receive()  # websocket.connect
        await send({"type": "websocket.accept", "subprotocol": protocol})
        # An empty message tells the client that the command runs, before it has said anything.
        await _message(send, _STDOUT if options.stdout else _ERROR, b"")
        client = asyncio.create_task(_from_client(receive, session))
        output = asyncio.create_task(_to_client(send, session, options))
        done, _ = await asyncio.wait((client, output), return_when=asyncio.FIRST_COMPLETED)
        if output not in done:
            output.cancel()
            return  # The client left; closing the session ends the command.
        client.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await client
        output.result()
        await send({"type": "websocket.close", "code": 1000})
    finally:
        await session.close()


async def _message(send: Send, channel: int, data: bytes) -> None:
    await send({"type": "websocket.send", "bytes": bytes((channel,)) + data})


async def _to_client(send: Send, session: ExecSession, options: ExecOptions) -> None:
    """Everything the command says, then how it ended."""
    try:
        async for channel, data in session.output():
            if (options.stdout if channel == _STDOUT else options.stderr) and data:
                await _message(send, channel, data)
        status = _status(await session.wait())
    except ApiError as error:
        status = error.to_status()
    except OSError as error:
        status = Internal(f"the command's output was lost: {error}").to_status()
    await _message(send, _ERROR, orjson.dumps(status))


def _status(code: int) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def _from_client(receive: Receive, session: ExecSession) -> None:
    """Input and terminal sizes, until the client leaves."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        data: bytes = message.get("bytes") or (message.get("text") or "").encode()
        if not data:
            continue
        channel, body = data[0], data[1:]
        if channel == _STDIN:
            await session.write_stdin(body)
        elif channel == _CLOSE and body[:1] == bytes((_STDIN,)):
            await session.close_stdin()
        elif channel == _RESIZE:
            with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):
                size = orjson.loads(body)
                await session.resize(int(size["Width"]), int(size["Height"]))
