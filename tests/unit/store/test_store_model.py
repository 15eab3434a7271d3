"""Random histories with failing commits against the simplest possible model: a dict and a list of events."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from isoplane.objects.errors import ApiError, InsufficientStorage
from isoplane.objects.kinds import CONFIGMAPS
from isoplane.store import Transaction
from store_support import FlakyCommitter, config, in_memory

NAMES = st.sampled_from("abcd")
STEP = st.one_of(
    st.tuples(st.just("put"), NAMES, st.sampled_from("xyz")),
    st.tuples(st.just("delete"), NAMES, st.just("")),
    st.tuples(st.just("fail"), st.just(""), st.just("")),
    st.tuples(st.just("wait"), st.just(""), st.just("")),
)


@given(st.lists(STEP, max_size=40))
@settings(max_examples=60)
def test_committed_state_and_watch_agree_with_the_model(steps: list[tuple[str, str, str]]) -> None:
    asyncio.run(_run(steps))


async def _run(steps: list[tuple[str, str, str]]) -> None:
    committer = FlakyCommitter()
    store = in_memory(committer)
    watch = store.watch(CONFIGMAPS, None)
    waiting: list[asyncio.Future[Any]] = []
    for action, name, value in steps:
        if action == "put":
            waiting.append(store.transact(lambda txn, n=name, v=value: txn.put(CONFIGMAPS, config(n, v=v))))
        elif action == "delete":

            def evaluate(txn: Transaction, name: str = name) -> None:
                found = txn.get(CONFIGMAPS, "default", name)
                if found is not None:
                    txn.delete(found)

            waiting.append(store.transact(evaluate))
        elif action == "fail":
            committer.failures.append(InsufficientStorage("full"))
        else:
            await asyncio.sleep(0.001)
    for future in waiting:
        try:
            await future
        except ApiError:
            continue
    # The model is what reached the disk, in order.
    model: dict[str, bytes] = {}
    revisions = [row[0] for write in committer.writes for row in write.log]
    for write in committer.writes:
        for _, _, _, name, data in write.log:
            if data is None:
                model.pop(name, None)
            else:
                model[name] = data
    assert revisions == list(range(1, len(revisions) + 1))
    assert {r.name: r.data for r in store.state.list(CONFIGMAPS)} == model
    assert store.revision == (revisions[-1] if revisions else 0)
    seen: dict[str, bytes] = {}
    events = await watch.next(0)
    assert [e.revision for e in events] == revisions
    for event in events:
        if event.type == "DELETED":
            del seen[event.record.name]
        else:
            assert (event.type == "MODIFIED") == (event.record.name in seen)
            seen[event.record.name] = event.record.data
    assert seen == model
    await store.close()
