"""The quota engine: events in, effects out. Every rule of quota is reached from here; nothing here does I/O.

    events ──► Engine(accounts, inventory, now) ──► effects
               │  decide.py, victims.py, release.py, places.py…
               └─ the books (accounts.py) change as it goes

For a shell: one engine for one batch of events at one moment.

    engine = Engine(accounts, inventory, now)
    for event in batch:
        carry_out(engine.handle(event))          # the events' own consequences
    for tenant in engine.waking():               # room came free: who waits comes in, in the engine's order
        carry_out(engine.wake(tenant))
    carry_out(engine.finish())                   # usage to publish

**Events** (events.py).  ``Requested`` a workload wants in; ``Changed`` it began to run, ended, was resized, or asks
again; ``Terminating``, ``Removed`` it leaves; ``ObjectCreated``, ``ObjectRemoved`` something else that quotas count;
``LimitsChanged`` quotas or policy of a tenant; ``CohortsChanged`` cohorts, or the nodes under them; ``TimePassed``.  A
shell reports what it could not do as ``NotWritten``, and a victim that was gone at once as ``Removed``: as further
events of the same batch.  A tenant whose limits are new is counted from the objects that are there (census.py): what runs
is charged, admitted or not, and nobody leaves for it.

**Effects** (effects.py).  ``Admit``, ``Gate``, ``Refuse`` answer the workload of the event; ``Release`` and ``Gate``
concern those who wait; ``Preempt`` a victim; ``Notify``, ``Warn``, ``Audit``, ``SetUsage``, ``Repaired`` tell.  They are
to be carried out in order.  ``Refuse`` undoes the whole batch in a shell whose batch is one write (the embedded one); a
shell that only observes what exists already asks with ``queues`` true and treats a refusal as a wait outside the queue.

**Who persists what.**  The books are the accounts': charges, places in the queue with their reservations, sums.  The
embedded shell keeps them as rows that change in the transaction of the object, so an effect that fails undoes its
decision.  A shell on a cluster builds them from what it sees (:class:`~isoplane.quota.ledger.Ledger`): charged is who
runs ungated, or whose admission is in flight.  It must write two things before it acts: the batch's admissions
(``Admit``, ``Release``) and the reservations (those in ``accounts.line(tenant).held()``, with victims and end); where
that write fails it acts on nothing, and takes the books back with ``accounts.attempt()``.  Usage, the trail and messages
may be written late.

**What the engine asks back.**  :class:`Inventory` reads the objects behind the books: whether a charge's object is still
there and how long it takes to end, who is there, and whether a namespace is closing.  Budgets (``accounts.budgets``)
are read when victims are sought, and spent by ``accounts.spend_budgets``.

Invariants, of every tenant's quotas, after every event: U ≤ H and U − evicting + reserved ≤ H, unless H was lowered or something
runs that nobody admitted; then nothing is admitted until it fits again.
"""

from __future__ import annotations

from dataclasses import replace

from isoplane.quota import effects, events, places
from isoplane.quota.audit import Entry
from isoplane.quota.charge import charge_of
from isoplane.quota.configuring import Configuring
from isoplane.quota.decide import MAX_PLANS, decide, missing
from isoplane.quota.effects import Effect
from isoplane.quota.explain import preempted, refusal, waits_for, would_evict
from isoplane.quota.lines import full_counts, growth_lines
from isoplane.quota.model import NEVER, Admit, Amounts, Ask, Charge, Decision, Deny, Victim, Wait, Waiting
from isoplane.quota.release import ask_of
from isoplane.quota.waking import RESERVATION_SLACK, Inventory
from isoplane.workload.accounting import Accounting
from isoplane.workload.adapters import QUOTA_GATE
from isoplane.workload.shape import Claim

__all__ = ["Engine", "Inventory"]


