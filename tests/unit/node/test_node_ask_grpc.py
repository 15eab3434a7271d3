"""The gRPC health question: who serves is healthy; whatever else a server says or is has a reason in words and a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node import ask_grpc
from isoplane.node.ask_http import AskFailure
from isoplane.objects.rules import probes
from isoplane.workload import common
from isoplane.workload.shape import GrpcHealth, Probe

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
OK = [(":status", "200"), ("content-type", "application/grpc")]


def grpc_server(
    message: bytes, trailers: list[tuple[str, str]], headers: list[tuple[str, str]] = OK, asked: bytearray | None = None
) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        while data := await reader.read(4096):
            for event in connection.receive_data(data):
                if isinstance(event, events.DataReceived) and asked is not None:
                    asked.extend(event.data or b"")
                if isinstance(event, events.StreamEnded):
                    connection.send_headers(1, headers)
                    for start in range(0, len(message), 16_000):
                        connection.send_data(1, message[start : start + 16_000])
                    connection.send_headers(1, trailers, end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()

    return serve


def says(data: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(data)
        await writer.drain()
        writer.close()

    return serve


async def ask(serve: Serve, service: str = "") -> str:
    """'' for healthy, else why not."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with asyncio.timeout(20):
            await ask_grpc.check(GrpcHealth(server.sockets[0].getsockname()[1], service), "127.0.0.1")
    except AskFailure as failure:
        return str(failure)
    finally:
        server.close()
    return ""


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


SERVING, NOT_SERVING = framed(b"\x08\x01"), framed(b"\x08\x02")
DONE = [("grpc-status", "0")]


async def test_the_answer_decides() -> None:
    asked = bytearray()
    assert await ask(grpc_server(SERVING, DONE, asked=asked), "liveness") == ""
    assert bytes(asked) == framed(b"\x0a\x08liveness")
    assert await ask(grpc_server(framed(b"\x12\x03new\x08\x01"), DONE)) == "", "unknown fields are passed over"
    for message, word in (
        (NOT_SERVING, "NOT_SERVING"),
        (framed(b""), "UNKNOWN"),
        (framed(b"\x08\x03"), "SERVICE_UNKNOWN"),
    ):
        assert word in await ask(grpc_server(message, DONE))
    unknown = grpc_server(b"", [("grpc-status", "12"), ("grpc-message", "unknown%20service")])
    assert "does not implement" in await ask(unknown)
    assert "code 5: gone" in await ask(grpc_server(b"", [("grpc-status", "5"), ("grpc-message", "gone")]))
    assert "not gRPC" in await ask(grpc_server(b"", [("x", "y")], [(":status", "404")]))
    assert "not one uncompressed" in await ask(grpc_server(b"\x01" + SERVING[1:], DONE))


async def test_what_is_no_grpc_server_costs_little_and_is_named() -> None:
    assert "HTTP/1, not gRPC" in await ask(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert "ended before" in await ask(says(b""))
    assert "not HTTP/2" in await ask(says(b"\0\0\x01\0\0\0\0\0\0x"))
    assert "longer than" in await ask(grpc_server(framed(b"\0" * 40_000), DONE))


@given(st.binary(max_size=40))
def test_any_message_is_judged(message: bytes) -> None:
    try:
        assert ask_grpc._serving(framed(message)) >= 0
    except AskFailure:
        pass


@pytest.mark.parametrize("service", ["", "a", "x" * 300])
def test_requests_are_read_back(service: str) -> None:
    request = ask_grpc._request(service)
    assert int.from_bytes(request[1:5], "big") == len(request) - 5
    assert request.endswith(service.encode())


def test_every_handler_that_is_accepted_is_one_that_is_asked() -> None:
    """None is dropped on the way, so that another question would be asked in its place."""
    declared = {"exec": {"command": ["x"]}, "httpGet": {"port": 1}, "tcpSocket": {"port": 1}, "grpc": {"port": 1}}
    assert set(declared) == set(probes._CONTAINER_HANDLERS)
    for name, handler in declared.items():
        probe = common.probe({name: handler}, {})
        assert probe is not None
        assert probe != Probe(), name
