"""A small, fast HTTPS load generator: one request in flight per connection, latencies kept, watches counted.

Shared by the api_*.py benchmarks.  It parses no more of a response than it must, so that the server is what is measured.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml


class Target:
    """A server by its kubeconfig: address and TLS context with the client certificate."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
        self.port = int(port)
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.context = ssl.create_default_context(cadata=ca)
        with tempfile.NamedTemporaryFile(suffix=".pem") as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]))
            pem.write(base64.b64decode(user["client-key-data"]))
            pem.flush()
            self.context.load_cert_chain(pem.name)

    async def connect(self, factory: Callable[[], asyncio.Protocol]) -> Any:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(factory, self.host, self.port, ssl=self.context)
        return protocol


def request(method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\nContent-Type: {content_type}\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


class Answers(asyncio.Protocol):
    """Reads one answer after another; a subclass says in :meth:`answered` what becomes of each."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body_at, self._ends_at, self._ok = 0, -1, False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def answered(self, answer: bytes, ok: bool, body_at: int) -> None:
        """``ok``: whether its status is a 2xx."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._ends_at < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            start = head.index(b"content-length:") + 15
            stop = head.find(b"\r\n", start)
            self._body_at = end + 4
            self._ends_at = self._body_at + int(head[start : stop if stop >= 0 else len(head)])
            self._ok = head.startswith(b"http/1.1 2")
        if len(self._buffer) >= self._ends_at:
            answer = bytes(self._buffer)
            self._buffer.clear()
            self._ends_at = -1
            self.answered(answer, self._ok, self._body_at)


class Connection(Answers):
    """Sends what ``source`` gives, one after another, until it gives None."""

    def __init__(self, source: Callable[[], bytes | None]) -> None:
        super().__init__()
        self._source = source
        self._sent = 0.0
        self.latencies: list[float] = []
        self.last = b""
        self.failures: list[bytes] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        self._next()

    def _next(self) -> None:
        data = self._source()
        if data is None:
            if not self.done.done():
                self.done.set_result(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(data)

    def answered(self, answer: bytes, ok: bool, body_at: int) -> None:
        self.latencies.append(time.perf_counter() - self._sent)
        if not ok:
            self.failures.append(answer[:300])
        self.last = answer
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


class Watch(asyncio.Protocol):
    """Counts events of a watch; remembers when each of the last ones came."""

    def __init__(self, path: str, on_event: Callable[[], None] | None = None) -> None:
        self._path = path
        self._on_event = on_event
        self.events = 0
        self.bytes = 0
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(request("GET", self._path))

    def data_received(self, data: bytes) -> None:
        if not self.open.done():
            self.open.set_result(None)
        self.bytes += len(data)
        found = data.count(b'{"type":"')
        if found:
            self.events += found
            if self._on_event is not None:
                self._on_event()


async def run(target: Target, connections: int, source: Callable[[], bytes | None]) -> tuple[list[float], float]:
    """Latencies (seconds, sorted) and the wall time of sending everything ``source`` gives. Raises on a failed call."""
    clients = [await target.connect(lambda: Connection(source)) for _ in range(connections)]
    began = time.perf_counter()
    for client in clients:
        client.start()
    await asyncio.gather(*(client.done for client in clients))
    took = time.perf_counter() - began
    for client in clients:
        if client.failures:
            raise RuntimeError(f"a request failed: {client.failures[0]!r}")
        client._transport.close()
    return sorted(latency for client in clients for latency in client.latencies), took


async def fetch(target: Target, path: str) -> Any:
    """The JSON that one GET answers."""
    asked = [request("GET", path)]
    client = await target.connect(lambda: Connection(lambda: asked.pop() if asked else None))
    client.start()
    await client.done
    client._transport.close()
    return json.loads(client.last.partition(b"\r\n\r\n")[2])


def quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]
