"""Every invariant of quota, on random histories of arrivals, ends, deletions and changed limits.

A small world plays the server's part: it carries out what is decided, lets victims go when told to, lets their owners create them
again, and wakes who waits.  After every step the books must balance.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from isoplane.quota.decide import MAX_PLANS, decide
from isoplane.quota.ledger import Ledger
from isoplane.quota.model import Admit, Ask, Charge, Cohort, Deny, Policy, Quota, ScopeTerm, Wait
from isoplane.quota.release import ask_of, release
from isoplane.quota.scopes import counts

CASES = 10_000 if os.environ.get("CI") else 400
RESOURCES = ("requests.cpu", "requests.memory", "pods")
GOLD = ScopeTerm("PriorityClass", "In", frozenset({"gold"}))


@dataclass
class World:
    """A ledger, and what a server would do with its decisions."""

    state: Ledger
    cohort: bool
    now: float = 0
    evictions: int = 0
    births: int = 0
    owned: set[str] = field(default_factory=set)
    lowered: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)

    def arrive(
        self, tenant: str, priority: int, gold: bool, amounts: tuple[int, ...], owned: bool, never: bool
    ) -> None:
        self.births += 1
        self.now += 1
        charge = Charge(
            uid=f"u{self.births:04}",
            id=f"pod/{tenant}/u{self.births:04}",
            tenant=tenant,
            amounts=dict(zip(RESOURCES, amounts, strict=True)),
            priority=priority,
            priority_class="gold" if gold else "",
            cost=1 if amounts[0] % 2 else 10,
            created=self.now,
        )
        self.ask(Ask(charge, owned=owned, preempts=not never))

    def ask(self, ask: Ask) -> None:
        before = self.picture()
        decision = decide(self.state, ask, self.now)
        assert self.picture() == before, "deciding writes nothing"
        assert decide(self.state, ask, self.now) == decision
        self.seen[decision.rule] += 1
        if ask.owned:
            self.owned.add(ask.charge.uid)
        if isinstance(decision, Admit):
            self.state.add(replace(ask.charge, since=self.now))
            self.admitted(ask.charge)
        elif isinstance(decision, Wait):
            self.check_plan(ask, decision)
            self.evictions += len(decision.victims)
            self.seen.update([victim.rule for victim in decision.victims])
            self.seen["bumped"] += len(decision.bumped)
            self.state.commit(ask, decision, self.now)
        else:
            assert isinstance(decision, Deny)
            assert not ask.owned

    def check_plan(self, ask: Ask, wait: Wait) -> None:
        """The victims are legal, they suffice, and none of them is superfluous."""
        own = ask.charge.tenant
        policy = self.state.policy(own)
        for victim in wait.victims:
            assert not victim.charge.evicting
            assert ask.preempts
            if victim.rule != "reclaim":
                assert policy.threshold is not None
                assert ask.charge.priority > policy.threshold
                assert victim.charge.priority < ask.charge.priority
            if victim.charge.tenant != own:
                whole = self.state.whole(victim.charge.tenant)
                floor = self.state.policy(victim.charge.tenant).guaranteed
                assert any(whole.soft(r) > floor.get(r, 0) for r in RESOURCES), "no reclaim within a guarantee"
        if not wait.victims and not wait.bumped:
            return
        assert wait.held
        assert self.would_fit(ask, wait, skip=""), "nobody leaves unless that makes room"
        for uid in [v.charge.uid for v in wait.victims] + list(wait.bumped):
            needed = not self.would_fit(ask, wait, skip=uid) or self.reclaims_too_much(ask, wait, skip=uid)
            assert needed, "everybody who leaves is needed"

    def reclaims_too_much(self, ask: Ask, wait: Wait, skip: str) -> bool:
        """Whether without one of its own who leaves the tenant would take back what it is not guaranteed."""
        own = ask.charge.tenant
        if not any(v.rule == "reclaim" and v.charge.uid != skip for v in wait.victims):
            return False
        gone = [v.charge for v in wait.victims if v.charge.tenant == own and v.charge.uid != skip]
        floor, whole = self.state.policy(own).guaranteed, self.state.whole(own)
        return any(
            whole.soft(line.resource) + line.need - sum(c.amounts.get(line.resource, 0) for c in gone)
            > floor.get(line.resource, 0)
            for line in wait.lines
            if line.shared and line.short > 0
        )

    def would_fit(self, ask: Ask, wait: Wait, skip: str) -> bool:
        """Whether it fits once the plan's people (but one) are leaving: read off a ledger built anew."""
        copy = self.rebuilt(reverse=True)
        for victim in wait.victims:
            if victim.charge.uid != skip:
                copy.change(replace(victim.charge, evicting=True))
        for uid in wait.bumped:
            waiting = copy.waiter(ask.charge.tenant, uid)
            if uid != skip and waiting is not None:
                copy.wait(replace(waiting, held=False))
        decision = decide(copy, replace(ask, may_evict=False), self.now)
        return all(line.short <= 0 for line in decision.lines)

    def rebuilt(self, reverse: bool) -> Ledger:
        """The same state, entered in another order."""
        copy = Ledger()
        for tenant in ("a", "b"):
            copy.set_quotas(tenant, self.state.quotas(tenant))
            copy.set_policy(tenant, self.state.policy(tenant))
        if cohort := self.state.cohort("default"):
            copy.set_cohort(cohort)
        for tenant in ("a", "b"):
            for charge in sorted(self.state.charges(tenant), key=lambda c: c.uid, reverse=reverse):
                copy.add(charge)
            for waiting in sorted(self.state.waiting(tenant), key=lambda w: w.charge.uid, reverse=reverse):
                copy.wait(waiting)
        return copy

    def admitted(self, charge: Charge) -> None:
        """What was just admitted passes no limit, lowered or not."""
        for quota in self.state.quotas(charge.tenant):
            if counts(quota, charge):
                totals = self.state.totals(charge.tenant, quota.name)
                for resource, limit in quota.hard.items():
                    if charge.amounts.get(resource, 0) > 0:
                        assert totals.used.get(resource, 0) <= limit

    def leave(self, index: int) -> None:
        """Someone is really gone: a victim at the end of its grace period, or a workload that ended."""
        everyone = self.everyone()
        if not everyone:
            return
        gone = everyone[index % len(everyone)]
        self.state.remove(gone.tenant, gone.uid)
        self.wake()
        if gone.evicting and gone.uid in self.owned:
            self.births += 1
            again = replace(gone, uid=f"u{self.births:04}", evicting=False, created=self.now)
            self.ask(Ask(again, owned=True))

    def everyone(self) -> list[Charge]:
        return [c for tenant in ("a", "b") for c in sorted(self.state.charges(tenant), key=lambda c: c.uid)]

    def leaving(self) -> list[Charge]:
        return [c for c in self.everyone() if c.evicting]

    def wake(self) -> None:
        for tenant in ("a", "b"):
            for waiting in release(self.state, tenant, self.now):
                self.admitted(waiting.charge)

    def retry(self) -> None:
        """The repair pass: whoever waits without a hold may plan anew, a bounded number of times."""
        for tenant in ("a", "b"):
            for waiting in list(self.state.waiting(tenant)):
                if not waiting.held and self.state.waiter(tenant, waiting.charge.uid) is not None:
                    current = self.state.waiter(tenant, waiting.charge.uid)
                    assert current is not None
                    self.ask(ask_of(current, may_evict=current.plans < MAX_PLANS))

    def picture(self) -> object:
        return [
            (t, list(self.state.charges(t)), list(self.state.waiting(t)), self.state.book(t).copy()) for t in ("a", "b")
        ]

    def balance(self) -> None:
        for tenant in ("a", "b"):
            book, truth = self.state.book(tenant), self.state.recount(tenant)
            for quota in self.state.quotas(tenant):
                got, want = book.quotas.get(quota.name), truth.quotas[quota.name]
                for resource, limit in quota.hard.items():
                    used = want.used.get(resource, 0)
                    assert (got.used.get(resource, 0) if got else 0) == used
                    assert (got.soft(resource) if got else 0) == want.soft(resource)
                    if f"{tenant}/{quota.name}" not in self.lowered:
                        assert used <= limit, "U passes H"
                        assert want.soft(resource) <= limit, "U - E + R passes H"
            assert book.whole == truth.whole
            both = {c.uid for c in self.state.charges(tenant)} & {w.charge.uid for w in self.state.waiting(tenant)}
            assert not both, "gated is uncharged"
        if cohort := self.state.cohort("default"):
            totals, truth_of = self.state.cohort_totals("default"), self.state.recount_cohort(cohort)
            for resource, limit in cohort.capacity.items():
                assert totals.taken.get(resource, 0) == truth_of.taken.get(resource, 0)
                assert totals.claimed.get(resource, 0) == truth_of.claimed.get(resource, 0)
                assert totals.taken.get(resource, 0) <= limit, "U passes the cohort's capacity"
                assert totals.claimed.get(resource, 0) <= limit, "U - E + R passes the cohort's capacity"


