"""A queue of keys for level-triggered work: each key once, one worker per key, failures retried ever later.

Source of the behaviour: client-go's rate-limiting work queue.  A key added while it is being worked on is handed out
again after ``done``; a delayed key comes earlier when it is added sooner.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable

BASE_DELAY = 0.005
MAX_DELAY = 300.0


class WorkQueue:
    """``get`` → work → ``done``; after a failure ``retry``, after a success ``forget``. Belongs to one event loop."""

    def __init__(
        self,
        *,
        base_delay: float = BASE_DELAY,
        max_delay: float = MAX_DELAY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._base, self._max, self._jitter = base_delay, max_delay, jitter
        self._ready: deque[str] = deque()
        self._waiting: set[str] = set()
        """Keys in ``_ready``, or to be put there when their worker is done."""
        self._working: set[str] = set()
        self._failures: dict[str, int] = {}
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._held: dict[str, float] = {}
        """Keys that are not handed out before a time, whoever asks."""
        self._timer: asyncio.TimerHandle | None = None
        self._getters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: str, after: float = 0.0) -> None:
        """Ask for work on ``key``, now or in ``after`` seconds."""
        if self._closed:
            return
        held = self._held.get(key)
        if after > 0 or held is not None:
            now = asyncio.get_running_loop().time()
            due = max(now + after, held or 0.0)
            if due > now:
                self._add_later(key, due)
                return
            self._held.pop(key, None)
        self._due.pop(key, None)
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._ready.append(key)
            self._hand_out()

    async def get(self) -> str | None:
        """The next key, or None once the queue is closed."""
        while not self._ready:
            if self._closed:
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._getters.append(waiter)
            await waiter
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """The worker has finished with ``key``."""
        self._working.discard(key)
        if key in self._waiting:
            self._ready.append(key)
            self._hand_out()

    def retry(self, key: str) -> float:
        """Try again later: exponential back-off with jitter. Returns the delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = min(self._max, self._base * 2.0 ** min(failures - 1, 30)) * (1 + 0.2 * self._jitter())
        self.add(key, delay)
        return delay

    def hold(self, key: str) -> float:
        """Hand ``key`` out only after a back-off from now on, however often it is asked for. Returns the delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = min(self._max, 1.0 * 2.0 ** min(failures - 1, 30))
        self._held[key] = asyncio.get_running_loop().time() + delay
        if key in self._waiting:
            # It was asked for meanwhile: later, then.
            self._waiting.discard(key)
            if key in self._ready:
                self._ready.remove(key)
            self._add_later(key, self._held[key])
        return delay

    def forget(self, key: str) -> None:
        """``key`` is well again: its next failure starts from the base delay."""
        self._failures.pop(key, None)

    def close(self) -> None:
        """Hand out what is ready, then None to everyone."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _hand_out(self) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _add_later(self, key: str, due: float) -> None:
        known = self._due.get(key)
        if known is not None and known <= due:
            return
        self._due[key] = due
        heapq.heappush(self._later, (due, key))
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._later and self._due.get(self._later[0][1]) != self._later[0][0]:
            heapq.heappop(self._later)
        if self._later and not self._closed:
            self._timer = asyncio.get_running_loop().call_at(self._later[0][0], self._ripe)

    def _ripe(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                self.add(key)
        self._arm()
