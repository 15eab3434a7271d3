"""The place that a workload's quota keeps while its owner stops it in order to start it again (``isoplane vm restart``).

Between the end of the one instance and the creation of the next its charge stays in the books under its owner's uid, so that
neither a newcomer nor whoever waits in the queue comes in between; the next instance takes it over.  A place that nobody takes
over ends by itself, and a victim search may take it as it may take any charge.
"""

from __future__ import annotations

from dataclasses import replace

from isoplane.quota.accounts import Accounts
from isoplane.quota.model import Charge

KEPT = 120.0
"""Seconds that a place waits for the next instance."""
PREFIX = "place/"
"""Of the uids under which places stand among the charges: no object has such a uid."""


def keep(accounts: Accounts, charge: Charge, owner: str, now: float) -> None:
    """The workload is gone; what it takes is kept for the next one of its owner."""
    accounts.remove(charge.tenant, charge.uid)
    accounts.admit(replace(charge, uid=PREFIX + owner, since=now))
    accounts.keep_place(charge.tenant, owner)


def take(accounts: Accounts, tenant: str, owner: str) -> Charge | None:
    """Free the place that is kept for an owner's new workload, and say what it was; None: there is none."""
    if not owner or not accounts.has_place(tenant, owner):
        return None
    accounts.drop_place(tenant, owner)
    return accounts.remove(tenant, PREFIX + owner)


def expire(accounts: Accounts, tenant: str, now: float) -> list[Charge]:
    """End the places that nobody took over in time; returns what they kept."""
    ended = []
    for owner in list(accounts.places(tenant)):
        charge = accounts.charge(tenant, PREFIX + owner)
        if charge is None or charge.since + KEPT <= now:
            accounts.drop_place(tenant, owner)
            if charge is not None:
                accounts.remove(tenant, charge.uid)
                ended.append(charge)
    return ended


def fits(charge: Charge, place: Charge) -> bool:
    """Whether a new instance takes no more than the place that was kept for it."""
    same = (charge.scopes, charge.priority_class) == (place.scopes, place.priority_class)
    return same and all(value <= place.amounts.get(name, 0) for name, value in charge.amounts.items())
