"""A key that comes back without progress is backed off and counted, and never keeps others from their turn."""

from __future__ import annotations

import asyncio

from isoplane.client.controller import ROUNDS, Controller


class Spinner(Controller):
    """Asks for its own keys again at once, for ever; with ``progress`` something changes each time."""

    name = "spinner"

    def __init__(self, progress: bool) -> None:
        super().__init__(workers=1)
        self.looks: dict[str, int] = {}
        self.progress = progress
        self.seen = 0
        self.changes = lambda: self.seen

    async def reconcile(self, key: str) -> float | None:
        self.looks[key] = self.looks.get(key, 0) + 1
        self.seen += self.progress
        if key != "other":
            self.enqueue({"a": "b", "b": "a"}.get(key, key))
        return None


async def turns(seconds: float) -> int:
    """How often others on the loop get their turn."""
    loop = asyncio.get_running_loop()
    end, count = loop.time() + seconds, 0
    while loop.time() < end:
        await asyncio.sleep(0)
        count += 1
    return count


async def test_two_keys_that_ask_for_each_other_are_backed_off_and_others_are_served() -> None:
    controller = Spinner(progress=False)
    await controller.start()
    controller.enqueue("a")
    assert await turns(0.2) > 10
    assert controller.metrics.stalled >= 1
    assert controller.looks["a"] <= ROUNDS
    controller.enqueue("other")
    await turns(0.05)
    assert controller.looks["other"] == 1
    await controller.stop()


async def test_a_key_that_makes_progress_is_not_backed_off() -> None:
    controller = Spinner(progress=True)
    await controller.start()
    controller.enqueue("a")
    assert await turns(0.1) > 10
    assert controller.metrics.stalled == 0
    assert controller.looks["a"] > 10
    await controller.stop()


async def test_a_key_on_hold_is_handed_out_later_however_often_it_is_asked_for() -> None:
    controller = Spinner(progress=False)
    controller.enqueue("other")
    controller.queue.hold("other")
    controller.enqueue("other")
    await controller.start()
    await turns(0.05)
    assert controller.looks == {}
    await controller.stop()
