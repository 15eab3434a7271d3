"""HTTP questions to workloads: redirects, headers and bounds as the kubelet's, and never to the node itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isoplane.node import ask_http, destinations
from isoplane.node.images import ImageStore
from isoplane.node.runtime.protocol import RuntimeFailure
from isoplane.workload.shape import HttpGet


class Server:
    """Answers by path, on loopback; remembers what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[bytes] = []
        self.sent = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        path = head.split()[1].decode()
        kind, _, rest = path[1:].partition("/")
        try:
            if kind == "status":
                writer.write(f"HTTP/1.1 {rest} X\r\n\r\n".encode())
            elif kind == "to":
                writer.write(f"HTTP/1.1 302 Found\r\nLocation: {rest.replace('PORT', str(self.port))}\r\n\r\n".encode())
            elif kind == "circle":
                writer.write(b"HTTP/1.1 301 Moved\r\nLocation: /circle\r\n\r\n")
            elif kind == "long":
                writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (64 << 10) + b"\r\n\r\n")
            elif kind == "endless":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
                while True:
                    writer.write(b"\0" * 65536)
                    await writer.drain()
                    self.sent += 65536
            elif kind == "early":
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
            else:
                writer.write(b"220 no web server here\r\n\r\n")
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status/200", 200), ("/status/503", 503), ("/early", 204), ("/endless", 200), ("status/200", 200),
        ("/to//status/201", 201), ("/to/http://127.0.0.1:PORT/status/500", 500), ("/to/http://127.0.0.2:PORT/status/200", 302),
        ("/to/ftp://127.0.0.1/", 302), ("/to/", 302),
    ],
)  # fmt: skip
async def test_the_answer(server: Server, path: str, status: int) -> None:
    assert await ask_http.get(HttpGet(server.port, path), "127.0.0.1") == status
    assert b"User-Agent: kube-probe/1." in server.asked[0]
    assert b"encoding" not in server.asked[0].lower()
    assert server.sent < 64 << 20


@pytest.mark.parametrize(
    ("path", "headers", "why"),
    [
        ("/long", (), "longer than 10 KiB"),
        ("/other", (), "not HTTP"),
        ("/status/200", (("X", "a\r\nHost: b"),), "line break"),
    ],
)
async def test_what_is_no_answer(server: Server, path: str, headers: tuple[tuple[str, str], ...], why: str) -> None:
    with pytest.raises(ask_http.AskFailure, match=why):
        await ask_http.get(HttpGet(server.port, path, headers=headers), "127.0.0.1")


async def test_a_circle_of_redirects_ends(server: Server) -> None:
    with pytest.raises(ask_http.AskFailure, match="10 redirects"):
        await ask_http.get(HttpGet(server.port, "/circle"), "127.0.0.1")
    assert len(server.asked) == ask_http.MAX_REDIRECTS + 1


async def test_a_header_that_was_given_wins(server: Server) -> None:
    headers = (("Host", "shop.example"), ("user-agent", "mine"))
    await ask_http.get(HttpGet(server.port, "/status/200", headers=headers), "127.0.0.1")
    assert b"Host: shop.example\r\n" in server.asked[0]
    assert b"kube-probe" not in server.asked[0]
    assert server.asked[0].lower().count(b"host:") == 1


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "2130706433"],
)  # fmt: skip
async def test_the_node_itself_is_never_asked(server: Server, host: str) -> None:
    with pytest.raises(destinations.Refused, match="not asked"):
        await ask_http.get(HttpGet(server.port, "/status/200", host=host), "127.0.0.1")
    assert server.asked == []


def own() -> list[str]:
    """An address of this machine beyond loopback, where it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


@pytest.mark.parametrize("address", own())
def test_an_address_of_the_node_is_its_own(address: str) -> None:
    assert destinations.forbidden(address) == "an address of the node"
    assert destinations.forbidden("192.0.2.1") == ""


@pytest.mark.parametrize("registry", ["127.0.0.1:{}", "localhost:{}", "[::1]:{}", "169.254.169.254:{}"])
async def test_a_workload_does_not_reach_a_registry_of_the_node(server: Server, tmp_path: Path, registry: str) -> None:
    store = ImageStore(tmp_path / "images")
    with pytest.raises(RuntimeFailure, match="image load"):
        await store.resolve(registry.format(server.port) + "/secret:1")
    assert server.asked == []
