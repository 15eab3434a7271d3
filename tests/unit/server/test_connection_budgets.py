"""What clients that do not read, do not say who they are, or provoke warnings may cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import Expired
from isoplane.objects.kinds import CONFIGMAPS
from isoplane.server.bootstrap import bootstrap
from isoplane.server.call import Call
from isoplane.server.http import protocol
from isoplane.server.http.app import App
from isoplane.server.http.documents import Documents
from isoplane.server.http.reply import WARNING_BYTES, WARNINGS, bounded
from isoplane.server.verbs import Verbs
from isoplane.server.watching import GROUP, GROUP_BYTES, Bookmark, groups
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


async def test_a_request_without_a_path_is_answered() -> None:
    answered: list[Any] = []

    async def send(message: Any) -> None:
        answered.append(message)

    app = App(None, Documents("test"), lambda: "")  # type: ignore[arg-type]
    scope = {"type": "http", "method": "OPTIONS", "path": "*", "query_string": b"", "headers": []}
    await app(scope, None, send)  # type: ignore[arg-type]
    assert answered[0]["status"] == 401
