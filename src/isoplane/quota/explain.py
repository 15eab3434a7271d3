"""A decision in words: Kubernetes' own refusal, what would help, and the same as data. Decides nothing.

The refusal reads as the API server's does (``exceeded quota: NAME, requested: …, used: …, limited: …``), because people
and scripts look for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from isoplane.objects.metadata import rfc3339
from isoplane.objects.quantity import approximate, render
from isoplane.quota.decide import missing
from isoplane.quota.model import Admit, Ask, Charge, Decision, Deny, Line, Spared, Victim, Wait, Waiting
from isoplane.quota.victims import RECLAIM

NAMED = 8
"""How many victims a message names before it only counts."""
RULES = {
    "fits": "it fits",
    "restarted": "it takes the place over that its owner's last instance left",
    "not-restarted": "nobody took its place over in time",
    "already-charged": "it is charged already",
    "must-specify": "a quota insists on something the workload leaves open",
    "given-back": "those who are leaving already give back enough; room is kept for it",
    "evict": "lower claims leave for it; room is kept for it",
    "in-line": "it waits in line, by priority, then age",
    "never": "it waits, and can never fit: it asks for more than a limit itself",
    "exceeded": "a limit would be passed",
    "pending": "as many workloads of its namespace wait as may wait (QuotaPolicy spec.maxPending)",
    "not-written": "its object could not be written; it keeps its place in line",
    "in-tenant": "a higher priority of its own namespace needs its quota",
    "reclaim": "another namespace takes back what it had lent",
    "priority": "a higher priority of another namespace needs the capacity they share",
    "hold-expired": "its victims did not leave in time; it keeps its place in line",
    "uncovered": "somebody on whose leaving its reservation counted did not end in time; it keeps its place in line",
    "stuck": "it was to leave for somebody and did not end in time; nobody counts on it any more",
    "ended": "it ended before it was admitted",
    "lost": "its object was not there any more",
    "grown": "a limit would be passed by what it grows",
    "counted": "the number of such objects is limited",
    "books": "the books were not what the objects add up to, and were set right",
}
"""Every rule that the trail may name, in words."""


def _list(lines: Iterable[Line], field: str) -> str:
    return ",".join(
        f"{line.resource}={approximate(line.resource, getattr(line, field))}"
        for line in sorted(lines, key=lambda line: line.resource)
    )


def _by_node(lines: Iterable[Line]) -> dict[str, list[Line]]:
    nodes: dict[str, list[Line]] = {}
    for line in lines:
        nodes.setdefault(line.node, []).append(line)
    return nodes


def shortage(lines: Sequence[Line]) -> str:
    """Kubernetes' wording for the lines that are short, one quota after another."""
    parts = []
    for node, short in _by_node(line for line in lines if missing(line)).items():
        kind, _, name = node.partition("/")
        what = {"quota": "quota", "borrowing": "borrowing limit", "cohort": "cohort capacity"}[kind]
        part = (
            f"exceeded {what}: {name}, requested: {_list(short, 'need')}, used: {_list(short, 'used')}, "
            f"limited: {_list(short, 'limit')}"
        )
        if kept := [line for line in short if line.held > 0]:
            part += f", held for others: {_list(kept, 'held')}"
        if ahead := [line for line in short if line.ahead > 0]:
            part += f", kept for the first in line: {_list(ahead, 'ahead')}"
        if reserved := [line for line in short if line.reserved > 0]:
            part += f", kept for migrations: {_list(reserved, 'reserved')}"
        parts.append(part)
    return "; ".join(parts)


def refusal(deny: Deny, charge: Charge | None = None) -> str:
    """The message of a refusal, without the object it concerns. ``charge``: what was asked for, to say what it consists of."""
    if deny.unspecified:
        return (
            "; ".join(
                f"failed quota: {quota}: must specify "
                + "; ".join(f"{resource} for: {','.join(units)}" for resource, units in sorted(open_.items()))
                for quota, open_ in deny.unspecified
            )
            + "; state them, or have a LimitRange of the namespace set defaults for containers"
        )
    short = _short(deny.lines, charge)
    if deny.rule == "pending":
        return f"exceeded quota: pending workloads, as many wait as spec.maxPending allows; {short}"
    return "; ".join(filter(None, (short, _help(deny))))


def _short(lines: Sequence[Line], charge: Charge | None) -> str:
    """What is short, and where that is a machine's memory, what it consists of."""
    memory = any(missing(line) and line.resource.endswith("memory") for line in lines)
    return "; ".join(filter(None, (shortage(lines), made_of(charge) if charge is not None and memory else "")))


