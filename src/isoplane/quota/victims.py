"""The victims: the smallest legal set, in a fixed order, whose leaving makes room on every short line at once.

Greedy, then give back: take candidates in order until everything fits, then return, last first, whoever is not needed.
The result is inclusion-minimal: dropping anyone breaks the fit.  When even all of them would not make room, none is taken.

Rules, by which a candidate may be taken:

    in-tenant   its own tenant's, strictly lower priority; the only cure for a quota's own limit
    reclaim     the asking tenant is within its guarantee, the other above its own; priority is not compared
    priority    shared capacity is short: another tenant's, strictly lower priority, and its guarantee stays whole

They are tried from the kindest to what nothing else can replace:

    1 reclaim alone, guarantees whole          who lent gets back what it lent, and keeps its own workloads
    2 reclaim alone, partly within a guarantee
    3 everything together, guarantees whole
    4 everything together; by priority also what is at least twice as big as its tenant's guarantee
    5 own workloads first, then reclaim, where the asking tenant is within its guarantee once its own have left
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from isoplane.quota.lines import within_guarantee
from isoplane.quota.model import Ask, Charge, Line, Policy, Quota, Spared, Victim
from isoplane.quota.scopes import counts
from isoplane.quota.view import View

IN_TENANT, RECLAIM, PRIORITY, HOLD = "in-tenant", "reclaim", "priority", "hold"
SPARED_SHOWN = 20
"""How many spared workloads a refusal lists at most."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Someone who may be taken: a charged workload, or (rule ``hold``) a waiter whose hold gives way."""

    charge: Charge
    rule: str
    relief: tuple[tuple[int, int], ...]
    """(index of a short line, how much of it comes back)."""
    order: tuple[float | str, ...]
    conditional: bool = False
    """Whether it may be reclaimed only once the asking tenant's own victims brought it within its guarantee."""


@dataclass(frozen=True, slots=True)
class Plan:
    victims: tuple[Victim, ...]
    bumped: tuple[str, ...]


def candidates(view: View, ask: Ask, short: Sequence[Line], now: float) -> list[Candidate]:
    """Everyone who may be taken for ``ask`` and would help, in the order of taking.

    Holds first, then nobody whose PodDisruptionBudget is exhausted before anyone else's; borrowers before the own tenant; the
    greatest share; the lowest priority; the cheapest disruption; the newest; the uid.
    """
    own = ask.charge.tenant
    policy = view.policy(own)
    found: list[Candidate] = []
    if policy.threshold is not None and ask.charge.priority > policy.threshold:
        found += _in_tenant(view, ask, short, policy, now)
    if policy.cohort and any(line.shared for line in short):
        found += _from_others(view, ask, short, policy, now, [c.charge for c in found if c.rule == IN_TENANT])
    found.sort(key=lambda candidate: candidate.order)
    return _budgeted(view, found)


def _relief(charge: Charge, short: Sequence[Line], shared_only: bool) -> tuple[tuple[int, int], ...]:
    """What of each short line the charge takes."""
    amounts = charge.amounts
    relief = []
    for i, line in enumerate(short):
        amount = amounts.get(line.resource, 0)
        if amount <= 0 or (shared_only and not line.shared):
            continue
        relief.append((i, amount))
    return tuple(relief)


def _in_tenant(view: View, ask: Ask, short: Sequence[Line], policy: Policy, now: float) -> list[Candidate]:
    own, priority = ask.charge.tenant, ask.charge.priority
    scoped = {quota.name: quota for quota in view.quotas(own) if quota.scopes}
    needs_scope = any(line.node.startswith("quota/") and line.name in scoped for line in short)
    resources = [(i, line.resource) for i, line in enumerate(short)]
    latest = now - policy.min_run
    found: list[Candidate] = []
    for charge in view.charges(own):
        if charge.priority >= priority or charge.evicting or charge.finished or charge.migrating:
            continue
        if policy.min_run and charge.since > latest:
            continue
        amounts = charge.amounts
        relief = tuple([(i, amounts[name]) for i, name in resources if amounts.get(name, 0) > 0])
        if needs_scope and relief:
            relief = tuple(r for r in relief if _counted(short[r[0]], scoped, charge))
        if relief:
            order = (1, 1, 0, charge.priority, charge.cost, -charge.created, charge.uid)
            found.append(Candidate(charge, IN_TENANT, relief, order))
    for waiter in view.waiting(own):
        charge = waiter.charge
        if waiter.held and charge.priority < priority and charge.uid != ask.charge.uid:
            relief = tuple(r for r in _relief(charge, short, False) if _counted(short[r[0]], scoped, charge))
            if relief:
                found.append(
                    Candidate(charge, HOLD, relief, (0, 1, 0, charge.priority, 0, -charge.created, charge.uid))
                )
    return found


