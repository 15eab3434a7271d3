"""One gRPC health question to a workload (grpc.health.v1.Health/Check) over plain HTTP/2, for probes.

The protocol's framing is h2's; the call is one small message each way, so no gRPC library is needed.  What is read of an
answer is bounded, and the caller minds the time.  Source: kubernetes pkg/probe/grpc; the gRPC health checking protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import unquote

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from isoplane.node.ask_http import USER_AGENT, AskFailure
from isoplane.workload.shape import GrpcHealth

MAX_BYTES = 16 << 10
"""What is read of an answer, everything counted; a health answer has some hundred bytes."""
_BLOCK = 4 << 10
_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1
_OK, _UNIMPLEMENTED = "0", "12"


async def check(question: GrpcHealth, address: str) -> None:
    """Return when the service serves. Raises AskFailure saying what it is instead, and OSError."""
    reader, writer = await asyncio.open_connection(address, question.port)
    try:
        headers, message = await _call(reader, writer, _request(question.service), f"{_shown(address)}:{question.port}")
    except ProtocolError as error:
        raise AskFailure(f"the answer is not HTTP/2: {error}") from None
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    status = headers.get("grpc-status", "")
    said = unquote(headers.get("grpc-message", ""))[:500]
    if headers.get(":status") != "200" or not status:
        raise AskFailure(f"the answer is not gRPC: HTTP status {headers.get(':status', 'missing')}")
    if status == _UNIMPLEMENTED:
        raise AskFailure(f"this server does not implement the grpc health protocol (grpc.health.v1.Health): {said}")
    if status != _OK:
        raise AskFailure(f"health rpc failed: code {status}: {said}")
    serving = _serving(message)
    if serving != _SERVING:
        raise AskFailure(f'service unhealthy (responded with "{_STATUS.get(serving, serving)}")')


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def _call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes, authority: str
) -> tuple[dict[str, str], bytes]:
    """(headers and trailers, data) of one unary call."""
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    connection.send_headers(
        stream,
        [
            (":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"), (":authority", authority),
            ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", USER_AGENT),
        ],
    )  # fmt: skip
    connection.send_data(stream, body, end_stream=True)
    headers: dict[str, str] = {}
    message, left = bytearray(), MAX_BYTES
    while True:
        writer.write(connection.data_to_send())
        await writer.drain()
        data = await reader.read(min(_BLOCK, left))
        if not data:
            raise AskFailure("the answer ended before it was whole" if left else f"it is longer than {MAX_BYTES} bytes")
        if left == MAX_BYTES and data.startswith(b"HTTP/1"):
            raise AskFailure("the answer is HTTP/1, not gRPC")
        left -= len(data)
        for event in connection.receive_data(data):
            match event:
                case events.ResponseReceived() | events.TrailersReceived():
                    headers.update((str(name), str(value)) for name, value in event.headers or ())
                case events.DataReceived():
                    message += event.data or b""
                case events.StreamEnded():
                    return headers, bytes(message)
                case events.StreamReset() | events.ConnectionTerminated():
                    raise AskFailure(f"the call was broken off: HTTP/2 error {event.error_code}")


def _request(service: str) -> bytes:
    """HealthCheckRequest{service = 1} behind gRPC's five bytes: not compressed, its length."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _serving(framed: bytes) -> int:
    """The status (field 1) of a HealthCheckResponse; 0 when it is absent, as protobuf has it. Raises AskFailure."""
    length = int.from_bytes(framed[1:5], "big")
    if len(framed) != 5 + length or framed[0] != 0:
        raise AskFailure("the answer is not one uncompressed gRPC message")
    message, at, status = framed[5:], 0, 0
    try:
        while at < len(message):
            tag, at = _number(message, at)
            if tag & 7 == 0:
                value, at = _number(message, at)
                status = value if tag >> 3 == 1 else status
            elif tag & 7 == 2:
                size, at = _number(message, at)
                at += size
            else:
                at += {1: 8, 5: 4}[tag & 7]
    except (IndexError, KeyError):
        raise AskFailure("the answer is no HealthCheckResponse") from None
    return status


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint of at most ten bytes, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError
