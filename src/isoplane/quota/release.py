"""Who may come in now that there is room: the wake-up of everyone who waits in a tenant.

Called in the very transaction that made the room, so that no newcomer gets in between.  Holds go first, then the line by priority
and age.  A smaller one behind may pass when those before it do not fit: at most ``MAX_PASSED`` times past the first in
line (after that its room is kept free), and from the first ``LOOK_AHEAD`` places only, so that a wake-up has a bounded cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from isoplane.quota.decide import decide
from isoplane.quota.ledger import Accounts
from isoplane.quota.line import WaitingLine
from isoplane.quota.model import Admit, Ask, Decision, Wait, Waiting

RETRY_ANNOTATION = "isoplane.io/quota-retry"
"""A new value on a Gated workload asks for a new decision, and a new plan if it may have one."""
LOOK_AHEAD = 32
"""How many places of the line one wake-up looks at."""


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
    line: WaitingLine,
    now: float,
    hold_seconds: float = 0,
    on_change: Callable[[Waiting, Decision], None] | None = None,
) -> list[Waiting]:
    """Charge everyone who fits now and take them out of the line; returns them.

    ``on_change`` hears of those released, and of those who got a hold of what is being given back.
    """
    released: list[Waiting] = []
    failed: set[tuple[tuple[str, int], ...]] = set()
    for waiting in [*line.held(), *line.front(LOOK_AHEAD)]:
        shape = tuple(sorted(waiting.charge.amounts.items())) if not waiting.held else ()
        if shape and shape in failed:
            continue
        ask = ask_of(waiting)
        decision = decide(accounts, ask, now)
        if isinstance(decision, Admit):
            accounts.add(replace(waiting.charge, since=now))
            released.append(waiting)
            if on_change is not None:
                on_change(waiting, decision)
            continue
        if isinstance(decision, Wait) and decision.held and not waiting.held:
            accounts.commit(ask, decision, now, hold_seconds)
            if on_change is not None:
                on_change(waiting, decision)
        elif shape:
            failed.add(shape)
    return released
