"""The decision core alone: decisions a second, growth with the number of workloads, and a plan over many candidates.

    python bench/quota_decisions.py [--json]

Caveat: one process, no store, no API; amounts and priorities are drawn from a fixed seed.
"""

from __future__ import annotations

import json
import sys
from random import Random
from time import perf_counter

from isoplane.quota.decide import decide
from isoplane.quota.ledger import Ledger
from isoplane.quota.model import Admit, Ask, Charge, Cohort, Policy, Quota, Wait

AMOUNTS = ("requests.cpu", "requests.memory", "pods")


def charge(number: int, tenant: str, rng: Random, priority: int = 0) -> Charge:
    amounts = dict(zip(AMOUNTS, (rng.randint(1, 8) * 250, rng.randint(1, 8) * 2**28, 1), strict=True))
    kind = "pod" if number % 4 else "vmi"
    name = f"w{number}"
    return Charge(
        name, f"{kind}/{tenant}/{name}", tenant, amounts, priority, created=float(number),
        cost=1 if kind == "pod" else 10, scopes=frozenset({"NotTerminating", "NotBestEffort"}),
    )  # fmt: skip


def filled(workloads: int, queues: int, *, cohort: bool = False) -> Ledger:
    """A ledger with that many charged workloads, and room for as many again."""
    rng = Random(1)
    ledger = Ledger()
    hard = {"requests.cpu": 10**9, "requests.memory": 2**60, "pods": 10**6}
    for queue in range(queues):
        ledger.set_quotas(f"q{queue}", [Quota("compute", hard)])
        ledger.set_policy(f"q{queue}", Policy(threshold=0, cohort="default" if cohort else ""))
    if cohort:
        ledger.set_cohort(Cohort("default", {"requests.cpu": 10**12, "requests.memory": 2**62}))
    for number in range(workloads):
        ledger.add(charge(number, f"q{number % queues}", rng))
    return ledger


def admissions(workloads: int, queues: int, *, cohort: bool = False, count: int = 20_000) -> float:
    """Decisions with their bookkeeping, a second, beside that many charged workloads."""
    ledger, rng = filled(workloads, queues, cohort=cohort), Random(2)
    asks = [Ask(charge(10**7 + n, f"q{n % queues}", rng)) for n in range(count)]
    began = perf_counter()
    for ask in asks:
        assert isinstance(decide(ledger, ask, 0), Admit)
        ledger.add(ask.charge)
        ledger.remove(ask.charge.tenant, ask.charge.uid)
    return count / (perf_counter() - began)


def decisions(workloads: int, queues: int, count: int = 50_000) -> float:
    """Decisions alone, a second."""
    ledger, rng = filled(workloads, queues), Random(2)
    asks = [Ask(charge(10**7 + n, f"q{n % queues}", rng)) for n in range(1000)]
    began = perf_counter()
    for number in range(count):
        decide(ledger, asks[number % 1000], 0)
    return count / (perf_counter() - began)


def plan(candidates: int) -> tuple[float, int]:
    """Seconds for one plan over that many candidates at a full quota, and how many victims it has."""
    rng = Random(3)
    ledger = Ledger()
    charges = [charge(n, "q", rng, priority=rng.randint(0, 99)) for n in range(candidates)]
    used = {name: sum(c.amounts[name] for c in charges) for name in AMOUNTS}
    ledger.set_quotas("q", [Quota("compute", used)])
    ledger.set_policy("q", Policy(threshold=100))
    for one in charges:
        ledger.add(one)
    need = {name: used[name] // 20 for name in AMOUNTS}
    ask = Ask(Charge("new", "vmi/q/new", "q", need, 1000))
    best = 1e9
    for _ in range(5):
        began = perf_counter()
        decision = decide(ledger, ask, 0)
        best = min(best, perf_counter() - began)
    assert isinstance(decision, Wait)
    return best, len(decision.victims)


def main() -> None:
    seconds, victims = plan(10_000)
    result = {
        "decisions_per_second_15000_in_30": round(decisions(15_000, 30)),
        "decisions_per_second_50000_in_1000": round(decisions(50_000, 1000)),
        "admit_and_release_per_second": {str(n): round(admissions(n, 30)) for n in (100, 1_000, 10_000, 100_000)},
        "with_cohort_50000_in_1000": round(admissions(50_000, 1000, cohort=True)),
        "plan_over_10000_candidates_ms": round(seconds * 1000, 1),
        "plan_victims": victims,
    }
    if "--json" in sys.argv:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:40} {value}")


if __name__ == "__main__":
    main()
