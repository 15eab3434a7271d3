"""A decision in words: Kubernetes' own refusal, what would help, and the same as data. Decides nothing.

The refusal reads as the API server's does (``exceeded quota: NAME, requested: …, used: …, limited: …``), because people
and scripts look for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from isoplane.objects.quantity import render
from isoplane.quota.decide import missing
from isoplane.quota.model import Admit, Ask, Decision, Deny, Line, Wait

RULES = {
    "fits": "it fits",
    "already-charged": "it is charged already",
    "must-specify": "a quota insists on something the workload leaves open",
    "given-back": "those who are leaving already give back enough; room is kept for it",
    "evict": "lower claims leave for it; room is kept for it",
    "in-line": "it waits in line, by priority, then age",
    "exceeded": "a limit would be passed",
}
"""Every rule a decision may name, in words."""


def _list(lines: Iterable[Line], field: str) -> str:
    return ",".join(
        f"{line.resource}={render(line.resource, getattr(line, field))}"
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


def refusal(deny: Deny) -> str:
    """The message of a refusal, without the object it concerns."""
    if deny.unspecified:
        return "; ".join(
            f"failed quota: {quota}: must specify "
            + "; ".join(f"{resource} for: {','.join(units)}" for resource, units in sorted(open_.items()))
            for quota, open_ in deny.unspecified
        )
    return "; ".join(filter(None, (shortage(deny.lines), _help(deny))))


_NOBODY = "nobody can be evicted for it"


def _help(deny: Deny) -> str:
    """What would help, in one sentence; '' when the numbers say it all."""
    never = [line for line in deny.lines if line.need > line.limit]
    if never:
        return f"it can never fit: {_list(never, 'need')} is more than the limit itself"
    if giving := [line for line in deny.lines if missing(line) and line.evicting > 0]:
        return f"{_list(giving, 'evicting')} will come back from workloads that are leaving: try again soon"
    if deny.spared:
        first = deny.spared[0]
        more = f" (and {len(deny.spared) - 1} more)" if len(deny.spared) > 1 else ""
        return f"{_NOBODY}: {first.id}: {first.reason}{more}"
    return ""


def waits_for(wait: Wait) -> str:
    """What a Gated workload says it waits for."""
    short = shortage(wait.lines)
    if wait.victims:
        names = ", ".join(victim.charge.id for victim in wait.victims)
        return f"waits until {names} {'leaves' if len(wait.victims) == 1 else 'leave'}; room is held for it ({short})"
    if wait.held:
        return f"waits until those who are leaving have left; room is held for it ({short})"
    return f"waits in line for quota ({short})"


def would_evict(wait: Wait) -> str:
    """The warning of a dry run; '' when nobody would leave."""
    if not wait.victims:
        return ""
    return "would evict " + ", ".join(f"{v.charge.id} (priority {v.charge.priority})" for v in wait.victims)


def _amounts(amounts: Any) -> dict[str, str]:
    return {name: render(name, value) for name, value in sorted(amounts.items())}


def data(ask: Ask, decision: Decision) -> dict[str, Any]:
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
        result["message"] = waits_for(decision)
        result["victims"] = [
            {
                "workload": v.charge.id,
                "priority": v.charge.priority,
                "rule": v.rule,
                "gives": _amounts(v.charge.amounts),
            }
            for v in decision.victims
        ]
    if isinstance(decision, Deny):
        result["message"] = refusal(decision)
    if not isinstance(decision, Admit):
        result["spared"] = [{"workload": s.id, "reason": s.reason} for s in decision.spared]
    return result


def _line(line: Line) -> dict[str, Any]:
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


def text(ask: Ask, decision: Decision) -> str:
    """The decision for people, several lines."""
    verdict = {Admit: "is admitted", Wait: "waits", Deny: "is refused"}[type(decision)]
    rows = [f"{ask.charge.id} (priority {ask.charge.priority}) {verdict}: {RULES[decision.rule]}"]
    width = max((len(f"{line.name} {line.resource}") for line in decision.lines), default=0)
    for line in decision.lines:
        show = _line(line)
        state = "ok" if show["fits"] else f"short by {show['short']}"
        kept = f", {show['held']} held" if line.held > 0 else ""
        back = f", {show['comingBack']} coming back" if line.evicting > 0 else ""
        rows.append(
            f"  {f'{line.name} {line.resource}':<{width}}  +{show['requested']} on {show['used']} of {show['limit']}"
            f"{kept}{back}: {state}"
        )
    if isinstance(decision, Wait):
        for victim in decision.victims:
            rows.append(f"  leaves: {victim.charge.id} (priority {victim.charge.priority}; {victim.rule})")
    if isinstance(decision, Deny):
        if decision.unspecified:
            rows.append(f"  {refusal(decision)}")
        elif (advice := _help(decision)) and not (decision.spared and advice.startswith(_NOBODY)):
            rows.append(f"  {advice}")
    if not isinstance(decision, Admit):
        rows.extend(f"  stays: {spared.id}: {spared.reason}" for spared in decision.spared)
    return "\n".join(rows)
