"""The enforcer against engines that note, refuse and lose what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from fabric_support import eventually
from isoplane.node.network.enforcer import Enforcer, EngineRules, Rendered, revision_of
from isoplane.node.network.engines.protocol import Connection, EngineFailure, Look
from isoplane.node.runtime.protocol import NetworkInterface


class NotingEngine:
    """Implements ``Engine`` on a list that several engines share, so that the order among them shows."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self.name, self.journal = name, journal
        self.loaded = ""
        self.marked = ""
        self.refuses = ""
        self.sees = Look.INTACT
        self.tracked: list[Connection] = []
        self.stumbles = False
        self.unreadable = ""

    async def start(self) -> None:
        if not self.marked:
            self.loaded = "closed"

    async def apply(self, text: str, revision: str, update: str | None = None) -> None:
        if self.refuses and self.refuses in text:
            raise EngineFailure(f"{self.name} refuses")
        self.journal.append(f"{self.name} {'updates to' if update is not None else 'loads'} {text}")
        self.loaded, self.marked = text, revision

    async def revision(self) -> str:
        return self.marked

    async def look(self) -> Look:
        return Look.CHANGED if self.loaded.startswith("meddled") else self.sees

    async def connections(self, addresses: Set[str]) -> Sequence[Connection]:
        if self.stumbles:
            raise ValueError("unheard of")
        if self.unreadable:
            raise EngineFailure(self.unreadable)
        return [one for one in self.tracked if one.source in addresses or one.destination in addresses]

    async def cut(self, connections: Sequence[Connection]) -> None:
        self.journal += [f"{self.name} cuts {one.source} {one.destination}" for one in connections]
        self.tracked = [one for one in self.tracked if one not in connections]

    async def counts(self) -> Mapping[tuple[str, str], int]:
        return {}

    async def clear(self) -> None:
        self.loaded = self.marked = ""


