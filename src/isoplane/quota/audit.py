"""The audit trail: one entry for every admission, refusal, wait, eviction and release, with the rule that decided.

Entries are values; the server keeps the last of them beside the ledger and writes them in the transaction they tell of.  An
entry is for the eyes of its own tenant: workloads of another are counted in it, never named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from isoplane.quota.decide import missing
from isoplane.quota.explain import told
from isoplane.quota.model import Admit, Ask, Decision, Deny, Wait

Act = Literal["admit", "wait", "refuse", "evict", "release", "expire", "repair"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. ``time`` in POSIX seconds; ``short`` maps ``node resource`` to what was missing, in the ledger's units."""

    time: float
    act: Act
    workload: str
    uid: str
    tenant: str
    rule: str
    priority: int = 0
    victims: tuple[str, ...] = ()
    preemptor: str = ""
    short: Mapping[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Only what is set."""
        entry: dict[str, Any] = {
            "time": self.time,
            "act": self.act,
            "workload": self.workload,
            "uid": self.uid,
            "tenant": self.tenant,
            "rule": self.rule,
            "priority": self.priority,
        }
        if self.victims:
            entry["victims"] = list(self.victims)
        if self.preemptor:
            entry["preemptor"] = self.preemptor
        if self.short:
            entry["short"] = dict(self.short)
        return entry


def entries(ask: Ask, decision: Decision, now: float) -> list[Entry]:
    """What a decision on a new workload leaves in the trail: itself, and one entry for each who leaves."""
    act: Act = "refuse" if isinstance(decision, Deny) else "wait"
    charge = ask.charge
    victims = decision.victims if isinstance(decision, Wait) else ()
    if isinstance(decision, Admit):
        return [Entry(now, "admit", charge.id, charge.uid, charge.tenant, decision.rule, charge.priority)]
    short = {
        f"{line.node} {line.resource}": max(line.short, line.short_now) for line in decision.lines if missing(line)
    }
    found = [
        Entry(
            now, act, charge.id, charge.uid, charge.tenant, decision.rule, charge.priority,
            tuple(told(victims, charge.tenant)), "", short,
        )
    ]  # fmt: skip
    for victim in victims:
        gone = victim.charge
        whom = charge.id if gone.tenant == charge.tenant else f"namespace {charge.tenant}"
        found.append(Entry(now, "evict", gone.id, gone.uid, gone.tenant, victim.rule, gone.priority, preemptor=whom))
    return found
