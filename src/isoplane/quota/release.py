"""Who may come in now that there is room: the wake-up of everyone who waits in a tenant.

Called in the very transaction that made the room, so that no newcomer gets in between.  Holds go first, then the line by priority
and age.  A smaller one behind may pass when those before it do not fit: at most ``MAX_PASSED`` times past the first in
line (after that its room is kept free), and from the first ``LOOK_AHEAD`` places only, so that a wake-up has a bounded cost.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import TypeVar

from isoplane.quota.accounts import Accounts
from isoplane.quota.decide import decide
from isoplane.quota.model import Admit, Ask, Decision, Wait, Waiting

RETRY_ANNOTATION = "isoplane.io/quota-retry"
"""A new value on a Gated workload asks for a new decision, and a new plan if it may have one."""
RETRY_SECONDS = 15.0
"""How often the first in line of a tenant are asked again, for what no event tells: a minimum run time that is over."""
RETRY_FRONT = 4
"""How many of them each time; the first always, the others in turn."""
LOOK_AHEAD = 32
"""How many places of the line a wake-up looks at beyond the last that it let in."""
AT_ONCE = 4096
"""How many one wake-up lets in at most: a transaction has an end. The next wake-up goes on."""

T = TypeVar("T")
Shape = tuple[tuple[tuple[str, int], ...], frozenset[str], str]


def retried(order: Sequence[T], turn: int) -> list[T]:
    """Whom to ask again this time, of all who wait in order."""
    others = order[1:]
    start = turn * (RETRY_FRONT - 1) % len(others) if others else 0
    return [*order[:1], *others[start : start + RETRY_FRONT - 1]]


def ask_of(waiting: Waiting, *, may_evict: bool = False) -> Ask:
    """The ask of someone who waits already."""
    return Ask(
        waiting.charge,
        owned=True,
        gated=True,
        preempts=waiting.preempts,
        holding=waiting.held,
        may_evict=may_evict,
    )


def release(
    accounts: Accounts,
    tenant: str,
    now: float,
    hold_seconds: float = 0,
    on_change: Callable[[Waiting, Decision], None] | None = None,
    skip: Container[str] = (),
) -> list[Waiting]:
    """Charge everyone who fits now and take them out of the line; returns them.

    ``on_change`` hears of those released, and of those who got a hold of what is being given back. ``skip``: uids of those who
    are left where they are.
    """
    line = accounts.line(tenant)
    failed: set[Shape] = set()

    def look(todo: list[Waiting]) -> list[Waiting]:
        todo = [waiting for waiting in todo if waiting.charge.uid not in skip] if skip else todo
        return _pass(accounts, todo, failed, now, hold_seconds, on_change)

    released = look(line.held())
    while len(released) < AT_ONCE:
        let_in = look(line.front(LOOK_AHEAD))
        if not let_in:
            break
        released += let_in
    return released


def _pass(
    accounts: Accounts,
    todo: list[Waiting],
    failed: set[Shape],
    now: float,
    hold_seconds: float,
    on_change: Callable[[Waiting, Decision], None] | None,
) -> list[Waiting]:
    """One look at some of those who wait. ``failed``: amounts that did not fit, and will not while nobody leaves."""
    released: list[Waiting] = []
    for waiting in todo:
        charge = waiting.charge
        shape = (tuple(sorted(charge.amounts.items())), charge.scopes, charge.priority_class)
        if not waiting.held and shape in failed:
            continue
        ask = ask_of(waiting)
        decision = decide(accounts, ask, now)
        if isinstance(decision, Admit):
            accounts.add(replace(charge, since=now))
            released.append(waiting)
            if on_change is not None:
                on_change(waiting, decision)
        elif isinstance(decision, Wait) and decision.held and not waiting.held:
            accounts.commit(ask, decision, now, hold_seconds)
            if on_change is not None:
                on_change(waiting, decision)
        elif not waiting.held:
            failed.add(shape)
    return released