class Bench:
    """Two engines, what is plugged in, and the rules that would be compiled."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.one, self.two = NotingEngine("one", self.journal), NotingEngine("two", self.journal)
        self.plugs = [_plug("a", "10.0.0.1"), _plug("b", "10.0.0.2")]
        self.rendered = rendered("first")
        self.told: list[frozenset[str]] = []
        self.broken: Exception | None = None
        self.enforcer = Enforcer(
            [self.one, self.two],
            self._compile,
            self._plugs,
            drift=0.05,
            retry=(0.02, 0.1),
            on_enforced=self.told.append,
        )

    async def _compile(self, plugs: Sequence[NetworkInterface]) -> Rendered:
        if self.broken:
            raise self.broken
        return self.rendered

    async def _plugs(self) -> Sequence[NetworkInterface]:
        return list(self.plugs)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Enforcer]:
        await self.enforcer.start()
        await self.enforcer.request()
        yield self.enforcer
        await self.enforcer.close()


def _plug(uid: str, address: str) -> NetworkInterface:
    return NetworkInterface(uid=uid, namespace="ns", name=uid, address=address)


def rendered(text: str, **more: object) -> Rendered:
    rules = {name: EngineRules(text) for name in ("one", "two")}
    return replace(Rendered(revision_of(text), rules), **more)  # type: ignore[arg-type]


async def test_rules_are_loaded_and_told() -> None:
    bench = Bench()
    assert bench.enforcer.enforced("a") is None
    async with bench.running() as enforcer:
        assert (bench.one.loaded, bench.two.loaded) == ("first", "first")
        assert enforcer.enforced("a") == enforcer.enforced("b") == revision_of("first")
        assert enforcer.enforced("stranger") is None
        assert bench.told == [frozenset({"a", "b"})]
        count = len(bench.journal)
        await enforcer.request()
        assert len(bench.journal) == count, "the same rules are not loaded twice"
    assert bench.one.loaded == "first", "rules outlive the enforcer"
    await bench.enforcer.clear()
    assert bench.one.loaded == ""


async def test_what_a_change_forbids_is_forbidden_everywhere_first() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.journal.clear()
        bench.rendered = rendered("second", closing={"one": "both", "two": "both"})
        await enforcer.request()
        assert sorted(bench.journal[:2]) == ["one loads both", "two loads both"]
        assert sorted(bench.journal[2:]) == ["one loads second", "two loads second"]
        bench.two.refuses = "narrow"
        bench.rendered = rendered("third", closing={"one": "narrow", "two": "narrow"})
        await enforcer.request()
        assert bench.one.loaded == "narrow", "nothing opens while another engine has not closed"
        assert bench.two.loaded == "second"
        assert enforcer.enforced("a") == revision_of("second")
        assert "two" in enforcer.status.failures
        bench.two.refuses = ""
        await eventually(lambda: bench.two.loaded == "third" and bench.one.loaded == "third")
        await eventually(lambda: enforcer.status.failures == {})
        assert enforcer.enforced("a") == revision_of("third")


async def test_a_difference_is_sent_only_on_top_of_its_base() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.journal.clear()
        bench.rendered = replace(
            rendered("second"), rules={n: EngineRules("second", "diff", revision_of("first")) for n in ("one", "two")}
        )
        await enforcer.request()
        assert bench.journal == ["one updates to second", "two updates to second"]
        bench.journal.clear()
        bench.rendered = replace(
            rendered("third"), rules={n: EngineRules("third", "diff", revision_of("first")) for n in ("one", "two")}
        )
        await enforcer.request()
        assert bench.journal == ["one loads third", "two loads third"]


async def test_an_engine_whose_own_rules_stay_is_left_alone() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.journal.clear()
        marked = bench.two.marked
        rules = {"one": EngineRules("second", "diff", revision_of("first")), "two": EngineRules("first")}
        bench.rendered = replace(rendered("second"), rules=rules)
        await enforcer.request()
        assert bench.journal == ["one updates to second"]
        assert bench.two.marked == marked
        assert enforcer.status.revision == enforcer.enforced("a") == revision_of("second")
        bench.two.loaded = "meddled with"
        await eventually(lambda: bench.two.loaded == "first")
        enforcer.reset()
        await enforcer.request()
        assert bench.journal[-2:] == ["one loads second", "two loads first"]


async def test_each_engine_is_looked_at_in_its_own_time() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        for number in range(10):
            bench.rendered = replace(
                rendered("first"),
                revision=f"{number}",
                rules={"one": EngineRules(f"text {number}"), "two": EngineRules("first")},
            )
            bench.two.loaded = "meddled with"
            await enforcer.request()
            await asyncio.sleep(0.02)
        await eventually(lambda: bench.two.loaded == "first")
        assert enforcer.status.drifts > 0


async def test_an_engine_that_refuses_keeps_its_rules_and_is_asked_again() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.one.refuses = "second"
        bench.rendered = rendered("second")
        bench.plugs.append(_plug("c", "10.0.0.3"))
        await enforcer.request()
        assert bench.one.loaded == "first"
        assert enforcer.status.failures == {"one": "one refuses"}
        assert enforcer.enforced("a") == revision_of("first")
        assert enforcer.enforced("c") is None, "a port that no rules guard yet is not told to be guarded"
        bench.one.refuses = ""
        await eventually(lambda: enforcer.enforced("c") == revision_of("second"))
        assert enforcer.status.failures == {}


async def test_rules_that_cannot_be_made_change_nothing() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.broken = ValueError("a policy that nobody can read")
        await enforcer.request()
        assert bench.one.loaded == "first"
        assert "nobody can read" in enforcer.status.failures["compile"]
        bench.broken = None
        bench.rendered = rendered("second")
        await eventually(lambda: bench.one.loaded == "second")


async def test_meddled_rules_come_back_and_are_counted() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.two.loaded = "meddled with"
        await eventually(lambda: bench.two.loaded == "first")
        assert enforcer.status.drifts == 1
        bench.one.sees = Look.UNSURE
        bench.journal.clear()
        await eventually(lambda: bench.journal.count("one loads first") > 1)
        assert enforcer.status.drifts == 1, "what may have been somebody else's rules is loaded again and not counted"
        bench.one.sees = Look.INTACT
        bench.one.loaded = bench.two.loaded = ""
        enforcer.reset()
        await eventually(lambda: bench.one.loaded == bench.two.loaded == "first")


async def test_what_began_while_rules_were_meddled_with_is_cut() -> None:
    bench = Bench()
    bench.rendered = rendered("first", permits=lambda one: False)
    async with bench.running() as enforcer:
        bench.two.tracked = [Connection("TCP", "10.0.0.1", 1, "10.0.0.2", 80)]
        bench.one.loaded = "meddled with"
        await eventually(lambda: "two cuts 10.0.0.1 10.0.0.2" in bench.journal)
        assert enforcer.status.drifts == 1


async def test_connections_that_cannot_be_cut_are_told_and_tried_again() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.one.unreadable = "nobody lists them"
        bench.two.tracked = [Connection("TCP", "10.0.0.1", 1, "10.0.0.2", 80)]
        bench.rendered = rendered("second", permits=lambda one: False)
        await enforcer.request()
        assert "two cuts 10.0.0.1 10.0.0.2" in bench.journal, "the other engine's are cut all the same"
        assert "may live on: nobody lists them" in enforcer.status.failures["enforcer"]
        assert enforcer.enforced("a") == revision_of("second"), (
            "its port is guarded, and what is plugged in next may begin"
        )
        bench.plugs.pop()
        bench.one.tracked = [Connection("TCP", "10.0.0.2", 1, "192.0.2.1", 80)]
        await enforcer.request()
        bench.one.unreadable = ""
        await eventually(lambda: enforcer.status.failures == {})
        assert "one cuts 10.0.0.2 192.0.2.1" in bench.journal, "of a workload that went meanwhile"


async def test_only_denied_connections_are_cut() -> None:
    bench = Bench()
    kept = Connection("TCP", "10.0.0.1", 1, "10.0.0.2", 80)
    denied = Connection("TCP", "10.0.0.1", 2, "10.0.0.2", 81)
    foreign = Connection("TCP", "192.0.2.1", 3, "192.0.2.2", 81)
    async with bench.running() as enforcer:
        bench.one.tracked = [kept, denied, foreign]
        bench.rendered = rendered("second", permits=lambda one: one.destination_port != 81)
        await enforcer.request()
        assert bench.one.tracked == [kept, foreign]
        assert enforcer.status.cut == 1
        bench.one.tracked.append(denied)
        bench.one.refuses = "third"
        bench.rendered = rendered("third", permits=lambda one: one.destination_port != 81)
        await enforcer.request()
        bench.one.refuses = ""
        bench.rendered = rendered("fourth", forbids=False, permits=lambda one: one.destination_port != 81)
        await enforcer.request()
        assert bench.one.tracked == [kept, foreign], (
            "what a refused revision forbade is cut when the next one is loaded"
        )
        bench.plugs.pop()  # whoever gets the address next must not inherit a connection
        await enforcer.request()
        assert bench.one.tracked == [foreign]
        assert enforcer.enforced("b") is None


async def test_a_workload_is_told_of_its_own_rules_only() -> None:
    bench = Bench()
    bench.rendered = rendered("first", endpoints={"a": "one"})
    async with bench.running() as enforcer:
        assert enforcer.enforced("a") == "one"
        assert enforcer.enforced("b") is None, "nothing is known of it yet: its port is closed"
        bench.rendered = rendered("second", endpoints={"a": "one", "b": "two"})
        await enforcer.request()
        assert (enforcer.enforced("a"), enforcer.enforced("b")) == ("one", "two")
        assert bench.told == [frozenset({"a"}), frozenset({"b"})]
        bench.rendered = rendered("third", endpoints={})
        await enforcer.request()
        assert enforcer.enforced("a") is None


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_request_waits_for_a_pass_of_its_own(moment: str) -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.rendered = rendered("second")
        if moment == "before":
            enforcer.poke()
        await asyncio.gather(*(enforcer.request() for _ in range(5)))
        assert bench.one.loaded == "second"


@pytest.mark.parametrize("steps", range(6))
async def test_it_ends_also_while_something_changes(steps: int) -> None:
    """A change and the end in the same moment: the end must not be taken for an answer to the change."""
    made = Bench()
    await made.enforcer.start()
    await made.enforcer.request()
    await asyncio.sleep(0.01)  # it sleeps until something changes
    made.enforcer.poke()
    for _ in range(steps):
        await asyncio.sleep(0)
    closing = asyncio.ensure_future(made.enforcer.close())
    ended, _ = await asyncio.wait({closing}, timeout=2)
    assert ended == {closing}


async def test_an_engine_that_stumbles_is_told_and_tried_again() -> None:
    bench = Bench()
    async with bench.running() as enforcer:
        bench.two.stumbles = True
        bench.rendered = rendered("second")
        await enforcer.request()
        assert "unheard of" in enforcer.status.failures["enforcer"]
        assert enforcer.status.revision != bench.rendered.revision, "what was not cut is not enforced"
        bench.two.stumbles = False
        await eventually(lambda: enforcer.status.revision == bench.rendered.revision)
        assert enforcer.status.failures == {}
