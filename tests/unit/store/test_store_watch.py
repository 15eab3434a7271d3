"""Watches: order, filters with their edges, history and its end, many watchers."""

from __future__ import annotations

import asyncio

import pytest

from isoplane.objects.errors import BadRequest, Expired
from isoplane.objects.kinds import CONFIGMAPS, PODS
from isoplane.store.filters import compile_filter
from isoplane.store.history import Retention
from isoplane.store.transaction import Change
from store_support import config, in_memory, put, remove


def labelled(name: str, **labels: str) -> dict[str, object]:
    obj = config(name)
    obj["metadata"]["labels"] = labels
    return obj


async def test_a_watch_resumes_after_a_revision_and_goes_on_live() -> None:
    store = in_memory()
    for name in "abc":
        await put(store, config(name))
    watch = store.watch(CONFIGMAPS, "default", since=1)
    assert [(c.type, c.record.name, c.revision) for c in await watch.next(0)] == [("ADDED", "b", 2), ("ADDED", "c", 3)]
    await put(store, config("a", x="1"))
    await remove(store, "b")
    changes = await watch.next(1)
    if len(changes) == 1:
        changes += await watch.next(1)
    assert [(c.type, c.record.name, c.revision) for c in changes] == [("MODIFIED", "a", 4), ("DELETED", "b", 5)]
    assert changes[-1].record.object()["metadata"]["resourceVersion"] == "5"
    watch.close()
    assert store.watches == 0
    await store.close()


async def test_crossing_the_edge_of_a_selector_is_an_addition_or_a_deletion() -> None:
    store = in_memory()
    watch = store.watch(CONFIGMAPS, None, compile_filter(CONFIGMAPS, "app=web"))
    await put(store, labelled("a", app="db"))
    await put(store, labelled("a", app="web"))
    await put(store, labelled("a", app="web", more="x"))
    await put(store, labelled("a", app="db"))
    await put(store, labelled("a", app="web"))
    await remove(store, "a")
    seen = [(c.type, c.revision) for c in await watch.next(0)]
    assert seen == [("ADDED", 2), ("MODIFIED", 3), ("DELETED", 4), ("ADDED", 5), ("DELETED", 6)]
    replay = store.watch(CONFIGMAPS, None, compile_filter(CONFIGMAPS, "app=web"), since=0)
    assert [(c.type, c.revision) for c in await replay.next(0)] == seen
    await store.close()


async def test_a_deletion_by_selector_shows_the_last_matching_state_at_the_new_revision() -> None:
    store = in_memory()
    watch = store.watch(CONFIGMAPS, None, compile_filter(CONFIGMAPS, "app=web"))
    await put(store, labelled("a", app="web"))
    await put(store, labelled("a", app="db"))
    last = (await watch.next(0))[-1].record.object()
    assert last["metadata"]["labels"] == {"app": "web"}
    assert last["metadata"]["resourceVersion"] == "2"
    await store.close()


async def test_field_selectors_find_by_index_and_see_objects_come_and_go() -> None:
    store = in_memory()

    def pod(node: str) -> dict[str, object]:
        meta = {"name": "p", "namespace": "n", "uid": "u"}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node} if node else {}}

    one = store.watch(PODS, None, compile_filter(PODS, "", "spec.nodeName=n1"))
    two = store.watch(PODS, None, compile_filter(PODS, "", "spec.nodeName=n2"))
    other = store.watch(PODS, None, compile_filter(PODS, "", "spec.nodeName!=n1"))
    for node in ("", "n1", "n2"):
        await put(store, pod(node), PODS)
    assert [c.type for c in await one.next(0)] == ["ADDED", "DELETED"]
    assert [c.type for c in await two.next(0)] == ["ADDED"]
    assert [c.type for c in await other.next(0)] == ["ADDED", "DELETED", "ADDED"]
    await store.close()


async def test_a_watch_is_confined_to_its_resource_and_namespace() -> None:
    store = in_memory()
    watch = store.watch(CONFIGMAPS, "a")
    await put(store, config("x", "a"))
    await put(store, config("x", "b"))
    assert [c.record.namespace for c in await watch.next(0)] == ["a"]
    await store.close()


