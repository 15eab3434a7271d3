"""One transaction's work on quota: decide, carry out, wake who waits, write the sums back.

Whatever else the write does happens in the same transaction, so that there is no moment at which object, charge, counter, victim
and hold disagree.  A session also takes part in the deletions it causes itself: the victims' own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from isoplane.http.request_options import Call, DeleteOptions
from isoplane.http.user import SYSTEM
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Forbidden
from isoplane.objects.kinds import BY_KIND, NAMESPACES
from isoplane.objects.metadata import Object
from isoplane.quota.audit import Entry, entries
from isoplane.quota.charge import charge_of, object_amounts
from isoplane.quota.decide import MAX_PLANS, decide, missing
from isoplane.quota.explain import preempted, refusal, waits_for, would_evict
from isoplane.quota.lines import full_counts, growth_lines
from isoplane.quota.model import Admit, Ask, Charge, Decision, Deny, Victim, Wait, Waiting
from isoplane.quota.release import RETRY_ANNOTATION, ask_of, release
from isoplane.server import deletion, strategy
from isoplane.server.admission import AdmissionPlugin, AdmissionRequest, Chain
from isoplane.server.quota_admission.accounts import Lines
from isoplane.server.quota_admission.counting import ask_for
from isoplane.server.quota_admission.places import Places, fits
from isoplane.server.quota_admission.telling import Telling, harmless
from isoplane.server.writes import Writes
from isoplane.store.record import Record
from isoplane.store.transaction import Transaction
from isoplane.workload.adapters import QUOTA_GATE, Adapter
from isoplane.workload.shape import Claim, Stage

_log = logging.getLogger(__name__)

PREEMPTED = "PreemptedByQuota"
"""The reason of a victim's DisruptionTarget condition and of its Event."""
HOLD_SLACK = 120.0
"""Seconds beyond the victims' grace period after which an unconverted hold ends."""
NODES_GROUP = "system:nodes"
WOKEN = 64
"""How many other tenants of a cohort one wake-up looks at."""


