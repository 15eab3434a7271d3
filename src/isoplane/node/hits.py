"""Reads the engines' counters every now and then and sums up how often each policy's rule decided on this node.

Between two readings nothing is spent; a reading takes at most a fiftieth of the time.  What a sum counts: first packets of
connections, once on each engine that a connection crosses, for established ones are not asked about again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from isoplane.node.network.background import Background
from isoplane.node.network.engines.protocol import Engine, EngineFailure
from isoplane.policy.hits import Counted, Hits, RuleHits
from isoplane.policy.model import Cluster

_log = logging.getLogger(__name__)
EVERY = 10.0
"""Seconds between two readings, or fifty times as long as the last one took."""
MOST_RULES = 10_000
"""Rules that are told; how many are left out is told with them."""


class HitCounter:
    """The sums of one node, between :meth:`start` and :meth:`close`. ``counted``: what the engines' counters stand for now."""

    def __init__(self, engines: Sequence[Engine], counted: Callable[[], Mapping[str, Counted]]) -> None:
        self._engines, self._counted = tuple(engines), counted
        self._hits = Hits()
        self._cluster = Cluster()
        self._failing: set[str] = set()
        self._reading = Background()

    def start(self) -> None:
        """Begin to read, on the running event loop."""
        self._reading.start(self._run())

    async def close(self) -> None:
        """Stop reading."""
        await self._reading.close()

    def use(self, cluster: Cluster) -> None:
        """These are the policies from now on."""
        self._cluster = cluster

    def told(self) -> tuple[list[RuleHits], int]:
        """Every rule, never hit or not, and how many more there are than can be told."""
        return self._hits.told(self._cluster, MOST_RULES)

    async def read(self) -> None:
        """One reading of every engine. One that cannot be read is said once, and its sums stand still."""
        counted = await asyncio.to_thread(self._counted)
        for engine in self._engines:
            if engine.name not in counted:
                continue
            try:
                counts = await engine.counts()
            except EngineFailure as failure:
                if engine.name not in self._failing:
                    _log.warning("%s: how often rules are hit is not counted for now: %s", engine.name, failure)
                self._failing.add(engine.name)
                continue
            self._failing.discard(engine.name)
            self._hits.add(engine.name, counts, counted[engine.name])
        self._hits.forget(self._cluster)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            await self.read()
            await asyncio.sleep(max(EVERY, 50 * (clock() - began)))
