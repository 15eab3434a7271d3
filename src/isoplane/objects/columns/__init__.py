"""What ``kubectl get`` prints of each kind: column definitions and the function that fills a row.

One file a family of kinds; ``PRINTERS`` is what ``objects.tables`` reads.  Source: Kubernetes pkg/printers, and the
printer columns of the custom kinds' definitions.
"""

from __future__ import annotations

from isoplane.objects.columns import cluster, isoplane, machine, pod, policy
from isoplane.objects.columns.printer import Column, Printer, human_duration

PRINTERS: dict[tuple[str, str], Printer] = {
    **pod.PRINTERS, **cluster.PRINTERS, **policy.PRINTERS, **machine.PRINTERS, **isoplane.PRINTERS,
}  # fmt: skip

__all__ = ["PRINTERS", "Column", "Printer", "human_duration"]
