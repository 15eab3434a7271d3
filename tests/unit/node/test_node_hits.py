"""The node's counter of hits: every engine read, one that fails said once, and no more told than is bearable."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from isoplane.node import hits
from isoplane.node.hits import HitCounter
from isoplane.node.network.engines.protocol import Engine, EngineFailure
from isoplane.policy.hits import Counted
from isoplane.policy.model import Cluster
from isoplane.policy.snapshot import from_objects

SITE = ("chain", "0")


class Counting:
    """As much of an engine as is read."""

    def __init__(self, name: str) -> None:
        self.name, self.count, self.failure = name, 0, ""

    async def counts(self) -> Mapping[tuple[str, str], int]:
        if self.failure:
            raise EngineFailure(self.failure)
        return {SITE: self.count}


def policies(count: int) -> Cluster:
    spec = {"podSelector": {}, "ingress": [{}]}
    names = [f"p{n}" for n in range(count)]
    return from_objects(
        [{"kind": "NetworkPolicy", "metadata": {"name": n, "namespace": "a"}, "spec": spec} for n in names]
    )


def counter(*engines: Counting) -> HitCounter:
    counted = {one.name: Counted({SITE: ("a/p0/ingress[0]",)}) for one in engines}
    made = HitCounter([cast(Engine, one) for one in engines], lambda: counted)
    made.use(policies(2))
    return made


async def test_one_that_fails_is_said_once_and_stands_still(caplog: pytest.LogCaptureFixture) -> None:
    good, bad = Counting("good"), Counting("bad")
    made = counter(good, bad)
    await made.read()
    good.count, bad.count, bad.failure = 3, 9, "no such tool"
    await made.read()
    await made.read()
    assert [dict(one.hits) for one in made.told()[0]] == [{"bad": 0, "good": 3}, {"bad": 0, "good": 0}]
    assert [record.getMessage() for record in caplog.records] == [
        "bad: how often rules are hit is not counted for now: no such tool"
    ]
    bad.failure = ""
    await made.read()
    assert dict(made.told()[0][0].hits) == {"bad": 9, "good": 3}


async def test_no_more_is_told_than_is_bearable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "MOST_RULES", 3)
    made = counter()
    made.use(policies(10))
    told, left_out = made.told()
    assert (len(told), left_out) == (3, 7)


async def test_reads_by_itself_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "EVERY", 0.001)
    engine = Counting("one")
    made = counter(engine)
    made.start()
    engine.count = 5
    async with asyncio.timeout(10):
        while made.told()[0][0].hits != {"one": 5}:
            await asyncio.sleep(0.001)
    await made.close()
    await made.close()
