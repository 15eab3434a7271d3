"""What clients that do not read, do not say who they are, or provoke warnings may cost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from isoplane.client import kubeconfig
from isoplane.client.http import HttpApi
from isoplane.http import acceptor, protocol
from isoplane.http.app import App, Service
from isoplane.http.authentication import Authentication
from isoplane.http.reply import WARNING_BYTES, WARNINGS, bounded
from isoplane.http.request_info import RequestInfo
from isoplane.http.request_options import Call
from isoplane.http.watch import GROUP, GROUP_BYTES, Bookmark, groups
from isoplane.objects.errors import Expired
from isoplane.objects.kinds import CONFIGMAPS, NAMESPACES
from isoplane.server.apiserver import ApiServer
from isoplane.server.authorization import BuiltIn
from isoplane.server.bootstrap import bootstrap
from isoplane.server.verbs import Verbs
from isoplane.store import Store, hub
from isoplane.store.filters import compile_filter


def test_warnings_are_bounded_in_number_and_bytes() -> None:
    assert len(bounded(["x"] * 3)) == 3
    for texts in (["x"] * 1000, ["y" * 300] * 1000, ["z" * 5000] * 2):
        made = bounded(texts)
        assert len(made) <= WARNINGS
        assert sum(map(len, made)) <= WARNING_BYTES + 100
        assert f"{len(texts) - len(made) + 1} more warnings are left out".encode() in made[-1]


def test_steps_of_a_watch_are_cut_into_small_groups() -> None:
    steps = [Bookmark(number) for number in range(3 * GROUP + 1)]
    cut = list(groups(steps))
    assert [len(group) for group in cut] == [GROUP, GROUP, GROUP, 1]
    assert [step for group in cut for step in group] == steps


async def test_a_watch_that_is_not_read_is_ended_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "BACKLOG_BYTES", 10 * GROUP_BYTES)
    store = Store.open(tmp_path, None)
    verbs = Verbs(store)
    await bootstrap(verbs)
    watch = store.watch(CONFIGMAPS, None, compile_filter(CONFIGMAPS, "", ""))
    big = {"x": "y" * GROUP_BYTES}
    for number in range(3):
        await verbs.create(CONFIGMAPS, "default", {"metadata": {"name": f"a{number}"}, "data": big}, Call())
    changes = await watch.next(1)
    assert [len(group) for group in groups(changes)] == [1] * len(changes)
    for number in range(11):
        await verbs.create(CONFIGMAPS, "default", {"metadata": {"name": f"b{number}"}, "data": big}, Call())
    with pytest.raises(Expired):
        await watch.next(1)
    await store.close()


@dataclass(eq=False)
class Unread:
    """A connection's transport, and the connection itself."""

    size: int
    aborted: bool = False
    transport: Any = field(init=False)

    def __post_init__(self) -> None:
        self.transport = self

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.aborted = True


def test_the_fullest_of_the_unread_connections_go() -> None:
    shared = protocol.Connections()
    third = protocol.UNREAD_BYTES // 3
    small, big, other = Unread(third - 1), Unread(third * 3), Unread(third - 2)
    shared.unread |= {small, big, other}  # type: ignore[arg-type]
    shared.relieve()
    assert [one.aborted for one in (small, big, other)] == [False, True, False]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    one = ApiServer(tmp_path / "data", "127.0.0.1:0", tmp_path / "kubeconfig")
    await one.start()
    yield one
    await one.stop()