class Engine(Configuring):
    """The rules, over the books of one moment."""

    def accounting(self, tenant: str) -> Accounting:
        """The way in which a tenant's machines are counted: what a workload is to be projected with."""
        return self.accounts.policy(tenant).accounting

    def ignores(self, tenant: str, uid: str) -> bool:
        """Whether a write that changes neither spec nor phase of this workload concerns nobody."""
        if self.accounts.waiter(tenant, uid) is not None:
            return False
        charge = self.accounts.charge(tenant, uid)
        return charge is not None and not charge.finished

    def handle(self, event: events.Event) -> list[Effect]:
        """What follows from an event for its own workload and its victims. Who waits is woken by :meth:`wake`."""
        self._effects = []
        match event:
            case events.Requested():
                self._requested(event)
            case events.Changed():
                self._changed(event)
            case events.Terminating() | events.Removed():
                self._leaves(event)
            case events.ObjectCreated():
                self._object_created(event)
            case events.ObjectRemoved():
                self._may_forget[event.tenant] = None
                if self._counts(event.tenant, event.amounts):
                    self.accounts.count(event.tenant, event.amounts, -1)
            case events.LimitsChanged():
                self._limits_changed(event)
            case events.CohortsChanged():
                if self._cohorts_changed(event.cohorts) and event.verify:
                    self._effects.append(effects.Repaired("", "the sums were not those of the members"))
            case events.TimePassed():
                self.room(event.tenant)
            case events.NotWritten():
                self._not_written(event.pending)
        return self._take()

    # a new workload

    def _requested(self, event: events.Requested) -> None:
        demand = event.demand
        tenant = demand.namespace
        if not self.accounts.managed(tenant):
            return
        self._expire(tenant)
        ask = replace(_ask_for(demand, event.created or self.now, self.now), owned=event.queues)
        place = places.take(self.accounts, tenant, event.owner)
        if place is not None:
            self.room(tenant)
        kept = place is not None and places.fits(ask.charge, place)
        decision = Admit("restarted") if kept else self._decide(ask)
        self._audit_decision(ask, decision)
        if isinstance(decision, Deny):
            self._effects.append(effects.Refuse(refusal(decision, ask.charge)))
        elif isinstance(decision, Wait):
            self._wait(ask, decision)
        else:
            self.accounts.admit(ask.charge)
            self._effects.append(effects.Admit(ask.charge, QUOTA_GATE in demand.gates))

    def _decide(self, ask: Ask) -> Decision:
        """Nobody is made to leave on the strength of a reservation elsewhere that has ended: those end first."""
        decision = decide(self.accounts, ask, self.now)
        if isinstance(decision, Wait) and decision.victims and self._expire_others(ask.charge.tenant):
            decision = decide(self.accounts, ask, self.now)
        return decision

    def _wait(self, ask: Ask, wait: Wait) -> None:
        """Give the ask its place in the queue, with a reservation if that is decided, and let the victims go."""
        tenant = ask.charge.tenant
        message = waits_for(wait, ask.charge)
        graces = [(victim, self._grace(victim, tenant)) for victim in wait.victims]
        longest = max((grace for _, grace in graces if grace is not None), default=0)
        pending = self.accounts.commit(ask, wait, self.now, longest + RESERVATION_SLACK)
        self._effects += (
            effects.Gate(pending, message),
            effects.Notify(ask.charge, "WaitingForQuota", message),
            effects.Warn(message),
        )
        if who := would_evict(wait, tenant):
            self._effects.append(effects.Warn(who, dry_run_only=True))
        leaving: list[Charge] = []
        for victim, grace in graces:
            self.room(victim.charge.tenant)
            if grace is None:
                # The books know somebody whom nobody else does: give back what nobody takes.
                self._lost(victim.charge)
                continue
            leaving.append(victim.charge)
            why = preempted(victim, ask.charge, self.accounts.policy(tenant).cohort)
            self._effects.append(effects.Preempt(victim, ask.charge, why, grace))
        self.accounts.spend_budgets(leaving, self.now)

    def _grace(self, victim: Victim, preemptor: str) -> int | None:
        """Seconds that a victim has to end: its own grace period, between tenants no more than their cohort allows."""
        own = self._inventory.grace(victim.charge)
        if own is None or victim.charge.tenant == preemptor:
            return own
        cohort = self.accounts.cohort(self.accounts.policy(preemptor).cohort)
        return own if cohort is None else min(own, cohort.max_grace)

    # a workload that changes

    def _changed(self, event: events.Changed) -> None:
        demand = event.demand
        tenant = demand.namespace
        if not self.accounts.managed(tenant):
            return
        pending = self.accounts.waiter(tenant, demand.uid)
        if pending is not None:
            self._pending_changed(pending, event)
            return
        charge = self.accounts.charge(tenant, demand.uid)
        if charge is None or (charge.finished and QUOTA_GATE in demand.gates):
            self._come_back(demand)
            return
        if demand.finished and event.successor_of and not (charge.evicting or charge.finished):
            return  # what it takes is kept for the next instance
        if demand.finished and not charge.finished and not event.trusted:
            why = "quota counts it, and only the node that runs it says that it has ended"
            self._effects.append(effects.Refuse(why, quota=False))
            return
        since = self.now if event.began else charge.since
        changed = charge_of(demand, created=charge.created, since=since)
        changed = replace(changed, evicting=charge.evicting, stuck=charge.stuck)
        if self._outgrows(charge, changed):
            return
        self.accounts.change(changed)
        if any(changed.amounts.get(name, 0) < value for name, value in charge.amounts.items()):
            self.room(tenant)

    def _outgrows(self, old: Charge, new: Charge) -> bool:
        """Whether what it takes more passes a limit; refused then."""
        if new.finished:
            return False
        lines = tuple(growth_lines(self.accounts, old, new))
        if not any(missing(line) for line in lines):
            return False
        self._note("refuse", new, "grown")
        self._effects.append(effects.Refuse(refusal(Deny("exceeded", lines), new)))
        return True

    def _pending_changed(self, pending: Waiting, event: events.Changed) -> None:
        demand = event.demand
        if demand.finished:
            self.accounts.give_up(pending)
            self._note("expire", pending.charge, "ended")
            self.room(demand.namespace)
            return
        old = pending.charge
        pending = self._resized(pending, charge_of(demand, created=old.created, since=old.since))
        if event.asks_again or QUOTA_GATE not in demand.gates:
            self._retry(pending, gated=QUOTA_GATE in demand.gates)

    def _resized(self, pending: Waiting, new: Charge) -> Waiting:
        """Its place with what it asks for now. Who asks for more gives a reservation back: that was decided for less."""
        old = pending.charge
        if new == old:
            return pending
        changed = replace(pending, charge=new)
        if any(value > old.amounts.get(name, 0) for name, value in new.amounts.items()):
            changed = replace(changed, held=False, victims=(), expires=0)
        self.accounts.wait(changed)
        self.room(old.tenant)
        return changed

    def _come_back(self, demand: Claim) -> None:
        """Somebody who ended while waiting, and was in no book since, is alive again or without its gate: back into the queue."""
        gated = QUOTA_GATE in demand.gates
        if demand.deleting or (gated and demand.finished):
            return
        ask = _ask_for(demand, self.now, self.now)
        self.accounts.remove(ask.charge.tenant, ask.charge.uid)  # what it took by being stored
        pending = Waiting(ask.charge, since=self.now, preempts=ask.preempts)
        self.accounts.wait(pending)
        if not gated:
            self._effects.append(effects.Gate(pending, "waits in line for quota"))
        self.room(ask.charge.tenant)

    def _retry(self, pending: Waiting, *, gated: bool) -> None:
        """Decide anew about someone who waits; whoever took the gate away by hand gets it back while there is no room."""
        tenant = pending.charge.tenant
        self._expire(tenant)
        # Whoever else's wake-up was lost is found on this occasion.
        self.room(tenant)
        pending = self.accounts.waiter(tenant, pending.charge.uid) or pending
        ask = ask_of(pending, may_evict=pending.plans < MAX_PLANS)
        decision = self._decide(ask)
        if isinstance(decision, Admit):
            self.accounts.add(replace(pending.charge, since=self.now))
            self._let_in(pending, decision)
        elif isinstance(decision, Wait) and decision.held and (decision.victims or not pending.held):
            self._audit_decision(ask, decision)
            self._wait(ask, decision)
        elif isinstance(decision, Wait) and not gated:
            message = waits_for(decision, pending.charge)
            self._effects += (effects.Gate(pending, message), effects.Warn(message))

    # going

    def _leaves(self, event: events.Terminating | events.Removed) -> None:
        """What a workload takes is being given back, or is free from now on. Who is told to go waits no longer."""
        tenant, uid, removed = event.tenant, event.uid, isinstance(event, events.Removed)
        if not self.accounts.managed(tenant):
            return
        self._may_forget[tenant] = None
        pending, charge = self.accounts.waiter(tenant, uid), self.accounts.charge(tenant, uid)
        if event.successor_of and charge is not None and not (charge.evicting or charge.finished):
            if removed:
                places.keep(self.accounts, charge, event.successor_of, self.now)
            return
        if pending is not None:
            if removed:
                self.accounts.leave(pending)
            else:
                self.accounts.give_up(pending, evicting=True)
        elif removed:
            self.accounts.remove(tenant, uid)
        elif charge is not None and not charge.evicting:
            self.accounts.change(replace(charge, evicting=True))
        else:
            return
        self.room(tenant)

    # objects that are no workloads

    def _counts(self, tenant: str, amounts: Amounts) -> bool:
        return any(name in quota.hard for quota in self.accounts.quotas(tenant) for name in amounts)

    def _object_created(self, event: events.ObjectCreated) -> None:
        tenant, amounts = event.tenant, event.amounts
        if not self._counts(tenant, amounts):
            return
        if short := tuple(full_counts(self.accounts, tenant, amounts)):
            self._effects += (
                effects.Audit(Entry(self.now, "refuse", event.id, "", tenant, "counted")),
                effects.Refuse(refusal(Deny("exceeded", short))),
            )
            return
        self.accounts.count(tenant, amounts, +1)


def _ask_for(demand: Claim, created: float, now: float) -> Ask:
    return Ask(
        charge_of(demand, created=created, since=now),
        owned=demand.owned_by_tenant,
        preempts=demand.preemption_policy != NEVER,
        unspecified=demand.unspecified,
    )
