"""Every limit that an ask would touch, and how short each would be: the arithmetic under a decision.

A quota's line and a tenant's borrowing line are plain sums.  The cohort's is a sum over tenants of what each takes or
keeps in reserve, whichever is more, so that an unlent guarantee cannot be given away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from isoplane.quota.charge import canonical
from isoplane.quota.model import Amounts, Ask, Charge, Line, Policy, Totals, counts_stored
from isoplane.quota.scopes import counts
from isoplane.quota.view import View


def lines_of(view: View, ask: Ask) -> list[Line]:
    """The lines of the quotas that count the ask, then of its borrowing, then of its cohort. Only what it needs.

    A number of stored objects has a line for a new object only: nothing is held of it, and nobody leaves for it.
    """
    charge = ask.charge
    tenant, amounts = charge.tenant, charge.amounts
    head, policy = view.head(ask), view.policy(tenant)
    lines: list[Line] = []
    for quota in view.quotas(tenant):
        if not counts(quota, charge):
            continue
        totals, node, reserve = view.totals(tenant, quota.name), f"quota/{quota.name}", policy.migration_reserve
        kept = head.charge.amounts if head is not None and counts(quota, head.charge) else {}
        for resource, limit in quota.hard.items():
            need = amounts.get(resource, 0)
            if need > 0 and counts_stored(resource):
                if not ask.gated:  # whoever waits is stored, and counted
                    lines.append(_line(node, resource, need, limit, totals, False, 0))
            elif need > 0:
                reserved = reserve.get(canonical(resource), 0) if reserve else 0
                ahead = kept.get(resource, 0) if kept else 0
                # Who could never fit keeps nobody out.
                ahead = ahead if ahead + reserved <= limit else 0
                lines.append(_line(node, resource, need, limit, totals, ask.holding, ahead, reserved))
    if policy.cohort:
        lines += _cohort_lines(view, ask, policy, head.charge.amounts if head is not None else {})
    return lines


def _line(
    node: str, resource: str, need: int, limit: int, totals: Totals, holding: bool, ahead: int, reserved: int = 0
) -> Line:
    used = totals.used.get(resource, 0)
    evicting = totals.evicting.get(resource, 0)
    held = totals.held.get(resource, 0) - (need if holding else 0)
    taken = need + ahead + reserved - limit
    soft = used - evicting + held
    return Line(node, resource, need, limit, used, held, evicting, used + taken, soft + taken, ahead, reserved)


def _cohort_lines(view: View, ask: Ask, policy: Policy, kept: Amounts) -> list[Line]:
    charge = ask.charge
    own = view.whole(charge.tenant)
    lines: list[Line] = []
    for resource, more in policy.borrowing.items():
        need = charge.amounts.get(resource, 0)
        if need > 0:
            limit = policy.guaranteed.get(resource, 0) + more
            ahead = kept.get(resource, 0)
            ahead = ahead if ahead <= limit else 0
            lines.append(_line(f"borrowing/{charge.tenant}", resource, need, limit, own, ask.holding, ahead))
    cohort = view.cohort(policy.cohort)
    if cohort is None:
        return lines
    everyone = view.cohort_totals(cohort.name)
    for resource, limit in cohort.capacity.items():
        need = charge.amounts.get(resource, 0)
        if need <= 0:
            continue
        reserve = policy.reserve(resource)
        used = own.used.get(resource, 0)
        soft = own.soft(resource) - (need if ask.holding else 0)
        taken = everyone.taken.get(resource, 0)
        claimed = everyone.claimed.get(resource, 0)
        if ask.holding:
            claimed -= max(soft + need, reserve) - max(soft, reserve)
        ahead = kept.get(resource, 0)
        more = need + (ahead if ahead <= limit else 0)
        short_now = taken - max(used, reserve) + max(used + more, reserve) - limit
        short = claimed - max(soft, reserve) + max(soft + more, reserve) - limit
        # What others hold and give back is seen as the difference between the two sums.
        lines.append(
            Line(
                f"cohort/{cohort.name}", resource, need, limit, taken, max(0, claimed - taken),
                max(0, taken - claimed), short_now, short, more - need,
            )
        )  # fmt: skip
    return lines


def growth_lines(view: View, old: Charge, new: Charge) -> list[Line]:
    """The lines that a charged workload touches when it changes: by what it takes more, and of a quota that did not count it
    before (its scopes changed) by all that it takes, as upstream bills it."""
    more = {name: value - old.amounts.get(name, 0) for name, value in new.amounts.items()}
    more = {name: value for name, value in more.items() if value > 0}
    quotas = view.quotas(new.tenant)
    joined = {f"quota/{quota.name}" for quota in quotas if counts(quota, new) and not counts(quota, old)}
    lines = lines_of(view, Ask(replace(new, amounts=more))) if more else []
    lines = [line for line in lines if line.node not in joined]
    if joined:
        lines += [line for line in lines_of(view, Ask(new)) if line.node in joined]
    return lines


def full_counts(view: View, tenant: str, amounts: Amounts) -> list[Line]:
    """The lines that one more object that is no workload would pass; only quotas without scopes count those."""
    short: list[Line] = []
    for quota in view.quotas(tenant):
        if quota.scopes:
            continue
        used = view.totals(tenant, quota.name).used
        for name, need in amounts.items():
            limit, taken = quota.hard.get(name), used.get(name, 0)
            if limit is not None and taken + need > limit:
                over = taken + need - limit
                short.append(Line(f"quota/{quota.name}", name, need, limit, taken, 0, 0, over, over))
    return short


def within_guarantee(view: View, ask: Ask, lines: Iterable[Line]) -> bool:
    """Whether the tenant stays at or under its guarantee with the ask, in all that is short of what the cohort shares."""
    policy = view.policy(ask.charge.tenant)
    shared = [line for line in lines if line.shared]
    own = view.whole(ask.charge.tenant)
    for line in shared:
        taken = max(own.used.get(line.resource, 0), own.soft(line.resource) - (line.need if ask.holding else 0))
        if taken + line.need > policy.guaranteed.get(line.resource, 0):
            return False
    return bool(shared)
