"""The kinds that the operator keeps or writes in a cluster, beside those that the embedded plane serves as well."""

from __future__ import annotations

from isoplane.objects.kinds import Resource

TENANTQUOTAS = Resource("isoplane.io", "v1alpha1", "tenantquotas", "TenantQuota", True, ("tq",), custom=True)
QUOTALEDGERS = Resource("isoplane.io", "v1alpha1", "quotaledgers", "QuotaLedger", False, custom=True)
