"""Commands and logs at once are bounded, and whoever ends makes room."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from isoplane.client.streams import ExecOptions, ExecSession, LogOptions, NoNode
from isoplane.objects.errors import TooManyRequests, Unavailable
from isoplane.objects.kinds import PODS, Resource
from isoplane.server import bounded_node
from isoplane.server.bounded_node import BoundedNode

WHAT: tuple[Resource, str, str] = (PODS, "default", "p")
COMMAND = ExecOptions(["id"])


class Session:
    """A command that says one thing; ``broken``: that cannot be ended."""

    def __init__(self, broken: bool) -> None:
        self.broken = broken

    async def write_stdin(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, width: int, height: int) -> None: ...

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        yield 1, b"said"

    async def wait(self) -> int:
        return 3

    async def close(self) -> None:
        if self.broken:
            raise OSError("it is stuck")


class Node(NoNode):
    """A node with a log without end."""

    def __init__(self) -> None:
        self.refuses = self.broken = False

    async def logs(self, *_: Any) -> AsyncGenerator[bytes, None]:
        while True:
            yield b"line\n"

    async def exec(self, *_: Any) -> ExecSession:
        if self.refuses:
            raise Unavailable("not now")
        return Session(self.broken)


async def test_commands_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_node, "COMMANDS", 2)
    inner = Node()
    node = BoundedNode(inner)
    first, second = await node.exec(*WHAT, COMMAND), await node.exec(*WHAT, COMMAND)
    with pytest.raises(TooManyRequests, match=r"2 commands run on this node.*: end one, or try again later"):
        await node.exec(*WHAT, COMMAND)
    assert [piece async for piece in first.output()] == [(1, b"said")]
    assert await first.wait() == 3
    await first.close()
    await first.close()
    inner.broken = True
    third = await node.exec(*WHAT, COMMAND)
    for one in (third, second):
        if one is third:
            with pytest.raises(OSError, match="stuck"):
                await one.close()
        else:
            await one.close()
    inner.refuses = True
    for _ in range(5):
        with pytest.raises(Unavailable):
            await node.exec(*WHAT, COMMAND)
    assert node.commands == 0


async def test_logs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_node, "LOGS", 1)
    node = BoundedNode(Node())
    async with aclosing(node.logs(*WHAT, LogOptions(follow=True))) as pieces:
        assert await anext(pieces) == b"line\n"
        with pytest.raises(TooManyRequests, match=r"1 logs are being read"):
            await anext(node.logs(*WHAT, LogOptions()))
    assert node.logs_read == 0
    async with aclosing(node.logs(*WHAT, LogOptions())) as pieces:
        assert await anext(pieces) == b"line\n"
