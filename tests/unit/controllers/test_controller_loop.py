"""The generic loop: one worker a key, failures tried again, later looks, a clean stop."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from isoplane.client.controller import Controller
from isoplane.client.workqueue import WorkQueue
from isoplane.objects.errors import Conflict, Unavailable


class Probe(Controller):
    """Notes what it was asked, and does what it is told."""

    name = "probe"

    def __init__(self, *, workers: int = 3) -> None:
        super().__init__(workers=workers, queue=WorkQueue(base_delay=0.001))
        self.seen: Counter[str] = Counter()
        self.at_work: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.failures: dict[str, list[Exception]] = {}
        self.again: dict[str, list[float]] = {}
        self.takes = 0.0

    async def reconcile(self, key: str) -> float | None:
        self.seen[key] += 1
        self.at_work[key] += 1
        self.most[key] = max(self.most[key], self.at_work[key])
        try:
            await asyncio.sleep(self.takes)
            if self.failures.get(key):
                raise self.failures[key].pop()
        finally:
            self.at_work[key] -= 1
        return self.again[key].pop() if self.again.get(key) else None


async def settled(probe: Probe) -> None:
    still = 0
    while still < 5:
        await asyncio.sleep(0.002)
        still = still + 1 if probe.idle else 0


async def test_a_key_added_many_times_is_looked_at_once() -> None:
    probe = Probe()
    for _ in range(10):
        probe.enqueue("a")
    await probe.start()
    await settled(probe)
    assert probe.seen == {"a": 1}
    await probe.stop()


async def test_one_worker_a_key_and_a_change_meanwhile_is_not_lost() -> None:
    probe = Probe()
    probe.takes = 0.005
    await probe.start()
    for _ in range(6):
        probe.enqueue("a")
        probe.enqueue("b")
        await asyncio.sleep(0.002)
    await settled(probe)
    assert probe.most == {"a": 1, "b": 1}
    assert 2 <= probe.seen["a"] <= 6
    await probe.stop()


@pytest.mark.parametrize("error", [Conflict("written meanwhile"), Unavailable("no"), OSError("gone"), KeyError("bug")])
async def test_failures_are_tried_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    probe = Probe()
    probe.failures["a"] = [error, error]
    await probe.start()
    probe.enqueue("a")
    while probe.seen["a"] < 3:
        await asyncio.sleep(0.001)
    await settled(probe)
    assert probe.seen["a"] == 3
    conflicts = 2 if isinstance(error, Conflict) else 0
    assert (probe.metrics.conflicts, probe.metrics.failures) == (conflicts, 2 - conflicts)
    assert probe.metrics.reconciles == 3
    await probe.stop()


async def test_it_looks_again_when_it_said_so() -> None:
    probe = Probe()
    probe.again["a"] = [0.01]
    await probe.start()
    probe.enqueue("a")
    while probe.seen["a"] < 2:
        await asyncio.sleep(0.001)
    await settled(probe)
    assert probe.seen["a"] == 2
    await probe.stop()


async def test_stop_cancels_what_hangs() -> None:
    probe = Probe()
    probe.takes = 60
    probe.enqueue("a")
    await probe.start()
    await asyncio.sleep(0.005)
    assert not probe.idle
    await asyncio.wait_for(probe.stop(), 1)
    assert probe.idle
    probe.enqueue("b")
    assert probe.seen == {"a": 1}


async def test_run_works_until_it_is_cancelled() -> None:
    probe = Probe()
    task = asyncio.create_task(probe.run())
    await asyncio.sleep(0)
    probe.enqueue("a")
    while not probe.seen["a"]:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert probe.idle
