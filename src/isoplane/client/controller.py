"""The generic loop that every controller runs in: a key comes in, never an event; what was missed does not matter.

    informers ─ change ─► queue of keys ─► worker: reconcile(key) ─► done, again in n seconds, or again after a back-off

A controller reads the present state of its key (from informers, or the host), decides with a pure function, and acts
through :class:`~isoplane.client.api.Api`.  One worker works on a key at a time; a failure is tried again with exponential
back-off and jitter.  What to decide is each controller's own file's affair.

No object may stop the plane: after every key all others on the event loop get their turn, and a key that comes back again
and again while nothing changes anywhere is backed off like a failure, and reported.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isoplane.client.informer import Informer, Informers
from isoplane.client.workqueue import WorkQueue
from isoplane.objects.errors import ApiError, Conflict

_log = logging.getLogger(__name__)

ROUNDS = 50
"""How often a key may be worked on within ``ROUNDS_SECONDS`` while no object changes anywhere, before it is backed off."""
ROUNDS_SECONDS = 1.0

Keys = Callable[[Mapping[str, Any]], Iterable[str]]
"""An object → the keys that have to be looked at because of it."""


@dataclass(slots=True)
class Metrics:
    """Counters since the start; ``seconds`` is time spent in reconcile, waiting included."""

    reconciles: int = 0
    failures: int = 0
    conflicts: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    stalled: int = 0
    """How often a key was backed off because it came back without progress."""


class Controller(ABC):
    """One controller: ``workers`` tasks that take keys from one queue. Belongs to one event loop."""

    name = "controller"

    def __init__(self, *, workers: int = 2, queue: WorkQueue | None = None) -> None:
        self.queue = queue or WorkQueue()
        self.metrics = Metrics()
        self._workers = workers
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0
        self.changes: Callable[[], int] = lambda: 0
        """How many changes of objects the informers have seen; a Manager sets it."""
        self._rounds: dict[str, int] = {}
        self._rounds_at = (0, 0.0)
        """(changes, when) as ``_rounds`` was begun."""

    @abstractmethod
    async def reconcile(self, key: str) -> float | None:
        """Bring the actual state of ``key`` to the desired one. Idempotent, callable at any time.

        Returns the seconds after which to look again by itself, or None.  Any exception means: try again later.
        """

    async def started(self) -> None:  # noqa: B027 (optional: most have nothing to do here)
        """Called once, with every informer in sync, before the first key: for what must be looked at in any case."""

    def enqueue(self, key: str, after: float = 0.0) -> None:
        """Ask for a look at ``key``, now or in ``after`` seconds."""
        self.queue.add(key, after)

    def watch(self, informer: Informer, keys: Keys | None = None) -> Informer:
        """Look at an object's key whenever it changes, or at what ``keys`` derives from it, as it was and as it is."""

        def changed(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            if keys is None:
                self.enqueue(key)
                return
            for obj in (old, new):
                if obj is not None:
                    for derived in keys(obj):
                        self.enqueue(derived)

        informer.on_change(changed)
        return informer

    @property
    def idle(self) -> bool:
        """Whether nothing is being worked on and nothing waits now (later looks aside)."""
        return not self._busy and not len(self.queue)

    async def start(self) -> None:
        await self.started()
        self._tasks = [
            asyncio.create_task(self._work(), name=f"{self.name}-{number}") for number in range(self._workers)
        ]

    async def stop(self) -> None:
        """Hand out no more keys; what is being worked on is cancelled (every step can be repeated)."""
        self.queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def run(self) -> None:
        """Start and work until cancelled."""
        await self.start()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self.stop()

    async def _work(self) -> None:
        while (key := await self.queue.get()) is not None:
            self._busy += 1
            try:
                await self._once(key)
            finally:
                self._busy -= 1
                self.queue.done(key)
            self._check_progress(key)
            await asyncio.sleep(0)

    def _check_progress(self, key: str) -> None:
        """Back a key off that was worked on ``ROUNDS`` times in a moment in which nothing changed."""
        now, changes = time.monotonic(), self.changes()
        if changes != self._rounds_at[0] or now - self._rounds_at[1] > ROUNDS_SECONDS:
            self._rounds_at = (changes, now)
            self._rounds.clear()
        rounds = self._rounds[key] = self._rounds.get(key, 0) + 1
        if rounds < ROUNDS:
            return
        del self._rounds[key]
        self.metrics.stalled += 1
        delay = self.queue.hold(key)
        _log.warning(
            "%s %s came back %d times within %.0f s without progress; again in %.0f s",
            self.name, key, ROUNDS, ROUNDS_SECONDS, delay,
        )  # fmt: skip

    async def _once(self, key: str) -> None:
        began = time.perf_counter()
        try:
            again = await self.reconcile(key)
        except Conflict as error:
            # Somebody wrote between our look and our write: the ordinary way to learn that the look is stale.
            self.metrics.conflicts += 1
            _log.debug("%s %s: %s", self.name, key, error)
            self.queue.retry(key)
        except (ApiError, OSError) as error:
            self.metrics.failures += 1
            _log.warning("%s %s: %s; again in %.2f s", self.name, key, error, self.queue.retry(key))
        except Exception:
            self.metrics.failures += 1
            _log.exception("%s %s failed; again in %.2f s", self.name, key, self.queue.retry(key))
        else:
            self.queue.forget(key)
            if again is not None:
                self.queue.add(key, max(again, 0.001))
        took = time.perf_counter() - began
        self.metrics.reconciles += 1
        self.metrics.seconds += took
        self.metrics.slowest = max(self.metrics.slowest, took)


class Manager:
    """Starts the informers, then the controllers that share them; stops them in the opposite order."""

    def __init__(self, informers: Informers, controllers: Sequence[Controller]) -> None:
        self.informers = informers
        self.controllers = tuple(controllers)
        self._started: list[Controller] = []

    async def start(self) -> None:
        """Returns when every cache is in sync and every controller works."""
        await self.informers.start()
        for controller in self.controllers:
            controller.changes = self.informers.changes
            await controller.start()
            self._started.append(controller)

    async def stop(self) -> None:
        while self._started:
            await self._started.pop().stop()
        await self.informers.stop()

    @property
    def idle(self) -> bool:
        return all(controller.idle for controller in self.controllers)

    def metrics(self) -> dict[str, Metrics]:
        """Controller name → its counters."""
        return {controller.name: controller.metrics for controller in self.controllers}