def address(server: ApiServer) -> tuple[str, int]:
    found = urlsplit(server.url)
    return found.hostname or "", found.port or 0


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side has hung up."""
    try:
        async with asyncio.timeout(0.05):
            return await reader.read(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


async def test_handshakes_at_once_are_bounded_and_keep_nobody_out(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "HANDSHAKES", 16)
    silent = [await asyncio.open_connection(*address(server)) for _ in range(50)]
    async with HttpApi.from_kubeconfig(tmp_path / "kubeconfig") as api:
        assert (await api.get(NAMESPACES, "default"))["metadata"]["name"] == "default"
    over = [await ended(reader) for reader, _ in silent]
    assert all(over[:34]), "the oldest go first"
    assert not any(over[36:])
    # One that speaks something else goes at once.
    reader, writer = silent[-1]
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(20):
        with contextlib.suppress(OSError):
            while await reader.read(100):
                pass
    for _, writer in silent:
        writer.close()


async def test_a_handshake_has_its_time(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "HANDSHAKE_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection(*address(server))
    async with asyncio.timeout(20):
        with contextlib.suppress(OSError):
            assert await reader.read(1) == b""
    writer.close()


async def test_connections_without_a_certificate_are_bounded(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "ANONYMOUS", 16)
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    held = []
    for _ in range(50):
        with contextlib.suppress(OSError):
            held.append(await asyncio.open_connection(*address(server), ssl=stranger))
    over = [await ended(reader) for reader, _ in held]
    assert over.count(False) == 16
    async with HttpApi.from_kubeconfig(tmp_path / "kubeconfig") as api:
        assert (await api.get(NAMESPACES, "default"))["metadata"]["name"] == "default"
    for _, writer in held:
        writer.close()
    monkeypatch.setattr(protocol, "ANONYMOUS_SECONDS", 0.2)
    async with asyncio.timeout(20):
        while True:  # until the others' ends were seen
            reader, writer = await asyncio.open_connection(*address(server), ssl=stranger)
            with contextlib.suppress(OSError):
                writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                if await reader.read(9) == b"HTTP/1.1 ":
                    await reader.read()  # to its end, although it would be kept alive
                    writer.close()
                    break
            writer.close()


async def test_refused_upgrades_leave_nothing_behind(server: ApiServer) -> None:
    """Who asks for a WebSocket and is nobody is refused, and takes nobody's place when gone."""
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    upgrade = (
        b"GET /api/v1/namespaces/default/pods/p/exec?command=id HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n"
        b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for _ in range(5):
        reader, writer = await asyncio.open_connection(*address(server), ssl=stranger)
        writer.write(upgrade)
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()
    assert server._listener is not None
    async with asyncio.timeout(20):
        while server._listener._state.anonymous:
            await asyncio.sleep(0.01)


async def test_a_connection_that_is_not_read_holds_little(server: ApiServer, tmp_path: Path) -> None:
    context = kubeconfig.load(tmp_path / "kubeconfig", "").context
    assert context is not None
    for number in range(100):
        data = {"x": "y" * 100_000}
        await server.local_api.create(
            CONFIGMAPS, {"metadata": {"name": f"a{number}"}, "data": data}, namespace="default"
        )
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, address(server))
    reader, writer = await asyncio.open_connection(sock=plain, ssl=context, server_hostname="127.0.0.1", limit=1024)
    writer.write(b"GET /api/v1/configmaps?watch=1&resourceVersion=0 HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.read(100)
    await asyncio.sleep(0.3)
    assert server._listener is not None
    held = [one.transport.get_write_buffer_size() for one in server._listener._state.connections]
    assert 0 < max(held) <= protocol.FULL_BYTES + 200_000, "one event beyond it at most"
    writer.transport.abort()


async def test_memory_is_given_back_after_many_connections(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "ENDED", 3)
    monkeypatch.setattr(protocol, "GIVE_BACK_SECONDS", 0.0)
    stranger = ssl.create_default_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    assert server._listener is not None
    state = server._listener._state
    for rounds in (1, 2):
        for _ in range(3):
            assert state.given_back == rounds - 1
            _, writer = await asyncio.open_connection(*address(server), ssl=stranger)
            writer.transport.abort()
        async with asyncio.timeout(20):
            while state.given_back < rounds:
                await asyncio.sleep(0.01)


class Nothing(Service):
    """Answers nothing."""

    def find(self, info: RequestInfo) -> None:
        return None


async def test_a_request_without_a_path_is_answered() -> None:
    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    app = App(Nothing(), Authentication([]), BuiltIn().authorize)
    scope = {"type": "http", "method": "OPTIONS", "path": "*", "query_string": b"", "headers": []}
    await app(scope, None, send)  # type: ignore[arg-type]
    assert answered[0]["status"] == 401
