"""A day of random events through the engine, without any store: what must hold after every batch, and a reference beside it.

The day has everything: two tenants of a cohort, Pods and machines, limits and capacity that change, budgets, victims that do not
leave, workloads that grow, restart or lose their gate, batches of several events, a shell that fails to write.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from isoplane.objects import metadata
from isoplane.quota import events
from isoplane.quota.decide import decide
from isoplane.quota.ledger import Ledger
from isoplane.quota.lines import lines_of
from isoplane.quota.model import Admit, Ask, Wait
from isoplane.quota.places import KEPT
from isoplane.quota.release import LOOK_AHEAD, ask_of, release
from isoplane.workload.adapters import QUOTA_GATE
from quota_shells_support import PRIORITIES, TENANTS, MemoryShell, Refused, adapter_of

CASES = 4_000 if os.environ.get("CI") else 100
seeds = st.integers(0, 2**63)


class Day(MemoryShell):
    """Random people, and what must hold whatever they do."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = Random(seed)
        self.seen: Counter[str] = Counter()
        self.shrunk: set[str] = set()
        """Tenants whose limits were lowered, or where something grew or runs that nobody admitted."""

    async def begin(self) -> None:
        rng = self.rng
        await self.capacity(str(rng.randint(6, 10)))
        for tenant in TENANTS:
            policy: dict[str, Any] = {"evictionThreshold": rng.choice([5, 50, 500]), "cohort": "default"}
            policy |= {"guaranteed": {"cpu": rng.choice("123")}, "minRunSeconds": rng.choice([0, 0, 30])}
            policy |= rng.choice([{}, {"borrowingLimit": {"cpu": "3"}}, {"lendingLimit": {"cpu": "1"}}])
            await self.limits(tenant, {"requests.cpu": rng.choice("4567"), "pods": "7"}, **policy)

    async def step(self) -> None:
        rng = self.rng
        self.now += rng.choice([1, 1, 5, 40, 160])
        names = [(metadata.name(obj), metadata.namespace(obj)) for obj in self.objects.values()]
        kinds = {"create": 14, "gone": 5, "delete": 2, "retry": 2}
        others = ("limits", "capacity", "ungate", "resize", "restart", "time", "budget", "unwritable")
        what = rng.choices([*kinds, *others], [*kinds.values(), *[1] * len(others)])[0]
        if not names:
            what = "create"
        who = rng.choice(names) if names else ("", "")
        self.seen[what] += 1
        try:
            await getattr(self, f"do_{what}")(*who)
        except Refused:
            self.seen["refused"] += 1

    async def do_create(self, *_: str) -> None:
        rng = self.rng
        name = f"{rng.choice('pv')}{self.serial}"
        await self.create(
            name,
            rng.choice("aab"),
            cpu=rng.choice("123"),
            priority=rng.choice(list(PRIORITIES)),
            owned=rng.random() < 0.7,
        )

    async def do_gone(self, name: str, tenant: str) -> None:
        await self.gone(name, tenant)

    async def do_delete(self, name: str, tenant: str) -> None:
        await self.delete(name, tenant)

    async def do_retry(self, name: str, tenant: str) -> None:
        if self.ledger.waiter(tenant, metadata.uid(self._find(name, tenant))):
            await self.retry(name, tenant)

    async def do_limits(self, name: str, tenant: str) -> None:
        self.shrunk.add(tenant)
        await self.limits(tenant, {"requests.cpu": self.rng.choice("34567"), "pods": "7"})

    async def do_capacity(self, *_: str) -> None:
        self.shrunk |= set(TENANTS)
        await self.capacity(str(self.rng.randint(5, 10)))

    async def do_ungate(self, name: str, tenant: str) -> None:
        """Somebody takes a gate away by hand."""
        obj = self._find(name, tenant)
        uid = metadata.uid(obj)
        if QUOTA_GATE in self._demand(obj).gates:
            self.objects[uid] = adapter_of(obj).ungate(obj, self.now)
            self.tell(events.Changed(self._demand(self.objects[uid])))

    async def do_resize(self, name: str, tenant: str) -> None:
        obj = self._find(name, tenant)
        if obj["kind"] != "Pod" or metadata.is_deleting(obj):
            return
        new = copy.deepcopy(obj)
        new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = self.rng.choice("123")
        self.objects[metadata.uid(obj)] = new
        try:
            self.tell(events.Changed(self._demand(new)))
        except Refused:
            self.objects[metadata.uid(obj)] = obj
            raise

    async def do_restart(self, name: str, tenant: str) -> None:
        """A machine's owner stops it and makes it again."""
        obj = self._find(name, tenant)
        charge = self.ledger.charge(tenant, metadata.uid(obj))
        if obj["kind"] == "Pod" or charge is None or charge.evicting:
            return
        owner = f"vm-{self.serial}"
        del self.objects[charge.uid]
        self.tell(events.Removed(tenant, charge.uid, owner))
        if self.rng.random() < 0.3:
            self.now += KEPT + 1  # nobody comes
            self.tell(events.TimePassed(tenant))
        self.serial += 1
        again = {**obj, "metadata": {**obj["metadata"], "uid": f"uid-{self.serial:06}"}}
        self.objects[metadata.uid(again)] = again
        self.tell(events.Requested(self._demand(again), queues=True, owner=owner))

    async def do_time(self, _: str, tenant: str) -> None:
        self.tell(events.TimePassed(tenant))

    async def do_unwritable(self, *_: str) -> None:
        """For one batch some of those who wait cannot be written."""
        everyone = [pending.charge.uid for tenant in TENANTS for pending in self.ledger.waiting(tenant)]
        self.unwritable = {uid for uid in everyone if self.rng.random() < 0.5}
        try:
            for tenant in TENANTS:
                for charge in [c for c in self.ledger.charges(tenant) if c.uid in self.objects][:2]:
                    del self.objects[charge.uid]
                    self.tell(events.Removed(tenant, charge.uid))
        finally:
            self.unwritable = set()
            self.tell(*map(events.TimePassed, TENANTS))

    async def do_budget(self, name: str, tenant: str) -> None:
        self.budget(tenant, [name], self.rng.choice([0, 1]))

    # what must hold

    def check(self) -> None:
        for tenant in TENANTS:
            truth, book = self.ledger.recount(tenant), self.ledger.book(tenant)
            assert book.same(truth), "the sums are those of the entries"
            for quota in self.ledger.quotas(tenant):
                totals = self.ledger.totals(tenant, quota.name)
                for name, limit in quota.hard.items():
                    if tenant not in self.shrunk:
                        assert totals.used.get(name, 0) <= limit, "U passes H"
                        assert totals.soft(name) <= limit, "U - evicting + reserved passes H"
                used = {name: totals.used.get(name, 0) for name in quota.hard}
                assert self.published[tenant].keys() == used.keys()
        cohort = self.ledger.cohort("default")
        assert cohort is not None
        assert self.ledger.cohort_totals("default").same(self.ledger.recount_cohort(cohort))

    def check_nobody_waits_who_could_run(self) -> None:
        for tenant in TENANTS:
            for pending in self.ledger.line(tenant).front(LOOK_AHEAD):
                decision = decide(self.ledger, ask_of(pending), self.now)
                assert not isinstance(decision, Admit), f"{pending.charge.id} could run"

    def check_victims(self) -> None:
        """Whoever was told to leave in this batch leaves for somebody who runs or has a reservation, and would not without."""
        reclaims = {preempt.preemptor.uid for preempt in self.preempted if preempt.victim.rule == "reclaim"}
        for preempt in self.preempted:
            victim, whom = preempt.charge, preempt.preemptor
            if preempt.victim.rule == "in-tenant" and whom.uid in reclaims:
                continue  # it leaves so that its own tenant is within its guarantee, and may reclaim
            freed = copy_of(self.ledger)
            freed.change(victim)  # as it was: it stays
            pending = self.ledger.waiter(whom.tenant, whom.uid)
            if pending is not None:
                assert pending.held
                assert victim.id in pending.victims
                assert max(line.short for line in lines_of(freed, ask_of(pending))) > 0, f"{victim.id} need not leave"
            else:
                assert self.ledger.charge(whom.tenant, whom.uid), f"{victim.id} leaves for nobody"
                freed.remove(whom.tenant, whom.uid)
                lines = lines_of(freed, Ask(whom))
                assert max(line.short for line in lines) > 0, f"{victim.id} need not leave"
        self.preempted.clear()


