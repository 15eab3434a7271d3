"""How many processors a machine's guest sees, as KubeVirt counts them.

Defaulting writes it into a machine's topology and :mod:`isoplane.workload.machine` charges for it: one count, so that a
manifest and the stored object come to the same.  Source: KubeVirt's defaults.go (SetDefaultGuestCPUTopology) and hw_utils.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects import quantity

PARTS = ("sockets", "cores", "threads")


def vcpus(domain: Mapping[str, Any]) -> int:
    """The parts of the stated topology multiplied, else the CPU limit, else the request; at least 1.

    Raises ValueError on a malformed quantity.
    """
    cpu = domain.get("cpu") or {}
    if any(cpu.get(part) for part in PARTS):
        count = 1
        for part in PARTS:
            count *= int(cpu.get(part) or 1)
        return count
    resources = domain.get("resources") or {}
    for side in ("limits", "requests"):
        stated = (resources.get(side) or {}).get("cpu")
        if stated is not None:
            return max(1, quantity.whole(stated))
    return 1
