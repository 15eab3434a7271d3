"""Work on one key stays in order, work on others does not wait, and nothing is left behind."""

from __future__ import annotations

import asyncio

from isoplane.node.keyed_locks import KeyedLocks


async def test_work_on_one_key_is_in_order_and_leaves_nothing() -> None:
    locks = KeyedLocks()
    seen: list[str] = []

    async def work(key: str, name: str) -> None:
        async with locks.hold(key):
            seen.append(f"{name} in")
            await asyncio.sleep(0.01)
            seen.append(f"{name} out")

    await asyncio.gather(work("k", "a"), work("k", "b"), work("j", "c"))
    assert seen.index("a out") < seen.index("b in")
    assert seen.index("c in") < seen.index("a out")
    assert not locks
    waiting = asyncio.ensure_future(work("k", "d"))
    cancelled = asyncio.ensure_future(work("k", "e"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(waiting, cancelled, return_exceptions=True)
    assert not locks