def _counted(line: Line, scoped: Mapping[str, Quota], charge: Charge) -> bool:
    """Whether the line's quota counts the charge; only a scoped one may not."""
    quota = scoped.get(line.name) if line.node.startswith("quota/") else None
    return quota is None or counts(quota, charge)


def _from_others(
    view: View, ask: Ask, short: Sequence[Line], policy: Policy, now: float, mine: Sequence[Charge]
) -> list[Candidate]:
    own = ask.charge.tenant
    cohort = view.cohort(policy.cohort)
    reclaims = within_guarantee(view, ask, short)
    above = policy.threshold is not None and ask.charge.priority > policy.threshold
    if cohort is None or not (reclaims or above):
        return []
    wanted = [line.resource for line in short if line.shared]
    later = not reclaims and _within_after(view, ask, wanted, policy, mine)
    found: list[Candidate] = []
    for tenant in view.members(policy.cohort):
        if tenant == own:
            continue
        theirs, whole = view.policy(tenant), view.whole(tenant)
        over = {r: whole.soft(r) - theirs.guaranteed.get(r, 0) for r in wanted}
        if all(value <= 0 for value in over.values()):
            continue
        share = max(over[r] / cohort.capacity[r] if cohort.capacity[r] else 1.0 for r in wanted)
        latest = now - theirs.min_run
        for charge in view.charges(tenant):
            if charge.evicting or charge.finished or charge.migrating:
                continue
            if theirs.min_run and charge.since > latest:
                continue
            relief = _relief(charge, short, True)
            if not relief:
                continue
            order = (1, 0, -share, charge.priority, charge.cost, -charge.created, charge.uid)
            if reclaims or charge.priority < ask.charge.priority:
                found.append(Candidate(charge, RECLAIM if reclaims else PRIORITY, relief, order))
            if later:
                found.append(Candidate(charge, RECLAIM, relief, order, conditional=True))
    return found


def _within_after(view: View, ask: Ask, wanted: Iterable[str], policy: Policy, mine: Sequence[Charge]) -> bool:
    """Whether the asking tenant is within its guarantee with the ask once every own workload that may go has gone."""
    whole = view.whole(ask.charge.tenant)
    for resource in wanted:
        need = 0 if ask.holding else ask.charge.amounts.get(resource, 0)
        given = sum(charge.amounts.get(resource, 0) for charge in mine)
        if whole.soft(resource) + need - given > policy.guaranteed.get(resource, 0):
            return False
    return True


def _budgeted(view: View, found: list[Candidate]) -> list[Candidate]:
    """Those whose PodDisruptionBudget is used up by the ones before them go to the end, in the same order."""
    left: dict[str, list[tuple[frozenset[str], list[int]]]] = {}
    spare: list[Candidate] = []
    last: list[Candidate] = []
    for candidate in found:
        tenant = candidate.charge.tenant
        if tenant not in left:
            left[tenant] = [(budget.members, [budget.allowed]) for budget in view.budgets(tenant)]
        broken = False
        if candidate.rule != HOLD:
            for members, allowed in left[tenant]:
                if candidate.charge.uid in members:
                    allowed[0] -= 1
                    broken = broken or allowed[0] < 0
        (last if broken else spare).append(candidate)
    return spare + last


