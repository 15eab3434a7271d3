"""The decision: Admit, Wait or Deny. Used alike for the real write, for a dry run and for explain.

    1 already charged                                      → Admit
    2 a quota insists on what the workload leaves open     → Deny
    3 the number of objects that may be stored is reached  → Deny, whoever asks: waiting is being stored
    4 no line is short, nobody's hold is touched           → Admit
    5 as many wait as may wait (maxPending)                → Deny, whoever asks
    6 what is leaving already gives enough back            → Wait, held, nobody else leaves
    7 a legal set of victims makes room for everything     → Wait, held, they leave
    8 an owner created it for the tenant                   → Wait in line
    9 otherwise                                            → Deny, with a reason per resource

Steps 6 and 7 are for a priority above the tenant's evictionThreshold, or for a tenant that takes its guarantee back.  All
resources are judged together before anyone is chosen, so that nobody is evicted for one and refused for another.
"""

from __future__ import annotations

from isoplane.quota.charge import INSISTED
from isoplane.quota.lines import lines_of, within_guarantee
from isoplane.quota.model import Admit, Ask, Decision, Deny, Line, Wait, counts_stored
from isoplane.quota.scopes import counts
from isoplane.quota.victims import candidates, choose, spared
from isoplane.quota.view import View

MAX_PLANS = 3
"""How many times others may be evicted for one waiting workload."""


def decide(view: View, ask: Ask, now: float) -> Decision:
    """Decide ``ask`` in the state ``view``. ``now`` in POSIX seconds, for minRunSeconds. Writes nothing."""
    charge = ask.charge
    if view.charge(charge.tenant, charge.uid) is not None:
        return Admit("already-charged")
    if unspecified := _insisted(view, ask):
        return Deny("must-specify", unspecified=unspecified)

    lines = tuple(lines_of(view, ask))
    if full := [line for line in lines if counts_stored(line.resource) and line.short_now > 0]:
        return Deny("counted", tuple(full))
    if all(line.short_now <= 0 and line.short <= 0 for line in lines):
        return Admit("fits", lines)

    if not ask.gated and view.pending(charge.tenant) >= view.policy(charge.tenant).max_pending:
        return Deny("pending", lines)
    short = [line for line in lines if line.short > 0]
    if entitled(view, ask, [line for line in lines if missing(line)]):
        if not short:
            return Wait("given-back", lines, held=True)
        if ask.preempts and ask.may_evict:
            found = candidates(view, ask, short, now)
            if plan := choose(view, ask, short, found):
                return Wait("evict", lines, held=True, victims=plan.victims, bumped=plan.bumped)
    if ask.owned or ask.gated:
        return Wait("never" if any(line.need > line.limit for line in lines) else "in-line", lines)
    return Deny("exceeded", lines, spared=spared(view, ask, [line for line in lines if missing(line)], now))


def missing(line: Line) -> bool:
    """Whether this line keeps the ask out."""
    return line.short_now > 0 or line.short > 0


def entitled(view: View, ask: Ask, lacking: list[Line]) -> bool:
    """Whether room may be kept or made for the ask: above the threshold, or reclaiming what the tenant lent."""
    threshold = view.policy(ask.charge.tenant).threshold
    if threshold is not None and ask.charge.priority > threshold:
        return True
    return all(line.shared for line in lacking) and within_guarantee(view, ask, lacking)


def _insisted(view: View, ask: Ask) -> tuple[tuple[str, dict[str, tuple[str, ...]]], ...]:
    """Per quota, what it insists on and the ask leaves open. ``cpu`` means ``requests.cpu``."""
    if not ask.unspecified:
        return ()
    found = []
    for quota in view.quotas(ask.charge.tenant):
        open_ = {
            resource: units
            for resource in quota.hard
            if resource in INSISTED
            and (units := ask.unspecified.get(resource if "." in resource else f"requests.{resource}"))
        }
        if open_ and counts(quota, ask.charge):
            found.append((quota.name, open_))
    return tuple(found)
