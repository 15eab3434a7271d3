"""From scratch: who is charged and who waits in a tenant, from the objects that are there.

For a first quota, another accounting mode, a start.  What the books know and objects do not say (ages, reservations, whom
nobody counts on any more, places kept for a restart) is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from isoplane.quota.accounts import Accounts
from isoplane.quota.charge import charge_of
from isoplane.quota.model import NEVER, Charge, Waiting, stored
from isoplane.quota.places import PREFIX
from isoplane.workload.adapters import QUOTA_GATE
from isoplane.workload.shape import Claim


@dataclass(frozen=True, slots=True)
class Observed:
    """A workload as it is there. Times in POSIX seconds."""

    demand: Claim
    created: float
    began: float | None = None
    """When it began to run; None: it did not."""
    in_flight: bool = False
    """Whether it is admitted, though it bears the gate still."""
    pending: Waiting | None = None
    """Its place, where the shell kept that elsewhere than in the books."""


def entries(
    accounts: Accounts, tenant: str, observed: Iterable[Observed]
) -> tuple[dict[str, Charge], dict[str, Waiting]]:
    """Who is charged, and who waits, by uid."""
    charges: dict[str, Charge] = {}
    waiting: dict[str, Waiting] = {}
    for found in observed:
        demand = found.demand
        known = accounts.charge(tenant, demand.uid)
        place = accounts.waiter(tenant, demand.uid) or found.pending
        old = known or (place.charge if place is not None else None)
        created = old.created if old is not None else found.created
        began = found.began if found.began is not None else created
        charge = charge_of(demand, created=created, since=known.since if known is not None else began)
        if known is not None and known.stuck and charge.evicting:
            charge = replace(charge, stuck=True)
        if QUOTA_GATE not in demand.gates or found.in_flight:
            charges[charge.uid] = charge
        elif demand.deleting or demand.finished:
            # Who ended, or is told to go, waits no longer; it was never charged, and counts as stored.
            charges[charge.uid] = replace(charge, amounts=stored(charge.amounts), finished=True)
        elif place is not None:
            waiting[charge.uid] = replace(place, charge=charge)
        else:
            waiting[charge.uid] = Waiting(charge, since=created, preempts=demand.preemption_policy != NEVER)
    for owner in accounts.places(tenant):
        if kept := accounts.charge(tenant, PREFIX + owner):
            charges[kept.uid] = kept
    return charges, waiting


def restate(accounts: Accounts, tenant: str, observed: Iterable[Observed]) -> int:
    """Set a tenant's entries to what is there; the sums are to be counted anew. Returns how many entries were wrong."""
    charges, waiting = entries(accounts, tenant, observed)
    wrong = 0
    for charge in list(accounts.charges(tenant)):
        if charge.uid not in charges:
            accounts.drop_entry(charge)
            wrong += 1
    for uid, charge in charges.items():
        if accounts.charge(tenant, uid) != charge:
            accounts.put_entry(charge)
            wrong += 1
    for place in list(accounts.waiting(tenant)):
        if place.charge.uid not in waiting:
            accounts.leave(place)
            wrong += 1
    for uid, place in waiting.items():
        if accounts.waiter(tenant, uid) != place:
            accounts.wait(place)
            wrong += 1
    return wrong