@dataclass(slots=True)
class Room:
    """What is still missing on each short line while candidates are taken and given back."""

    short: list[int]
    shared: dict[int, str]
    """Index of a cohort line → its resource: what comes back there depends on who gives it."""
    takes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Tenant → resource → U − E + R at this point of the search."""
    floors: dict[str, Policy] = field(default_factory=dict)
    own: str = ""
    """The asking tenant; what it takes includes the ask."""
    conditional: int = 0
    """How many are taken that may be only while the asking tenant is within its guarantee."""

    def fits(self) -> bool:
        return max(self.short) <= 0 and (not self.conditional or self.within())

    def within(self) -> bool:
        """Whether the asking tenant is within its guarantee in what it shares and is short of."""
        takes, guaranteed = self.takes[self.own], self.floors[self.own].guaranteed
        return all(takes[r] <= guaranteed.get(r, 0) for r in self.shared.values())

    def legal(self, candidate: Candidate, straddling: bool) -> bool:
        """Whether the rule still holds after those taken before.

        With ``straddling``, reclaim may take a workload that is partly within its tenant's guarantee, and priority one that is
        at least twice as big.
        """
        tenant, rule = candidate.charge.tenant, candidate.rule
        if rule in (IN_TENANT, HOLD):
            return True
        if candidate.conditional and not self.within():
            return False
        takes, floor = self.takes[tenant], self.floors[tenant]
        if rule == RECLAIM and straddling:
            # Only from above the guarantee, in something that is short and that this one holds.
            return any(
                takes[r] > floor.guaranteed.get(r, 0) for i, r in self.shared.items() if self._holds(candidate, i)
            )
        amounts = candidate.charge.amounts
        if straddling:
            return all(
                _mostly_above(takes[r], amounts.get(r, 0), floor.guaranteed.get(r, 0)) for r in self.shared.values()
            )
        return all(takes[r] - amounts.get(r, 0) >= floor.guaranteed.get(r, 0) for r in self.shared.values())

    @staticmethod
    def _holds(candidate: Candidate, line: int) -> bool:
        return any(i == line for i, _ in candidate.relief)

    def move(self, candidate: Candidate, sign: int) -> None:
        """Take (+1) or give back (−1)."""
        tenant = candidate.charge.tenant
        self.conditional += sign * candidate.conditional
        for i, amount in candidate.relief:
            resource = self.shared.get(i)
            if resource is None:
                self.short[i] -= sign * amount
                continue
            takes, reserve = self.takes[tenant], self.floors[tenant].reserve(resource)
            before = takes[resource]
            takes[resource] = before - sign * amount
            self.short[i] -= max(before, reserve) - max(takes[resource], reserve)


def _mostly_above(takes: int, amount: int, guaranteed: int) -> bool:
    """Whether a workload of ``amount`` is so big beside its tenant's guarantee that at least half of it lies above,
    whatever else the tenant runs. A guarantee would else make any workload immune, however small it is."""
    return takes - amount >= guaranteed or (amount >= 2 * guaranteed and takes - amount // 2 >= guaranteed)


def room_of(view: View, short: Sequence[Line], found: Iterable[Candidate], ask: Ask) -> Room:
    """The room before anyone is taken."""
    shared = {i: line.resource for i, line in enumerate(short) if line.shared}
    room = Room([line.short for line in short], shared, own=ask.charge.tenant)
    if not shared:
        return room
    for tenant in {candidate.charge.tenant for candidate in found} | {ask.charge.tenant}:
        whole = view.whole(tenant)
        room.takes[tenant] = {r: whole.soft(r) for r in shared.values()}
        room.floors[tenant] = view.policy(tenant)
    # The ask itself is part of what its tenant takes, so that its own tenant's victims give back the right amount.
    mine = room.takes[ask.charge.tenant]
    if not ask.holding:
        for r in mine:
            mine[r] += ask.charge.amounts.get(r, 0)
    return room


def choose(view: View, ask: Ask, short: Sequence[Line], found: Sequence[Candidate]) -> Plan | None:
    """The plan, or None when nothing among ``found`` makes room. Guarantees stay whole where that is possible."""
    for some, straddling in _passes(found):
        if plan := _search(view, ask, short, some, straddling):
            return plan
    return None


def _passes(found: Sequence[Candidate]) -> Iterator[tuple[Sequence[Candidate], bool]]:
    """(who may be taken, whether what lies partly within a guarantee may), in the order of trying."""
    plain = [candidate for candidate in found if not candidate.conditional]
    foreign = [candidate for candidate in plain if candidate.rule in (RECLAIM, PRIORITY)]
    if len(foreign) < len(plain) and any(candidate.rule == RECLAIM for candidate in foreign):
        reclaimed = [candidate for candidate in plain if candidate.rule in (RECLAIM, HOLD)]
        yield reclaimed, False
        yield reclaimed, True
    yield plain, False
    if foreign:
        yield plain, True
    if len(plain) < len(found):
        mixed = [candidate for candidate in found if candidate.rule in (IN_TENANT, HOLD)]
        mixed += [candidate for candidate in found if candidate.conditional]
        yield mixed, False
        yield mixed, True


def _search(view: View, ask: Ask, short: Sequence[Line], found: Sequence[Candidate], straddling: bool) -> Plan | None:
    if not found:
        return None
    room = room_of(view, short, found, ask)
    taken: list[Candidate] = []
    for candidate in found:
        if not room.legal(candidate, straddling):
            continue
        room.move(candidate, +1)
        taken.append(candidate)
        if room.fits():
            break
    else:
        return None
    kept: list[Candidate] = []
    for candidate in reversed(taken):
        room.move(candidate, -1)
        if not room.fits():
            room.move(candidate, +1)
            kept.append(candidate)
    kept.reverse()
    return Plan(
        tuple(Victim(c.charge, c.rule) for c in kept if c.rule != HOLD),
        tuple(c.charge.uid for c in kept if c.rule == HOLD),
    )


def spared(view: View, ask: Ask, short: Sequence[Line], now: float) -> tuple[Spared, ...]:
    """Why the workloads that hold what is missing stay: for people, at most SPARED_SHOWN of them, or one row for all."""
    own = ask.charge.tenant
    policy = view.policy(own)
    if policy.threshold is None:
        return ()
    holders = [c for c in view.charges(own) if not c.finished and _relief(c, short, False)]
    others = _spared_elsewhere(view, ask, short, policy)
    if not holders:
        return others
    if ask.charge.priority <= policy.threshold:
        return (Spared("", f"priority {ask.charge.priority} is not above the eviction threshold {policy.threshold}"),)
    if not ask.preempts:
        return (Spared("", "its preemptionPolicy is Never"),)
    holders.sort(key=lambda c: (c.priority, -c.created, c.uid))
    return (*(Spared(c.id, _why_spared(ask, c, policy, now)) for c in holders[:SPARED_SHOWN]), *others)


def _spared_elsewhere(view: View, ask: Ask, short: Sequence[Line], policy: Policy) -> tuple[Spared, ...]:
    """Other tenants of the cohort that hold what is missing: how many workloads, never which (docs/decisions/0006)."""
    shared = [line for line in short if line.shared]
    if not policy.cohort or not shared:
        return ()
    found: list[Spared] = []
    for tenant in view.members(policy.cohort):
        if tenant == ask.charge.tenant or len(found) >= SPARED_SHOWN:
            continue
        holders = [c for c in view.charges(tenant) if not c.finished and not c.evicting and _relief(c, shared, True)]
        if not holders:
            continue
        floor, whole = view.policy(tenant).guaranteed, view.whole(tenant)
        if all(whole.soft(line.resource) <= floor.get(line.resource, 0) for line in shared):
            reason = "its namespace is within its guarantee"
        elif all(c.priority >= ask.charge.priority for c in holders):
            reason = f"no priority among them is below {ask.charge.priority}"
        else:
            reason = "evicting what may be evicted there, with everyone else, would not make room"
        found.append(Spared(f"{len(holders)} of namespace {tenant}", reason))
    return tuple(found)


def _why_spared(ask: Ask, charge: Charge, policy: Policy, now: float) -> str:
    if charge.evicting:
        return "is leaving already"
    if charge.priority >= ask.charge.priority:
        return f"its priority {charge.priority} is not below {ask.charge.priority}"
    if charge.migrating:
        return "it is migrating"
    if policy.min_run and charge.since > now - policy.min_run:
        return f"it is within its minimum run time for another {int(charge.since + policy.min_run - now) + 1} s"
    return "evicting it, with everyone else who may be evicted, would not make room"