def world_of(rng: Random) -> World:
    """Two tenants near their limits: where nothing is scarce, nothing is tested."""
    state = Ledger()
    shared = rng.random() < 0.5
    for tenant in ("a", "b"):
        hard = {"requests.cpu": rng.randint(6, 14), "requests.memory": rng.randint(6, 14), "pods": rng.randint(3, 9)}
        quotas = [Quota("all", hard)]
        if rng.random() < 0.3:
            quotas.append(Quota("gold", {"requests.cpu": rng.randint(2, 8)}, (GOLD,)))
        state.set_quotas(tenant, quotas)
        policy = Policy(threshold=rng.choice([None, -1, -1, 0, 1]), min_run=rng.choice([0, 0, 0, 3]))
        if shared:
            policy = replace(
                policy,
                guaranteed={"requests.cpu": rng.randint(2, 5), "requests.memory": rng.randint(2, 5)},
                borrowing=rng.choice([{}, {}, {"requests.cpu": 3}]),
                lending=rng.choice([{}, {}, {"requests.cpu": 1}]),
                cohort="default",
            )
        state.set_policy(tenant, policy)
    if shared:
        state.set_cohort(
            Cohort("default", {"requests.cpu": rng.randint(10, 13), "requests.memory": rng.randint(10, 14)})
        )
    return World(state, shared)


