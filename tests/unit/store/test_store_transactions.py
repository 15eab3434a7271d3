"""A transaction sees what was evaluated before it, writes all or nothing, and is visible only when it is durable."""

from __future__ import annotations

import threading

import pytest

from isoplane.objects.errors import BadRequest, Conflict, InsufficientStorage, Unavailable
from isoplane.objects.kinds import CONFIGMAPS, PODS
from isoplane.store import Transaction
from store_support import FlakyCommitter, config, in_memory, put, remove


async def test_a_write_gets_the_next_revision_and_carries_it_in_its_bytes() -> None:
    store = in_memory()
    first = await put(store, config("a"))
    second = await put(store, config("b"))
    assert (first.revision, second.revision) == (1, 2)
    assert second.object()["metadata"]["resourceVersion"] == "2"
    assert store.revision == 2
    await store.close()


async def test_readers_see_nothing_before_the_commit_and_transactions_do() -> None:
    committer = FlakyCommitter()
    committer.gate = threading.Event()
    store = in_memory(committer)
    first = store.transact(lambda txn: txn.put(CONFIGMAPS, config("a")))
    seen = store.transact(lambda txn: [r.name for r in txn.list(CONFIGMAPS, "default")])
    assert store.state.get(CONFIGMAPS, "default", "a") is None
    assert not first.done()
    committer.gate.set()
    await first
    assert await seen == ["a"]
    assert store.state.get(CONFIGMAPS, "default", "a") is not None
    await store.close()


async def test_an_exception_drops_every_write_of_its_transaction() -> None:
    store = in_memory()

    def evaluate(txn: Transaction) -> None:
        txn.put(CONFIGMAPS, config("a"))
        txn.put_row("ledger", "a", b"1")
        raise Conflict("no")

    with pytest.raises(Conflict):
        await store.transact(evaluate)
    record = await put(store, config("b"))
    assert record.revision == 1
    assert store.state.get(CONFIGMAPS, "default", "a") is None
    assert store.state.row("ledger", "a") is None
    await store.close()


async def test_a_dry_run_answers_and_writes_nothing() -> None:
    store = in_memory()
    record = await store.transact(lambda txn: txn.put(CONFIGMAPS, config("a")), dry_run=True)
    assert record.name == "a"
    assert store.revision == 0
    assert store.state.get(CONFIGMAPS, "default", "a") is None
    await store.close()


async def test_a_failed_commit_fails_everything_evaluated_on_top_of_it() -> None:
    committer = FlakyCommitter()
    committer.gate = threading.Event()
    committer.failures = [InsufficientStorage("full")]
    store = in_memory(committer)
    first = store.transact(lambda txn: txn.put(CONFIGMAPS, config("a")))
    import asyncio

    await asyncio.sleep(0.01)  # the first batch is with the writer now
    second = store.transact(lambda txn: txn.put(CONFIGMAPS, config("b")))
    reader = store.transact(lambda txn: txn.get(CONFIGMAPS, "default", "a"))
    watch = store.watch(CONFIGMAPS, None)
    committer.gate.set()
    for future in (first, second, reader):
        with pytest.raises(InsufficientStorage):
            await future
    assert await watch.next(0.01) == []
    assert store.revision == 0
    again = await put(store, config("c"))
    assert again.revision == 1
    assert [r.name for r in store.list(CONFIGMAPS, None)] == ["c"]
    await store.close()


async def test_an_error_that_rests_on_pending_state_waits_for_it() -> None:
    """ "Already exists" must not be told of an object whose own commit then fails."""
    committer = FlakyCommitter()
    committer.gate = threading.Event()
    committer.failures = [InsufficientStorage("full")]
    store = in_memory(committer)
    store.transact(lambda txn: txn.put(CONFIGMAPS, config("a"))).add_done_callback(lambda f: f.exception())

    def refuse(txn: Transaction) -> None:
        if txn.get(CONFIGMAPS, "default", "a") is not None:
            raise Conflict("already exists")

    told = store.transact(refuse)
    committer.gate.set()
    with pytest.raises(InsufficientStorage):
        await told
    await store.close()


async def test_commit_callbacks_run_once_it_is_visible_and_never_when_it_fails() -> None:
    committer = FlakyCommitter()
    store = in_memory(committer)
    seen: list[object] = []

    def evaluate(txn: Transaction) -> None:
        txn.put(CONFIGMAPS, config("a"))
        txn.on_commit(lambda: seen.append(store.state.get(CONFIGMAPS, "default", "a") is not None))

    await store.transact(evaluate)
    committer.failures = [Unavailable("broken")]
    with pytest.raises(Unavailable):
        await store.transact(evaluate)
    assert seen == [True]
    await store.close()


async def test_indexes_follow_writes_inside_and_outside_transactions() -> None:
    store = in_memory()

    def pod(name: str, node: str = "", owner: str = "") -> dict[str, object]:
        meta: dict[str, object] = {"name": name, "namespace": "n", "uid": f"u-{name}"}
        if owner:
            meta["ownerReferences"] = [{"uid": owner, "kind": "X", "name": "x", "apiVersion": "v1"}]
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node} if node else {}}

    await put(store, pod("a", "n1"), PODS)
    await put(store, pod("b", "n1", "own"), PODS)

    def evaluate(txn: Transaction) -> tuple[list[str], list[str], list[str]]:
        txn.put(PODS, pod("a", "n2", "own"))
        txn.put(PODS, pod("c", "n1"))
        on_n1 = sorted(r.name for r in txn.by_field(PODS, "spec.nodeName", "n1"))
        owned = sorted(r.name for r in txn.owned_by("own"))
        by_uid = [r.name for r in (txn.by_uid("u-c"), txn.by_uid("u-a")) if r is not None]
        return on_n1, owned, by_uid

    assert await store.transact(evaluate) == (["b", "c"], ["a", "b"], ["c", "a"])
    state = store.state
    assert sorted(r.name for r in state.by_field(PODS, "spec.nodeName", "n1")) == ["b", "c"]
    assert sorted(r.name for r in state.owned_by("own")) == ["a", "b"]
    await remove(store, "b", "n", PODS)
    assert [r.name for r in state.by_field(PODS, "spec.nodeName", "n1")] == ["c"]
    assert [r.name for r in state.owned_by("own")] == ["a"]
    assert state.by_uid("u-b") is None
    with pytest.raises(LookupError):
        state.by_field(PODS, "status.phase", "Running")
    await store.close()


async def test_side_rows_share_the_fate_of_their_transaction() -> None:
    store = in_memory()

    def evaluate(txn: Transaction) -> dict[str, bytes]:
        txn.put_row("ledger", "a", b"1")
        txn.put_row("ledger", "b", b"2")
        txn.delete_row("ledger", "a")
        return dict(txn.rows("ledger"))

    assert await store.transact(evaluate) == {"b": b"2"}
    assert store.state.rows("ledger") == {"b": b"2"}
    decoded: list[bytes] = []

    def decode(data: bytes) -> int:
        decoded.append(data)
        return int(data)

    assert store.state.decoded("ledger", "b", decode) == store.state.decoded("ledger", "b", decode) == 2
    assert decoded == [b"2"]
    await store.close()


async def test_what_has_no_json_form_is_the_writers_fault() -> None:
    store = in_memory()
    with pytest.raises(BadRequest, match="cannot be written as JSON"):
        await put(store, {**config("a"), "data": {1: object()}})
    await store.close()


async def test_a_closed_store_says_so() -> None:
    store = in_memory()
    await store.close()
    with pytest.raises(Unavailable):
        await put(store, config("a"))
