"""The QMP client against a monitor that answers, refuses, chatters, falls silent and goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isoplane.node.runtime.qemu.qmp import Qmp, QmpClosed, QmpError

GREETING = {"QMP": {"version": {}, "capabilities": []}}
Answer = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]


def send(writer: asyncio.StreamWriter, *messages: Any) -> None:
    writer.write(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))


@asynccontextmanager
async def monitor(path: Path, answer: Answer, greeting: Any = GREETING) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        send(writer, greeting)
        try:
            while line := await reader.readline():
                request = json.loads(line)
                if request["execute"] == "qmp_capabilities":
                    send(writer, {"return": {}, "id": request["id"]})
                else:
                    await answer(request, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield
    finally:
        server.close()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "qmp.sock"


async def test_answers_find_their_questions_in_any_order(socket: Path) -> None:
    held: list[dict[str, Any]] = []

    async def answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        held.append(request)
        if len(held) == 3:
            for one in reversed(held):
                send(writer, {"return": one["arguments"], "id": one["id"]}, {"event": "STOP", "data": {}})

    events: list[str] = []
    async with monitor(socket, answer):
        qmp = await Qmp.connect(socket, lambda name, _: events.append(name))
        found = await asyncio.gather(*(qmp.execute("echo", {"n": n}) for n in range(3)))
        assert found == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert events == ["STOP"] * 3
        qmp.close()
        await asyncio.wait_for(qmp.closed, 1)


async def test_refusals_are_qemus_words(socket: Path) -> None:
    async def answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        send(writer, {"error": {"class": "GenericError", "desc": "no such thing"}, "id": request["id"]})

    async with monitor(socket, answer):
        qmp = await Qmp.connect(socket, lambda *_: None)
        with pytest.raises(QmpError, match="no such thing"):
            await qmp.execute("frob")
        qmp.close()


async def test_a_machine_that_goes_away_closes_every_question(socket: Path) -> None:
    async def answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with monitor(socket, answer):
        qmp = await Qmp.connect(socket, lambda *_: None)
        with pytest.raises(QmpClosed):
            await qmp.execute("quit")
        await asyncio.wait_for(qmp.closed, 1)
        with pytest.raises(QmpClosed):
            await qmp.execute("query-status")


async def test_silence_is_bounded(socket: Path) -> None:
    async def answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)

    async with monitor(socket, answer):
        qmp = await Qmp.connect(socket, lambda *_: None)
        with pytest.raises(QmpClosed, match="did not answer stop"):
            await qmp.execute("stop", timeout=0.05)
        qmp.close()
    async with monitor(socket.with_name("mute.sock"), answer, greeting={}):
        with pytest.raises(QmpClosed, match="no monitor"):
            await Qmp.connect(socket.with_name("mute.sock"), lambda *_: None, timeout=0.05)


@pytest.mark.parametrize("junk", ["not json", [1, 2], {"error": {}, "id": 1}])
async def test_junk_closes_the_connection(socket: Path, junk: Any) -> None:
    async def answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if isinstance(junk, str):
            writer.write(junk.encode() + b"\n")
        else:
            send(writer, junk if isinstance(junk, list) else {**junk, "id": request["id"]})

    async with monitor(socket, answer):
        qmp = await Qmp.connect(socket, lambda *_: None)
        with pytest.raises(QmpClosed):
            await qmp.execute("query-status", timeout=2)


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(QmpClosed):
        await Qmp.connect(tmp_path / "absent.sock", lambda *_: None)
    with pytest.raises(QmpClosed):
        await Qmp.connect(tmp_path / "no/such/directory/qmp.sock", lambda *_: None)


async def test_long_paths_are_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)

    async def answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        send(writer, {"return": {}, "id": request["id"]})

    async with monitor(tmp_path / "s", answer):
        (deep / "qmp.sock").symlink_to(tmp_path / "s")
        qmp = await Qmp.connect(deep / "qmp.sock", lambda *_: None)
        assert await qmp.execute("x") == {}
        qmp.close()