def copy_of(ledger: Ledger) -> Ledger:
    return copy.deepcopy(ledger)


@settings(max_examples=CASES)
@given(seeds)
async def test_a_day_of_events_keeps_every_invariant(seed: int) -> None:
    day = Day(seed)
    await day.begin()
    for _ in range(40):
        await day.step()
        day.check()
        await day.picture()
        day.check_victims()
        day.tell(*map(events.TimePassed, TENANTS))
        day.check_nobody_waits_who_could_run()


async def test_the_days_reach_what_they_are_about() -> None:
    seen: Counter[str] = Counter()
    for seed in range(60):
        day = Day(seed)
        await day.begin()
        for _ in range(40):
            await day.step()
        seen += day.seen
        seen += Counter(f"{entry.act} {entry.rule}" for entry in day.entries)
    wanted = [
        "evict in-tenant", "evict reclaim", "evict priority", "expire hold-expired", "expire stuck", "expire not-restarted",
        "release fits", "wait given-back", "wait in-line", "refuse grown", "refuse exceeded", "admit restarted",
    ]  # fmt: skip
    assert {name for name in wanted if seen[name] < 3} == set(), seen


def reference(ledger: Ledger, tenant: str, now: float) -> list[str]:
    """Who comes in, without any shortcut: again and again the first of all who fits, reservations before the queue."""
    let_in: list[str] = []
    while True:
        line = ledger.line(tenant)
        for pending in [*line.held(), *line.front(len(line))]:
            ask = ask_of(pending)
            decision = decide(ledger, ask, now)
            if isinstance(decision, Admit):
                ledger.add(pending.charge)
                let_in.append(pending.charge.uid)
                break
            if isinstance(decision, Wait) and decision.held and not pending.held:
                ledger.commit(ask, decision, now)
                break
        else:
            return let_in


@settings(max_examples=CASES)
@given(seeds)
async def test_who_comes_in_is_who_comes_in_without_any_shortcut(seed: int) -> None:
    day = Day(seed)
    await day.begin()
    for _ in range(30):
        await day.step()
        tenant = day.rng.choice(TENANTS)
        mine, other = copy_of(day.ledger), copy_of(day.ledger)
        for ledger in (mine, other):
            for charge in [c for c in ledger.charges(tenant) if c.evicting][:2]:
                ledger.remove(tenant, charge.uid)
        came = [pending.charge.uid for pending in release(mine, tenant, day.now)]
        assert sorted(came) == sorted(reference(other, tenant, day.now))