def test_unknown_fields_cannot_be_selected_on() -> None:
    with pytest.raises(BadRequest, match="field label not supported"):
        compile_filter(PODS, "", "spec.hostname=x")
    with pytest.raises(BadRequest):
        compile_filter(PODS, "a in (b")


async def test_history_ends_where_it_is_compacted() -> None:
    store = in_memory(retention=Retention(changes=3, size=1 << 30, seconds=1e9))
    for number in range(6):
        await put(store, config("a", n=str(number)))
    assert store.compacted == 3
    with pytest.raises(Expired):
        store.watch(CONFIGMAPS, None, since=2)
    watch = store.watch(CONFIGMAPS, None, since=3)
    assert [c.revision for c in await watch.next(0)] == [4, 5, 6]
    await store.close()


async def test_pages_show_the_state_of_their_first_page() -> None:
    store = in_memory()
    for name in "abcdef":
        await put(store, config(name))
    before = store.revision
    await remove(store, "d")
    await put(store, config("cc"))
    await put(store, config("e", changed="yes"))
    page = store.list(CONFIGMAPS, "default", after=("default", "b"), revision=before)
    assert [r.name for r in page] == ["c", "d", "e", "f"]
    assert "data" in page[2].object()
    assert page[2].object()["data"] == {}
    now = store.list(CONFIGMAPS, "default", after=("default", "b"))
    assert [r.name for r in now] == ["c", "cc", "e", "f"]
    await store.close()


async def test_a_watcher_that_falls_behind_is_told_to_list_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isoplane.store.hub.BACKLOG", 3)
    store = in_memory()
    watch = store.watch(CONFIGMAPS, None)
    for number in range(5):
        await put(store, config("a", n=str(number)))
    with pytest.raises(Expired):
        await watch.next(0)
    assert store.watches == 0
    await store.close()


async def test_changes_go_straight_to_a_waiting_sink_and_else_to_its_task() -> None:
    store = in_memory()
    watch = store.watch(CONFIGMAPS, None)
    taken: list[int] = []
    busy = False

    def direct(changes: list[Change]) -> bool:
        if not busy:
            taken.extend(change.revision for change in changes)
        return not busy

    watch.direct = direct
    await put(store, config("a"))
    waiting = asyncio.ensure_future(watch.next(5))
    await asyncio.sleep(0)
    assert [c.revision for c in await waiting] == [1], "what came before the wait is the task's"
    waiting = asyncio.ensure_future(watch.next(5))
    await asyncio.sleep(0)
    await put(store, config("b"))
    assert taken == [2]
    assert not waiting.done()
    busy = True
    await put(store, config("c"))
    assert [c.revision for c in await waiting] == [3]
    await store.close()


async def test_a_paced_watch_gets_a_lone_change_at_once_and_a_burst_together() -> None:
    store = in_memory()
    watch = store.watch(CONFIGMAPS, None, pace=0.05)
    waiting = asyncio.ensure_future(watch.next(5))
    await asyncio.sleep(0)
    await put(store, config("a"))
    async with asyncio.timeout(0.04):
        assert len(await waiting) == 1
    waiting = asyncio.ensure_future(watch.next(5))
    await asyncio.sleep(0)
    for name in "bcd":
        await put(store, config(name))
    assert [c.record.name for c in await waiting] == ["b", "c", "d"]
    await store.close()


async def test_a_failing_sink_hurts_only_its_own_watch(caplog: pytest.LogCaptureFixture) -> None:
    store = in_memory()
    bad, good = store.watch(CONFIGMAPS, None), store.watch(CONFIGMAPS, None)

    def broken(changes: list[Change]) -> bool:
        raise RuntimeError("cannot be shown")

    bad.direct = broken
    waiting = [asyncio.ensure_future(watch.next(5)) for watch in (bad, good)]
    await asyncio.sleep(0)
    record = await put(store, config("a"))
    assert [[c.revision for c in await future] for future in waiting] == [[record.revision]] * 2
    assert "cannot be shown" in caplog.text
    await store.close()
