"""Who comes in next, and after whom: what the engine would do while those who are leaving leave, one after the other.

Tried out on the books themselves and undone: the same rules as the real thing, for any Accounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from isoplane.quota import effects, events
from isoplane.quota.accounts import Accounts
from isoplane.quota.census import Observed
from isoplane.quota.engine import Engine
from isoplane.quota.model import Charge, Waiting
from isoplane.workload.accounting import Accounting


@dataclass(frozen=True, slots=True)
class Next:
    """Somebody who waits and comes in."""

    pending: Waiting
    after: tuple[Charge, ...]
    """Who leaves before that, in the order in which they are taken to leave; nobody: it comes in with the next wake-up."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How it goes on in a tenant."""

    released: tuple[Next, ...]
    """Who comes in while those who are leaving leave, in that order."""
    queue: tuple[Waiting, ...]
    """Who waits on after that, in order: somebody has to leave who stays as yet, or a limit to grow."""


class _Unmoved:
    """Objects as the books have them: everybody is there, and nothing else is asked."""

    def grace(self, charge: Charge) -> int | None:
        return 0

    def workloads(self, tenant: str, accounting: Accounting) -> Iterable[Observed]:
        return ()

    def counts(self, tenant: str, names: Set[str]) -> Mapping[str, int]:
        return {}

    def closing(self, tenant: str) -> bool:
        return False


class _Undo(Exception):
    pass


def outlook(accounts: Accounts, tenant: str, now: float) -> Outlook:
    """What would happen in a tenant if all that are leaving left now and nobody else came."""
    released: list[Next] = []
    queue: tuple[Waiting, ...] = ()
    try:
        with accounts.attempt():
            gone: list[Charge] = []
            released += _came(accounts, tenant, now, (), events.TimePassed(tenant))
            for charge in _leaving(accounts, tenant):
                gone.append(charge)
                event = events.Removed(charge.tenant, charge.uid)
                released += _came(accounts, tenant, now, tuple(gone), event)
            queue = tuple(accounts.waiting(tenant))
            raise _Undo
    except _Undo:
        return Outlook(tuple(released), queue)


def _leaving(accounts: Accounts, tenant: str) -> list[Charge]:
    """Who is on the way out and expected to go, in the tenant and where it shares: who was told first is nearest."""
    cohort = accounts.policy(tenant).cohort
    tenants = {tenant, *(accounts.members(cohort) if cohort else ())}
    told = {id_ for pending in accounts.line(tenant).held() for id_ in pending.victims}
    everyone = [charge for member in tenants for charge in accounts.charges(member)]
    found = [c for c in everyone if (c.evicting or c.id in told) and not c.stuck and not c.finished]
    return sorted(found, key=lambda charge: (charge.tenant != tenant, charge.created, charge.uid))


def _came(accounts: Accounts, tenant: str, now: float, gone: tuple[Charge, ...], event: events.Event) -> Iterable[Next]:
    engine = Engine(accounts, _Unmoved(), now)
    wanted = engine.handle(event)
    for other in engine.waking():
        wanted += engine.wake(other)
    for effect in wanted:
        if isinstance(effect, effects.Release) and effect.charge.tenant == tenant:
            yield Next(effect.pending, gone)
