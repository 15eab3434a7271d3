"""Who comes in next, in words and as data, for whoever asks about one workload that waits.

Workloads of other namespaces are counted, never named (docs/decisions/0006).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from isoplane.quota.explain import NAMED
from isoplane.quota.model import Charge, Waiting
from isoplane.quota.outlook import Next, Outlook


def outlook_rows(charge: Charge, outlook: Outlook) -> list[str]:
    """One row about itself, and one about who is first of all, where that is somebody else."""
    rows = []
    own = next((one for one in outlook.released if one.pending.charge.uid == charge.uid), None)
    if own is not None:
        before = [one.pending for one in outlook.released[: outlook.released.index(own)]]
        rows.append(f"  comes in {_when(own, charge.tenant)}{_behind(before)}")
    else:
        before = [one.pending for one in outlook.released] + _ahead(charge, outlook.queue)
        rows.append(
            f"  comes in once somebody leaves who stays as yet, or a limit grows{_behind(before, 'and ' if before else '')}"
        )
    if outlook.released and outlook.released[0] is not own:
        first = outlook.released[0]
        rows.append(f"  next: {first.pending.charge.id} {_when(first, charge.tenant)}")
    elif own is None and outlook.queue and outlook.queue[0].charge.uid != charge.uid:
        rows.append(f"  next in the queue: {outlook.queue[0].charge.id}")
    return rows


def outlook_data(charge: Charge, outlook: Outlook) -> dict[str, Any]:
    """``next``: who comes in while others leave, in order, each with ``after`` whom; ``ahead``: who is before this one."""
    released = [
        {"workload": one.pending.charge.id, "after": _names(one.after, charge.tenant)} for one in outlook.released
    ]
    uids = [one.pending.charge.uid for one in outlook.released]
    pendings = [one.pending for one in outlook.released]
    ahead = pendings[: uids.index(charge.uid)] if charge.uid in uids else pendings + _ahead(charge, outlook.queue)
    return {"next": released, "ahead": [pending.charge.id for pending in ahead]}


def _ahead(charge: Charge, queue: Sequence[Waiting]) -> list[Waiting]:
    """Those before it in the queue; everybody, where it is not there."""
    uids = [pending.charge.uid for pending in queue]
    return list(queue[: uids.index(charge.uid)]) if charge.uid in uids else list(queue)


def _when(one: Next, tenant: str) -> str:
    names = _names(one.after, tenant)
    return (
        f"once {', '.join(names)} {'has' if len(one.after) == 1 else 'have'} left" if names else "at the next wake-up"
    )


def _names(charges: Sequence[Charge], tenant: str) -> list[str]:
    own = [charge.id for charge in charges if charge.tenant == tenant]
    found = own[:NAMED]
    if len(own) > NAMED:
        found.append(f"{len(own) - NAMED} more")
    others = Counter(charge.tenant for charge in charges if charge.tenant != tenant)
    return found + [f"{count} of namespace {other}" for other, count in sorted(others.items())]


def _behind(before: Sequence[Waiting], joined: str = "") -> str:
    if not before:
        return ""
    ids = [pending.charge.id for pending in before]
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f", {joined}after {', '.join(ids[:NAMED])}{more} in the queue"
