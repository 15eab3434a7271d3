"""The words of a QuotaPolicy for how machines are counted: checked on the object, read by :mod:`isoplane.workload.accounting`."""

from __future__ import annotations

GUEST_PLUS_OVERHEAD = "GuestPlusOverhead"
GUEST_ONLY = "GuestOnly"
REQUESTS = "Requests"
MODES = (GUEST_PLUS_OVERHEAD, GUEST_ONLY, REQUESTS)
"""spec.vmAccounting; the first is the default."""

KUBEVIRT_VERSIONS = ("1.4", "1.5", "1.6", "1.7", "1.8", "1.9")
"""spec.kubevirtVersion; the last is the default."""
NEWEST_KUBEVIRT = KUBEVIRT_VERSIONS[-1]