class Session(Telling):
    """The quota side of one transaction. Raises QuotaExceeded to refuse it."""

    def __init__(self, txn: Transaction, request: AdmissionRequest, lines: Lines, plugin: AdmissionPlugin) -> None:
        super().__init__(txn, request, lines)
        self.warnings: list[str] = []
        self._plugin = plugin
        self._places = Places(txn, self.accounts, self.now)
        self._dirty: dict[str, None] = {}

    # a new workload

    def create(self, adapter: Adapter) -> None:
        """Decide about the object of this request, and carry the decision out."""
        assert self.request.obj is not None
        tenant = self.request.namespace
        config = self.accounts.config(tenant)
        if config is None:
            return
        self._expire(tenant)
        claim = adapter.claim(self.request.obj, config.policy.accounting)
        ask = replace(ask_for(claim, self.now), owned=claim.owned_by_tenant and self._has_maker(self.request.obj))
        place = self._places.take(tenant, self.request.obj) if ask.owned else None
        if place is not None:
            self.dirty(tenant)
        kept = place is not None and fits(ask.charge, place)
        decision = Admit("restarted") if kept else decide(self.accounts, ask, self.now)
        self.audit += entries(ask, decision, self.now)
        if isinstance(decision, Deny):
            raise self.refused(refusal(decision, ask.charge))
        if isinstance(decision, Wait):
            self._carry_out(adapter, ask, decision)
            return
        self.accounts.admit(ask.charge)
        if QUOTA_GATE in claim.gates:
            self.request.obj = adapter.ungate(self.request.obj, self.now)

    def _has_maker(self, obj: Object) -> bool:
        """Whether the controller that an object names is stored, with that uid, and of a kind that makes workloads.

        Anybody can write any owner reference; only what somebody makes for the tenant waits for quota.
        """
        owner = metadata.controller_of(obj) or {}
        resource = BY_KIND.get((str(owner.get("apiVersion")), str(owner.get("kind"))))
        if resource is None or not resource.makes_workloads:
            return False
        found = self.txn.get(resource, self.request.namespace, str(owner.get("name") or ""))
        return found is not None and found.uid == owner.get("uid")

    def _carry_out(self, adapter: Adapter, ask: Ask, wait: Wait) -> None:
        """Gate the object of this request, keep its place, let the victims go."""
        assert self.request.obj is not None
        tenant = ask.charge.tenant
        message = waits_for(wait, tenant)
        found = [(victim, self._stored(victim.charge)) for victim in wait.victims]
        leaving = [(victim, record, record.object()) for victim, record in found if record is not None]
        graces = [self._grace(victim, record, obj, tenant) for victim, record, obj in leaving]
        self.accounts.commit(ask, wait, self.now, max(graces, default=0) + HOLD_SLACK)
        self.request.obj = adapter.gate(self.request.obj, message, self.now)
        self._event(self.request.obj, "Normal", "WaitingForQuota", message)
        self.warnings.append(message)
        if self.request.dry_run and (who := would_evict(wait, ask.charge.tenant)):
            self.warnings.append(who)
        for victim, record in found:
            if record is None:
                # The ledger knows somebody whom the store does not: give back what nobody takes.
                self.accounts.remove(victim.charge.tenant, victim.charge.uid)
                self._note("repair", victim.charge, "lost")
            self.dirty(victim.charge.tenant)
        for (victim, record, obj), grace in zip(leaving, graces, strict=True):
            self._evict(victim, record, obj, ask.charge, grace)
        self.accounts.spend_budgets([record for _, record, _ in leaving], metadata.rfc3339(self.now))

    def _grace(self, victim: Victim, record: Record, obj: Object, preemptor: str) -> int:
        """Seconds that a victim has to end: its own grace period, between tenants no more than their cohort allows."""
        own = strategy.grace_seconds(record.resource, obj, None)
        if victim.charge.tenant == preemptor:
            return own
        cohort = self.accounts.cohort(self.accounts.policy(preemptor).cohort)
        return own if cohort is None else min(own, cohort.max_grace)

    def _evict(self, victim: Victim, record: Record, obj: Object, preemptor: Charge, grace: int) -> None:
        """Mark a victim, tell it why, and start its graceful deletion: one write of the object."""
        message = preempted(victim, preemptor, self.accounts.policy(preemptor.tenant).cohort)
        marked = self._adapter(victim.charge).mark_victim(obj, PREEMPTED, message, self.now)
        self._event(marked, "Warning", PREEMPTED, message)
        writes = Writes(Chain([self._plugin]), lambda: self.now)
        call, options = Call(dry_run=self.request.dry_run), DeleteOptions(grace_seconds=grace)
        resource, namespace, name = record.resource, record.namespace, record.name
        deletion.delete(self.txn, writes, resource, namespace, name, options, call, changed=marked)

    # a workload that changes

    def update(self, adapter: Adapter) -> None:
        """Follow a workload that began to run, ended, changed its size, or asks again."""
        old, new = self.request.old, self.request.obj
        assert old is not None
        assert new is not None
        tenant, uid = self.request.namespace, metadata.uid(new)
        accounting = self.accounts.policy(tenant).accounting
        waiting = self.accounts.waiter(tenant, uid)
        if waiting is not None:
            claim = adapter.claim(new, accounting)
            if claim.finished:
                self.accounts.give_up(waiting)
                self._note("expire", waiting.charge, "ended")
                self.dirty(tenant)
                return
            waiting = self._resized(
                waiting, charge_of(claim, created=waiting.charge.created, since=waiting.charge.since)
            )
            asked = metadata.annotations_of(new).get(RETRY_ANNOTATION)
            if asked != metadata.annotations_of(old).get(RETRY_ANNOTATION) or not self._gated(adapter, new):
                self._retry(adapter, waiting)
            return
        charge = self.accounts.charge(tenant, uid)
        if charge is None or (charge.finished and self._gated(adapter, new)):
            self._come_back(adapter, adapter.claim(new, accounting))
            return
        if _phase(old) == _phase(new) and old.get("spec") == new.get("spec"):
            return
        claim = adapter.claim(new, accounting)
        if claim.finished and self._places.restarting(tenant, new) is not None:
            return  # what it takes is kept for the next instance
        if claim.finished and not charge.finished and not self._is_node():
            raise Forbidden(
                f"{self.request.resource.qualified} {self.request.name!r} is forbidden: quota counts it, and only the node "
                "that runs it says that it has ended"
            )
        began = claim.stage is Stage.RUNNING and adapter.claim(old, accounting).stage is not Stage.RUNNING
        changed = charge_of(claim, created=charge.created, since=self.now if began else charge.since)
        changed = replace(changed, evicting=charge.evicting, stuck=charge.stuck)
        self._check_growth(charge, changed)
        self.accounts.change(changed)
        if any(changed.amounts.get(name, 0) < value for name, value in charge.amounts.items()):
            self.dirty(tenant)

    def _is_node(self) -> bool:
        """Whether the plane itself, or a node, makes this write."""
        user = self.request.user
        return user.name == SYSTEM.name or NODES_GROUP in user.groups

    def _gated(self, adapter: Adapter, obj: Mapping[str, Any]) -> bool:
        return QUOTA_GATE in adapter.claim(obj, self.accounts.policy(self.request.namespace).accounting).gates

    def _resized(self, waiting: Waiting, new: Charge) -> Waiting:
        """Its place with what it asks for now. Who asks for more gives a hold back: that was decided for less."""
        old = waiting.charge
        if new == old:
            return waiting
        changed = replace(waiting, charge=new)
        if any(value > old.amounts.get(name, 0) for name, value in new.amounts.items()):
            changed = replace(changed, held=False, victims=(), expires=0)
        self.accounts.wait(changed)
        self.dirty(old.tenant)
        return changed

    def _come_back(self, adapter: Adapter, claim: Claim) -> None:
        """Somebody who ended while waiting, and was in no book since, is alive again or without its gate: back into the line."""
        assert self.request.obj is not None
        gated = QUOTA_GATE in claim.gates
        if claim.deleting or (gated and claim.finished):
            return
        if not gated:
            self.request.obj = adapter.gate(self.request.obj, "waits in line for quota", self.now)
            claim = adapter.claim(self.request.obj, self.accounts.policy(claim.namespace).accounting)
        ask = ask_for(claim, self.now)
        self.accounts.remove(ask.charge.tenant, ask.charge.uid)  # what it took by being stored
        self.accounts.wait(Waiting(ask.charge, since=self.now, preempts=ask.preempts))
        self.dirty(ask.charge.tenant)

    def _check_growth(self, old: Charge, new: Charge) -> None:
        if new.finished:
            return
        lines = tuple(growth_lines(self.accounts, old, new))
        if any(missing(line) for line in lines):
            self._note("refuse", new, "grown")
            raise self.refused(refusal(Deny("exceeded", lines)))

    def _retry(self, adapter: Adapter, waiting: Waiting) -> None:
        """Decide anew about someone who waits; whoever took the gate away by hand gets it back while there is no room."""
        assert self.request.obj is not None
        self._expire(waiting.charge.tenant)
        # Whoever else's wake-up was lost is found on this occasion.
        self.dirty(waiting.charge.tenant)
        waiting = self.accounts.waiter(waiting.charge.tenant, waiting.charge.uid) or waiting
        ask = ask_of(waiting, may_evict=waiting.plans < MAX_PLANS)
        decision = decide(self.accounts, ask, self.now)
        if isinstance(decision, Admit):
            self.accounts.add(replace(waiting.charge, since=self.now))
            self._released(waiting, decision)
        elif isinstance(decision, Wait) and decision.held and (decision.victims or not waiting.held):
            self.audit += entries(ask, decision, self.now)
            self._carry_out(adapter, ask, decision)
        elif isinstance(decision, Wait) and not self._gated(adapter, self.request.obj):
            self.request.obj = adapter.gate(self.request.obj, waits_for(decision, waiting.charge.tenant), self.now)
            self.warnings.append(waits_for(decision, waiting.charge.tenant))

    # going

    def delete(self) -> None:
        """A workload is marked for deletion, or leaves the store."""
        assert self.request.old is not None
        restarting = self._places.restarting(self.request.namespace, self.request.old)
        if restarting is not None:
            if self.request.removes:
                self._places.keep(restarting, self.request.old)
            return
        self.going(self.request.namespace, metadata.uid(self.request.old), self.request.removes)

    def going(self, tenant: str, uid: str, removes: bool) -> None:
        """What a workload takes is being given back, or is free from now on. Who is told to go waits no longer."""
        waiting = self.accounts.waiter(tenant, uid)
        charge = self.accounts.charge(tenant, uid)
        if waiting is not None:
            if removes:
                self.accounts.leave(waiting)
            else:
                self.accounts.give_up(waiting, evicting=True)
        elif removes:
            self.accounts.remove(tenant, uid)
        elif charge is not None and not charge.evicting:
            self.accounts.change(replace(charge, evicting=True))
        else:
            return
        self.dirty(tenant)

    # objects that are no workloads

    def count(self, sign: int) -> None:
        """Count an object that comes or goes. Raises QuotaExceeded when a quota on its number is full."""
        tenant, amounts = self.request.namespace, object_amounts(self.request.resource)
        config = self.accounts.config(tenant)
        if config is None or config.counted.isdisjoint(amounts):
            return
        if sign > 0:
            short = tuple(full_counts(self.accounts, tenant, amounts))
            if short:
                request = self.request
                name = f"{request.resource.singular}/{tenant}/{request.name}"
                self.audit.append(Entry(self.now, "refuse", name, "", tenant, "counted"))
                raise self.refused(refusal(Deny("exceeded", short)))
        self.accounts.count(tenant, amounts, sign)

    # waking

    def dirty(self, tenant: str) -> None:
        """Room may have come free in a tenant: wake who waits there before the transaction ends."""
        self._dirty[tenant] = None

    def finish(self) -> None:
        """Wake, write sums and statuses. The last thing a session does."""
        done: set[str] = set()
        while todo := [tenant for tenant in self._woken() if tenant not in done]:
            for tenant in todo:
                done.add(tenant)
                with harmless(f"waking who waits in {tenant}"):
                    self._wake(tenant)
        for tenant, names in self.accounts.flush().items():
            self._tell |= {(tenant, name): None for name in names}
        self.tell_all()

    def _woken(self) -> list[str]:
        """The tenants with new room, then those who share a cohort with them and have someone waiting."""
        found = dict(self._dirty)
        for tenant in self._dirty:
            cohort = self.accounts.policy(tenant).cohort
            if not cohort:
                continue
            others: list[tuple[float, str]] = []
            for other in self._lines.busy.get(cohort, set()) - found.keys():
                with harmless(f"the share of {other}"):
                    others.append((self._share(other), other))
            # Whoever is furthest below its guarantee first.
            found.update(dict.fromkeys(other for _, other in sorted(others)[:WOKEN]))
        return list(found)

    def _share(self, tenant: str) -> float:
        whole, guaranteed = self.accounts.whole(tenant), self.accounts.policy(tenant).guaranteed
        return max((whole.soft(name) / value for name, value in guaranteed.items() if value), default=1.0)

    def _wake(self, tenant: str) -> None:
        """Let in who waits there. What fails is undone and passed on, and the session is as it was."""
        if not len(self.accounts.line(tenant)):
            self._lines.busy.get(self.accounts.policy(tenant).cohort, set()).discard(tenant)
            return
        audit, told, dirty, obj = len(self.audit), dict(self._tell), dict(self._dirty), self.request.obj
        try:
            with self.accounts.attempt():
                self._wake_line(tenant)
        except BaseException:
            del self.audit[audit:]
            self._tell, self._dirty, self.request.obj = told, dirty, obj
            raise

    def _wake_line(self, tenant: str) -> None:
        self._expire(tenant)
        line = self.accounts.line(tenant)
        namespace = self.txn.get(NAMESPACES, "", tenant)
        if namespace is not None and namespace.deleting:
            return  # everybody goes, and perhaps the quota first: nobody begins to run for that moment
        release(self.accounts, line, self.now, HOLD_SLACK, self._released)

    def _released(self, waiting: Waiting, decision: Decision) -> None:
        """Report a release, or a hold that was given, on the workload's object.

        A workload whose object cannot be written stays where it was: that is its own fault, and must not fail the write
        that made room, which is somebody else's.
        """
        try:
            self._report_release(waiting, decision)
        except ApiError:
            raise
        except Exception:
            if self._is_request(waiting.charge):
                raise
            _log.exception("%s could not be released from its wait for quota", waiting.charge.id)
            self.accounts.remove(waiting.charge.tenant, waiting.charge.uid)
            self.accounts.wait(waiting)
            self._note("repair", waiting.charge, "not-written")

    def _report_release(self, waiting: Waiting, decision: Decision) -> None:
        adapter = self._adapter(waiting.charge)
        admitted = isinstance(decision, Admit)
        message = waits_for(decision, waiting.charge.tenant) if isinstance(decision, Wait) else "its quota is charged"
        if self._is_request(waiting.charge):
            assert self.request.obj is not None
            obj = self.request.obj
            told = adapter.ungate(obj, self.now) if admitted else adapter.gate(obj, message, self.now)
            self.request.obj = told
        else:
            record = self._stored(waiting.charge)
            if record is None:
                self.accounts.remove(waiting.charge.tenant, waiting.charge.uid)
                self._note("repair", waiting.charge, "lost")
                return
            old = record.object()
            told = adapter.ungate(old, self.now) if admitted else adapter.gate(old, message, self.now)
            if strategy.changes_generation(record.resource, old, told):
                told["metadata"]["generation"] = int(old["metadata"].get("generation") or 0) + 1
            self.txn.put(record.resource, told)
        self._note("release" if admitted else "wait", waiting.charge, decision.rule)
        if admitted:
            self._event(told, "Normal", "QuotaAdmitted", message)

    def _expire(self, tenant: str) -> None:
        """End the holds that were not converted in time; whoever had one keeps its place in line."""
        for charge in self._places.expire(tenant):
            self._note("expire", charge, "not-restarted")
            self.dirty(tenant)
        for waiting in self.accounts.line(tenant).held():
            if 0 < waiting.expires <= self.now:
                self.accounts.wait(replace(waiting, held=False, victims=(), expires=0))
                self._note("expire", waiting.charge, "hold-expired")
                for victim in waiting.victims:
                    self._give_up_on(victim, waiting.charge)
                self.dirty(tenant)

    def _give_up_on(self, victim: str, preemptor: Charge) -> None:
        """A victim that is still here after its grace period and then some: nobody counts on it any more, and it is reported."""
        tenant = victim.split("/", 2)[1]
        charge = next((c for c in self.accounts.charges(tenant) if c.id == victim and c.evicting and not c.stuck), None)
        if charge is None:
            return
        self.accounts.change(replace(charge, stuck=True))
        self._note("expire", charge, "stuck")
        record = self._stored(charge)
        if record is not None:
            whom = preemptor.id if preemptor.tenant == tenant else f"namespace {preemptor.tenant}"
            message = (
                f"did not end in time for {whom}: its reservation is given up; is a finalizer or its node in the way?"
            )
            self._event(record.object(), "Warning", "PreemptionStuck", message)


def _phase(obj: Mapping[str, Any]) -> Any:
    return (obj.get("status") or {}).get("phase")