def never_fits(lines: Iterable[Line]) -> str:
    """That it can never fit, and why; '' when it can, once others have left."""
    never = [line for line in lines if line.need > line.limit]
    return f"it can never fit: {_list(never, 'need')} is more than the limit itself" if never else ""


_NOBODY = "nobody can be evicted for it"


def _help(deny: Deny) -> str:
    """What would help, in one sentence; '' when the numbers say it all."""
    if never := never_fits(deny.lines):
        return never
    if giving := [line for line in deny.lines if missing(line) and line.evicting > 0]:
        return f"{_list(giving, 'evicting')} will come back from workloads that are leaving: try again soon"
    if deny.spared:
        first = deny.spared[0]
        more = f" (and {len(deny.spared) - 1} more)" if len(deny.spared) > 1 else ""
        return f"{_NOBODY}: {f'{first.id}: ' if first.id else ''}{first.reason}{more}"
    return ""


def told(victims: Sequence[Victim], tenant: str, *, priorities: bool = False) -> list[str]:
    """Victims for the eyes of ``tenant``."""
    return named([victim.charge for victim in victims], tenant, priorities=priorities)


def named(charges: Sequence[Charge], tenant: str, *, priorities: bool = False) -> list[str]:
    """Workloads for the eyes of ``tenant``: the first few of its own by name, other tenants' only by number."""
    own = [charge for charge in charges if charge.tenant == tenant]
    found = [f"{c.id} (priority {c.priority})" if priorities else c.id for c in own[:NAMED]]
    if len(own) > NAMED:
        found.append(f"{len(own) - NAMED} more")
    others = Counter(charge.tenant for charge in charges if charge.tenant != tenant)
    return found + [f"{count} of namespace {other}" for other, count in sorted(others.items())]


def waits_for(wait: Wait, charge: Charge) -> str:
    """What a Gated workload says it waits for."""
    short = _short(wait.lines, charge)
    if never := never_fits(wait.lines):
        return f"{never} ({short})"
    if wait.victims:
        names = ", ".join(told(wait.victims, charge.tenant))
        return f"waits until {names} {'leaves' if len(wait.victims) == 1 else 'leave'}; room is held for it ({short})"
    if wait.held:
        return f"waits until those who are leaving have left; room is held for it ({short})"
    return f"waits in line for quota ({short})"


def would_evict(wait: Wait, tenant: str) -> str:
    """The warning of a dry run to ``tenant``; '' when nobody would leave."""
    return "would evict " + ", ".join(told(wait.victims, tenant, priorities=True)) if wait.victims else ""


def preempted(victim: Victim, preemptor: Charge, cohort: str) -> str:
    """What a victim is told: who needs its quota, by which rule. Another tenant's workload is never named, only its namespace."""
    if victim.charge.tenant == preemptor.tenant:
        why = f"by {preemptor.id} (priority {preemptor.priority}), which needs its quota"
    elif victim.rule == RECLAIM:
        why = f"for namespace {preemptor.tenant}, which takes back what it lent to cohort {cohort}"
    else:
        why = f"for a priority of {preemptor.priority} in namespace {preemptor.tenant}, for which cohort {cohort} is short"
    return f"preempted {why} ({victim.rule})"


def _amounts(amounts: Any) -> dict[str, str]:
    return {name: render(name, value) for name, value in sorted(amounts.items())}


@dataclass(frozen=True, slots=True)
class Standing:
    """How somebody waits who is there already."""

    waiting: Waiting
    place: int
    """Its place among those in line, from 1; 0 with a hold."""
    line: int
    """How many stand in line."""

    def words(self, now: float) -> str:
        """Since when, where, and for whom."""
        waited = max(0, round(now - self.waiting.since))
        told = f"waits since {rfc3339(self.waiting.since)} ({waited} s)"
        if not self.waiting.held:
            return f"{told}, number {self.place} of {self.line} in line"
        ends = f" until {rfc3339(self.waiting.expires)}" if self.waiting.expires else ""
        whom = f", for {', '.join(self.waiting.victims)} to leave" if self.waiting.victims else ""
        return f"{told} with a hold{ends}{whom}"


