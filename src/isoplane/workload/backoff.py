"""How long to wait before the next try, per kind of failure. Pure: the caller brings jitter as a number in [0, 1).

Sources: kubelet's MaxContainerBackOff (10 s doubling, cap 300 s, reset after 10 min of running); KubeVirt's
calculateStartBackoffTime (10·n² s, up to half as much again, cap 300 s).
"""

from __future__ import annotations

CAP = 300.0
RESET_AFTER = 600.0


def container(crashes: int) -> float:
    """Seconds before restart number ``crashes`` + 1: none before the first, then 10, 20, 40 … 300."""
    return 0.0 if crashes <= 0 else min(CAP, 10.0 * 2 ** min(crashes - 1, 10))


def machine(failures: int, jitter: float) -> float:
    """Seconds before a VirtualMachine that failed ``failures`` times in a row is started again."""
    if failures <= 0:
        return 0.0
    base = 10.0 * failures**2
    return min(CAP, base + base * 0.5 * jitter)


def image(failures: int) -> float:
    """Seconds before an image is asked for again: 10 doubling to 300, as the kubelet."""
    return min(CAP, 10.0 * 2 ** min(max(failures - 1, 0), 10)) if failures else 0.0
