"""The effective sum over a Pod's containers: side by side, or the hungriest step of the initialisation, whichever is more.

Validation holds a Pod's own resources against it, and :mod:`isoplane.workload.requests` makes the charge of it.
Source: k8s.io/component-helpers/resource (PodRequests, PodLimits), KEP-753 for sidecars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def add(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add ``more`` to ``total``, resource by resource."""
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def raise_to(total: dict[str, int], floor: Mapping[str, int]) -> None:
    """Raise ``total`` to at least ``floor``, resource by resource."""
    for name, value in floor.items():
        total[name] = max(total.get(name, 0), value)


def with_steps(total: dict[str, int], inits: Iterable[tuple[bool, Mapping[str, int]]]) -> None:
    """Add the sidecars to the containers' sum ``total``, and raise it to the hungriest step of the initialisation.

    ``inits``: (whether it is a sidecar, its amounts), in order.  The i-th init container runs beside the sidecars that were
    started before it.
    """
    sidecars: dict[str, int] = {}
    starting: dict[str, int] = {}
    for sidecar, own in inits:
        if sidecar:
            add(total, own)
            add(sidecars, own)
            step: dict[str, int] = dict(sidecars)
        else:
            step = dict(own)
            add(step, sidecars)
        raise_to(starting, step)
    raise_to(total, starting)