def data(ask: Ask, decision: Decision, standing: Standing | None = None) -> dict[str, Any]:
    """The decision for programs."""
    verdict = {Admit: "admit", Wait: "wait", Deny: "deny"}[type(decision)]
    charge = ask.charge
    result: dict[str, Any] = {
        "workload": charge.id,
        "decision": verdict,
        "rule": decision.rule,
        "reason": RULES[decision.rule],
        "priority": charge.priority,
        "requested": _amounts(charge.amounts),
        "limits": [_line(line) for line in decision.lines],
    }
    if isinstance(decision, Wait):
        result["held"] = decision.held
        result["message"] = waits_for(decision, charge)
        result["victims"] = [
            {
                "workload": v.charge.id,
                "priority": v.charge.priority,
                "rule": v.rule,
                "gives": _amounts(v.charge.amounts),
            }
            for v in decision.victims
        ]
    if standing is not None:
        waiting = standing.waiting
        result["since"] = rfc3339(waiting.since)
        result["place"], result["line"] = standing.place, standing.line
        if waiting.victims:
            result["waitsFor"] = list(waiting.victims)
    if isinstance(decision, Deny):
        result["message"] = refusal(decision, charge)
    if not isinstance(decision, Admit):
        result["spared"] = [{"workload": s.id, "reason": s.reason} for s in decision.spared]
    return result


def _line(line: Line, render: Callable[[str, int], str] = render) -> dict[str, Any]:
    def text(value: int) -> str:
        return render(line.resource, value)

    return {
        "node": line.node,
        "resource": line.resource,
        "requested": text(line.need),
        "used": text(line.used),
        "held": text(line.held),
        "comingBack": text(line.evicting),
        "limit": text(line.limit),
        "fits": not missing(line),
        "short": text(max(0, line.short_now, line.short)),
    }


def made_of(charge: Charge) -> str:
    """What a machine's memory consists of, where running the guest costs more than the guest sees; else ''."""
    asked, guest = charge.amounts.get("requests.memory", 0), charge.amounts.get("requests.memory/vmi", 0)
    if not 0 < guest < asked:
        return ""
    whole, own, more = (approximate("memory", value) for value in (asked, guest, asked - guest))
    return f"memory {whole}: guest {own} + overhead {more}"


def text(ask: Ask, decision: Decision, standing: Standing | None = None, now: float = 0) -> str:
    """The decision for people, several lines. ``now`` in POSIX seconds, for how long it has waited."""
    verdict = {Admit: "is admitted", Wait: "waits", Deny: "is refused"}[type(decision)]
    rows = [f"{ask.charge.id} (priority {ask.charge.priority}) {verdict}: {RULES[decision.rule]}"]
    width = max((len(f"{line.name} {line.resource}") for line in decision.lines), default=0)
    for line in decision.lines:
        show = _line(line, approximate)
        state = "ok" if show["fits"] else f"short by {show['short']}"
        kept = f", {show['held']} held" if line.held > 0 else ""
        back = f", {show['comingBack']} coming back" if line.evicting > 0 else ""
        rows.append(
            f"  {f'{line.name} {line.resource}':<{width}}  +{show['requested']} on {show['used']} of {show['limit']}"
            f"{kept}{back}: {state}"
        )
    if made := made_of(ask.charge):
        rows.append(f"  {made}")
    if standing is not None:
        rows.append(f"  {standing.words(now)}")
    if isinstance(decision, Wait):
        if never := never_fits(decision.lines):
            rows.append(f"  {never}")
        for victim in decision.victims:
            rows.append(f"  leaves: {victim.charge.id} (priority {victim.charge.priority}; {victim.rule})")
    if isinstance(decision, Deny):
        if decision.unspecified:
            rows.append(f"  {refusal(decision, ask.charge)}")
        elif (advice := _help(decision)) and not (decision.spared and advice.startswith(_NOBODY)):
            rows.append(f"  {advice}")
    if not isinstance(decision, Admit):
        rows += _stays(decision.spared)
    return "\n".join(rows)


def _stays(spared: Iterable[Spared]) -> list[str]:
    """Who is not evicted: one row a reason, the first few by name."""
    by_reason: dict[str, list[str]] = {}
    for one in spared:
        by_reason.setdefault(one.reason, []).append(one.id)
    found = []
    for reason, ids in by_reason.items():
        if not ids[0]:
            found.append(f"  nobody leaves: {reason}")
            continue
        found.append(f"  stays: {first_few(ids)}: {reason}")
    return found


def first_few(ids: Sequence[str]) -> str:
    """The first few by name, and how many more."""
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"{', '.join(ids[:NAMED])}{more}"
