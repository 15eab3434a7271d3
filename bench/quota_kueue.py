"""The shapes that Kueue publishes, on the decision core with a virtual clock: how near the quota-bound floor, and how much work.

    python bench/quota_kueue.py [--shape 15000|50000] [--json]

15,000 workloads in 30 queues: each queue has 20 CPUs of its own and receives 350 small (1 CPU, 0.2 s, one every 0.1 s,
priority 50), 100 medium (5 CPUs, 0.5 s, every 0.5 s, priority 100) and 50 large ones (20 CPUs, 1 s, every 1.2 s, priority
200): the parameters of Kueue's performance generator.  Their work is 66 s of every queue's quota, which is the floor.
50,000 in 1,000 queues: 35, 10 and 5 a queue, the same parameters.

Time is virtual: an admission takes no time, a run takes exactly its time.  ``wall`` is what all decisions took on this
machine.  Kueue's 351 s include its API server; this does not: see quota_api.py.
"""

from __future__ import annotations

import heapq
import json
import statistics
import sys
from dataclasses import dataclass
from time import perf_counter

from isoplane.quota.decide import decide
from isoplane.quota.ledger import Ledger
from isoplane.quota.model import Admit, Ask, Charge, Policy, Quota, Wait
from isoplane.quota.release import release

CPU = "requests.cpu"


@dataclass(frozen=True)
class Class:
    """One size of workload: how many a queue gets, CPUs, seconds of run, seconds between arrivals, priority."""

    name: str
    share: float
    cpu: int
    run: float
    every: float
    priority: int


CLASSES = (
    Class("small", 0.7, 1, 0.2, 0.1, 50),
    Class("medium", 0.2, 5, 0.5, 0.5, 100),
    Class("large", 0.1, 20, 1.0, 1.2, 200),
)
SHAPES = {15_000: 30, 50_000: 1_000}
OWN_CPUS = 20


def replay(workloads: int, queues: int) -> dict[str, object]:
    """Play the shape to its end."""
    each = workloads // queues
    ledger = Ledger()
    for queue in range(queues):
        ledger.set_quotas(f"q{queue}", [Quota("own", {CPU: OWN_CPUS * 1000})])
        ledger.set_policy(f"q{queue}", Policy())
    events: list[tuple[float, int, str, str, Class]] = []
    for queue in range(queues):
        for kind in CLASSES:
            for number in range(round(each * kind.share)):
                name = f"{queue}-{kind.name}-{number}"
                events.append((number * kind.every, 1, name, f"q{queue}", kind))
    heapq.heapify(events)
    arrived: dict[str, tuple[float, Class]] = {}
    waited: dict[str, list[float]] = {kind.name: [] for kind in CLASSES}
    began, end, work = perf_counter(), 0.0, 0.0

    def start(name: str, tenant: str, now: float) -> None:
        at, kind = arrived[name]
        waited[kind.name].append(now - at)
        heapq.heappush(events, (now + kind.run, 0, name, tenant, kind))

    while events:
        now, arrival, name, tenant, kind = heapq.heappop(events)
        end = now
        if arrival:
            arrived[name] = (now, kind)
            work += kind.cpu * kind.run
            charge = Charge(name, f"pod/{tenant}/{name}", tenant, {CPU: kind.cpu * 1000}, kind.priority, created=now)
            ask = Ask(charge, owned=True)
            decision = decide(ledger, ask, now)
            if isinstance(decision, Admit):
                ledger.add(charge)
                start(name, tenant, now)
            else:
                assert isinstance(decision, Wait)
                ledger.commit(ask, decision, now)
            continue
        ledger.remove(tenant, name)
        for waiting in release(ledger, tenant, now):
            start(waiting.charge.uid, tenant, now)
    wall = perf_counter() - began
    admitted = sum(len(times) for times in waited.values())
    floor = work / (OWN_CPUS * queues)
    return {
        "workloads": admitted,
        "queues": queues,
        "floor_s": round(floor, 1),
        "makespan_s": round(end, 1),
        "over_floor": round(end / floor, 3),
        "wall_s": round(wall, 2),
        "admissions_per_second_of_wall": round(admitted / wall),
        "mean_wait_s": {name: round(statistics.mean(times), 1) for name, times in waited.items()},
    }


def main() -> None:
    shapes = SHAPES
    if "--shape" in sys.argv:
        wanted = int(sys.argv[sys.argv.index("--shape") + 1])
        shapes = {wanted: SHAPES[wanted]}
    results = [replay(workloads, queues) for workloads, queues in shapes.items()]
    if "--json" in sys.argv:
        print(json.dumps(results))
        return
    for result in results:
        for name, value in result.items():
            print(f"{name:32} {value}")
        print()


if __name__ == "__main__":
    main()