def amounts_of(rng: Random) -> tuple[int, int, int]:
    return (rng.randint(0, 5), rng.randint(0, 5), 1)


def history_of(rng: Random, length: int) -> list[tuple]:
    """Mostly arrivals, then ends, deletions, changed limits and repair passes."""
    history: list[tuple] = []
    for _ in range(length):
        match rng.choices(["arrive", "leave", "delete", "limit", "retry"], [12, 4, 2, 1, 2])[0]:
            case "arrive":
                row = (rng.choice("aab"), rng.randint(0, 5), rng.random() < 0.4, amounts_of(rng))
                history.append(("arrive", *row, rng.random() < 0.4, rng.random() < 0.1))
            case "limit":
                history.append(("limit", rng.choice("ab"), rng.randint(0, 14)))
            case "retry":
                history.append(("retry",))
            case step:
                history.append((step, rng.randint(0, 30)))
    return history


seeds = st.integers(0, 2**63)
"""Drawn by seed, not by structure: shrinking matters less here than reaching crowded states."""


def play(world: World, step: tuple) -> None:
    state = world.state
    match step:
        case ("arrive", *rest):
            world.arrive(*rest)
        case ("leave", index):
            world.leave(index)
        case ("delete", index):
            everyone = world.everyone()
            if everyone:
                state.change(replace(everyone[index % len(everyone)], evicting=True))
                world.wake()
        case ("limit", tenant, value):
            first, *others = state.quotas(tenant)
            if value < first.hard["requests.cpu"]:
                world.lowered.add(f"{tenant}/all")
            state.set_quotas(tenant, [replace(first, hard={**first.hard, "requests.cpu": value}), *others])
            world.wake()
        case ("retry",):
            world.retry()


@settings(max_examples=CASES)
@given(seeds, st.integers(1, 25))
def test_the_books_balance_whatever_happens(seed: int, length: int) -> None:
    rng = Random(seed)
    world = world_of(rng)
    for step in history_of(rng, length):
        play(world, step)
        world.balance()


