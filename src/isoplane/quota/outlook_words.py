"""Who comes in next, in words and as data, for whoever asks about one workload that waits.

Workloads of other namespaces are counted, never named (docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from isoplane.quota.explain import first_few, named
from isoplane.quota.model import Charge, Waiting
from isoplane.quota.outlook import Next, Outlook


def outlook_rows(charge: Charge, outlook: Outlook) -> list[str]:
    """One row about itself, and one about who is first of all, where that is somebody else."""
    rows = []
    own = next((one for one in outlook.released if one.pending.charge.uid == charge.uid), None)
    before = _ahead(charge, outlook)
    if own is not None:
        rows.append(f"  comes in {_when(own, charge.tenant)}{_behind(before)}")
    else:
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
        {"workload": one.pending.charge.id, "after": named(one.after, charge.tenant)} for one in outlook.released
    ]
    return {"next": released, "ahead": [pending.charge.id for pending in _ahead(charge, outlook)]}


def _ahead(charge: Charge, outlook: Outlook) -> list[Waiting]:
    """Those who come in, or wait on, before it; everybody, where it does neither."""
    order = [*(one.pending for one in outlook.released), *outlook.queue]
    return list(takewhile(lambda pending: pending.charge.uid != charge.uid, order))


def _when(one: Next, tenant: str) -> str:
    names = named(one.after, tenant)
    return (
        f"once {', '.join(names)} {'has' if len(one.after) == 1 else 'have'} left" if names else "at the next wake-up"
    )


def _behind(before: Sequence[Waiting], joined: str = "") -> str:
    if not before:
        return ""
    return f", {joined}after {first_few([pending.charge.id for pending in before])} in the queue"
