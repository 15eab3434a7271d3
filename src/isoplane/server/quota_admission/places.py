"""The place that a workload's quota keeps while its owner stops it in order to start it again (``isoplane vm restart``).

Between the end of the one instance and the creation of the next its charge stays in the books under its owner's uid, so that
neither a newcomer nor whoever waits in line comes in between; the next instance takes it over.  A place that nobody takes
over ends by itself, and a victim search may take it as it may take any charge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import BY_KIND
from isoplane.quota.accounts import Accounts
from isoplane.quota.model import Charge
from isoplane.server.quota_admission import rows
from isoplane.store.transaction import Transaction

KEPT = 120.0
"""Seconds that a place waits for the next instance."""


class Places:
    """The places of one transaction."""

    def __init__(self, txn: Transaction, accounts: Accounts, now: float) -> None:
        self._txn = txn
        self._accounts = accounts
        self._now = now

    def restarting(self, tenant: str, obj: Mapping[str, Any]) -> Charge | None:
        """The charge of a workload that is stopped only to be started again; None for any other."""
        owner = metadata.controller_of(obj)
        resource = BY_KIND.get((str(owner.get("apiVersion")), str(owner.get("kind")))) if owner else None
        if owner is None or resource is None or not resource.makes_workloads:
            return None
        found = self._txn.get(resource, tenant, str(owner.get("name") or ""))
        if found is None or found.uid != owner.get("uid") or found.deleting:
            return None
        asked = (found.object().get("status") or {}).get("stateChangeRequests") or ()
        if not any(request.get("action") == "Start" for request in asked):
            return None
        charge = self._accounts.charge(tenant, metadata.uid(obj))
        return None if charge is None or charge.evicting or charge.finished else charge

    def keep(self, charge: Charge, obj: Mapping[str, Any]) -> None:
        """The workload leaves the store; what it takes is kept for the next one of its owner."""
        owner = str((metadata.controller_of(obj) or {}).get("uid") or "")
        self._accounts.remove(charge.tenant, charge.uid)
        self._accounts.admit(replace(charge, uid=_uid(owner), since=self._now))
        self._txn.put_row(rows.places_table(charge.tenant), owner, b"{}")

    def take(self, tenant: str, obj: Mapping[str, Any]) -> Charge | None:
        """Free the place that is kept for a new workload, and say what it was; None: there is none."""
        owner = str((metadata.controller_of(obj) or {}).get("uid") or "")
        if not owner or self._txn.row(rows.places_table(tenant), owner) is None:
            return None
        self._txn.delete_row(rows.places_table(tenant), owner)
        return self._accounts.remove(tenant, _uid(owner))

    def expire(self, tenant: str) -> list[Charge]:
        """End the places that nobody took over in time; returns what they kept."""
        ended = []
        for owner in self._txn.rows(rows.places_table(tenant)):
            charge = self._accounts.charge(tenant, _uid(owner))
            if charge is None or charge.since + KEPT <= self._now:
                self._txn.delete_row(rows.places_table(tenant), owner)
                if charge is not None:
                    self._accounts.remove(tenant, charge.uid)
                    ended.append(charge)
        return ended


def fits(charge: Charge, place: Charge) -> bool:
    """Whether a new instance takes no more than the place that was kept for it."""
    same = (charge.scopes, charge.priority_class) == (place.scopes, place.priority_class)
    return same and all(value <= place.amounts.get(name, 0) for name, value in charge.amounts.items())


def _uid(owner: str) -> str:
    """Under which a place stands among the charges: no object has such a uid."""
    return f"place/{owner}"
