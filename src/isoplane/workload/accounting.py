"""How a quota counts machines: the part of a QuotaPolicy that an adapter reads (spec.vmAccounting, spec.kubevirtVersion)."""

from __future__ import annotations

from typing import NamedTuple

from isoplane.objects.accounting import GUEST_PLUS_OVERHEAD, NEWEST_KUBEVIRT


class Accounting(NamedTuple):
    """A way of counting.

    ``GuestPlusOverhead``: all that KubeVirt requests for a machine, its launcher's other containers included.  ``GuestOnly``:
    what the guest sees, whole vCPUs and its memory.  ``Requests``: what KubeVirt requests for the guest, without overhead.
    """

    mode: str = GUEST_PLUS_OVERHEAD
    kubevirt: str = NEWEST_KUBEVIRT
    """KubeVirt's minor version, whose figures count."""


DEFAULT_ACCOUNTING = Accounting()
