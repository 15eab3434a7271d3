"""One batch's decisions as a plan: the ledger to write first, and what to do once it is stored. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from isoplane.objects.metadata import Object
from isoplane.operator import ledger as book
from isoplane.operator.cluster import version_of
from isoplane.operator.ledger import InFlight, Ledger, LedgerVictim, Reservation
from isoplane.quota import effects
from isoplane.quota.accounts import Accounts
from isoplane.quota.audit import Entry
from isoplane.quota.effects import Effect
from isoplane.quota.model import Charge

FindPod = Callable[[Charge], Object | None]
"""The Pod that carries a workload's gate, and that is deleted when it is preempted."""


@dataclass(slots=True)
class Plan:
    """What one batch wants done. ``ledger``: to be stored before anything of it is."""

    ledger: Ledger
    admissions: list[InFlight] = field(default_factory=list)
    messages: dict[str, tuple[Charge, str]] = field(default_factory=dict)
    """uid of the workload → why it waits."""
    preemptions: list[effects.Preempt] = field(default_factory=list)
    notices: list[effects.Notify] = field(default_factory=list)
    usage: list[effects.SetUsage] = field(default_factory=list)
    trail: list[Entry] = field(default_factory=list)


def plan_of(wanted: Iterable[Effect], ledger: Ledger, accounts: Accounts, find: FindPod) -> Plan:
    """The plan of a batch's effects: admissions in flight, reservations as the books have them now."""
    plan = Plan(ledger)
    for effect in wanted:
        match effect:
            case effects.Admit(charge=charge, gated=gated):
                if gated:
                    _admit(plan, charge, find)
            case effects.Release():
                _admit(plan, effect.charge, find)
                plan.trail.append(effect.entry)
                plan.notices.append(effects.Notify(effect.charge, "QuotaAdmitted", effect.message))
            case effects.Gate():
                plan.messages[effect.charge.uid] = (effect.charge, effect.message)
                if effect.entry is not None:
                    plan.trail.append(effect.entry)
            case effects.Preempt():
                plan.preemptions.append(effect)
            case effects.Notify():
                plan.notices.append(effect)
            case effects.Audit():
                plan.trail.append(effect.entry)
            case effects.SetUsage():
                plan.usage.append(effect)
            case effects.Warn() | effects.Refuse() | effects.Repaired():
                pass  # for who makes a request; nobody does here
    admitted = {entry.uid for entry in plan.admissions}
    plan.messages = {uid: told for uid, told in plan.messages.items() if uid not in admitted}
    plan.ledger = book.admit(plan.ledger, plan.admissions)
    plan.ledger = _reserved(plan.ledger, accounts, find)
    return plan


def _admit(plan: Plan, charge: Charge, find: FindPod) -> None:
    pod = find(charge)
    if pod is not None:
        meta = pod["metadata"]
        entry = InFlight(str(meta["uid"]), str(meta["namespace"]), str(meta["name"]), version_of(pod), charge.amounts)
        plan.admissions.append(entry)


def _reserved(ledger: Ledger, accounts: Accounts, find: FindPod) -> Ledger:
    """The ledger with the reservations that the books have. Those that ended are ended by :func:`ended`, not here."""
    for tenant in ledger.namespaces:
        for place in accounts.line(tenant).held():
            charge = place.charge
            known = ledger.reservations.get(charge.uid)
            victims = {v.id: v for v in known.victims} if known is not None else {}
            chosen = [victims.get(id_) or _victim(id_, accounts, find) for id_ in place.victims]
            entry = Reservation(
                charge.uid,
                tenant,
                charge.id.rpartition("/")[2],
                tuple(v for v in chosen if v is not None),
                place.since,
                place.expires,
                place.plans,
            )
            if entry != known:
                ledger = book.reserve(ledger, entry)
    return ledger


def _victim(id_: str, accounts: Accounts, find: FindPod) -> LedgerVictim | None:
    tenant = id_.split("/", 2)[1]
    charge = next((c for c in accounts.charges(tenant) if c.id == id_), None)
    pod = find(charge) if charge is not None else None
    return LedgerVictim(str(pod["metadata"]["uid"]), id_, version_of(pod)) if pod is not None else None


def ended(ledger: Ledger, accounts: Accounts) -> list[Reservation]:
    """The reservations of the ledger that the books do not have any more."""
    return [r for r in ledger.reservations.values() if not _held(accounts, r)]


def _held(accounts: Accounts, reservation: Reservation) -> bool:
    place = accounts.waiter(reservation.namespace, reservation.uid)
    return place is not None and place.held


def landed(
    ledger: Ledger, pods: Mapping[str, Object], revision: int, gated: Callable[[Object], bool]
) -> dict[str, int]:
    """Which admissions have arrived: uid → the revision at which its Pod was seen ungated, or gone.

    ``pods``: the cache's, by uid, of those in flight; ``revision``: the cache's own.
    """
    seen = {}
    for uid in ledger.in_flight:
        pod = pods.get(uid)
        if pod is None:
            seen[uid] = revision
        elif not gated(pod):
            seen[uid] = version_of(pod)
    return seen