@settings(max_examples=CASES // 4)
@given(seeds, st.integers(5, 25))
def test_preemptions_end_when_arrivals_end(seed: int, length: int) -> None:
    """Owners create their victims again at once and everyone who waits plans as often as allowed: it comes to rest."""
    rng = Random(seed)
    world = world_of(rng)
    for step in history_of(rng, length):
        play(world, step)
    before = world.evictions
    for _ in range(400):
        leaving = world.leaving()
        if not leaving:
            world.retry()
            leaving = world.leaving()
            if not leaving:
                break
        world.leave(world.everyone().index(leaving[0]))
        world.now += 10
        world.balance()
    else:
        raise AssertionError(f"still evicting after {world.evictions - before} evictions")


@settings(max_examples=CASES // 4)
@given(seeds, st.integers(1, 25))
def test_a_decision_does_not_depend_on_the_order_of_the_past(seed: int, length: int) -> None:
    rng = Random(seed)
    world = world_of(rng)
    for step in history_of(rng, length):
        play(world, step)
    tenant, amounts = rng.choice("ab"), dict(zip(RESOURCES, amounts_of(rng), strict=True))
    asked = Ask(Charge("zz", f"pod/{tenant}/zz", tenant, amounts, rng.randint(0, 5)))
    assert decide(world.rebuilt(False), asked, 99) == decide(world.rebuilt(True), asked, 99)


@settings(max_examples=CASES // 4)
@given(seeds, st.integers(2, 14))
def test_nobody_evicts_whoever_evicted_them(seed: int, length: int) -> None:
    """No pair preempts each other: whoever left for somebody never makes that somebody leave."""
    rng = Random(seed)
    world = world_of(rng)
    for _ in range(length):
        tenant, amounts = rng.choice("ab"), dict(zip(RESOURCES, amounts_of(rng), strict=True))
        world.births += 1
        charge = Charge(f"u{world.births}", f"pod/{tenant}/u{world.births}", tenant, amounts, rng.randint(0, 5))
        decision = decide(world.state, Ask(charge, owned=True), 0)
        if isinstance(decision, Admit):
            world.state.add(charge)
        elif isinstance(decision, Wait):
            world.state.commit(Ask(charge, owned=True), decision, 0)
            for victim in decision.victims:
                world.state.remove(victim.charge.tenant, victim.charge.uid)
            world.wake()
            for victim in decision.victims:
                back = decide(world.state, Ask(victim.charge, owned=True), 0)
                assert not (isinstance(back, Wait) and charge.uid in {v.charge.uid for v in back.victims})


def test_the_histories_reach_every_rule() -> None:
    """A property that is never put to the test proves nothing."""
    seen: Counter[str] = Counter()
    for seed in range(150):
        rng = Random(seed)
        world = world_of(rng)
        world.seen = seen
        for step in history_of(rng, 25):
            play(world, step)
    rules = {"fits", "given-back", "evict", "in-line", "exceeded", "in-tenant", "reclaim", "priority", "bumped"}
    assert {rule for rule in rules if seen[rule] < 3} == set(), seen


@settings(max_examples=CASES // 10)
@given(seeds, st.integers(5, 30))
def test_adversarial_arrivals_evict_a_bounded_number_of_times(seed: int, length: int) -> None:
    """Whoever is evicted comes back at once, and somebody a little higher always comes. Still nobody is evicted by the same one
    more often than it may plan, and nobody more often than others came: an eviction needs a fresh claim."""
    rng = Random(seed)
    world = world_of(rng)
    lineage: dict[str, str] = {}
    by: Counter[tuple[str, str]] = Counter()
    evicted: Counter[str] = Counter()
    claims = 0
    asked = world.ask

    def ask(request: Ask) -> None:
        nonlocal claims
        lineage.setdefault(request.charge.uid, request.charge.uid)
        before = {c.uid for c in world.leaving()}
        claims += not request.gated
        asked(request)
        for gone in world.leaving():
            if gone.uid not in before:
                by[lineage[gone.uid], request.charge.uid] += 1
                evicted[lineage[gone.uid]] += 1

    world.ask = ask  # type: ignore[method-assign]
    for _ in range(length):
        present = world.everyone()
        top = max((c.priority for c in present), default=0)
        tenant = rng.choice("aab")
        world.arrive(
            tenant, min(top + 1, 9) if rng.random() < 0.7 else rng.randint(0, 5), False, amounts_of(rng), True, False
        )
        for gone in world.leaving():
            if rng.random() < 0.7:
                line = lineage[gone.uid]
                world.state.remove(gone.tenant, gone.uid)
                world.wake()
                world.births += 1
                again = replace(gone, uid=f"u{world.births:04}", evicting=False, created=world.now)
                lineage[again.uid] = line
                world.ask(Ask(again, owned=True))
        if rng.random() < 0.3:
            world.retry()
        world.balance()
    assert max(by.values(), default=0) <= MAX_PLANS
    assert max(evicted.values(), default=0) <= claims
