"""Quota in the store's one write transaction: object, charge, counters, victims' marks and hold change together or not at all.

    plugin.py    the admission plug-in: which write concerns quota, and how
    session.py   one transaction's work: tell the engine what is written, carry out what it answers
    telling.py   … and what it tells: statuses, Events, the trail
    accounts.py  the ledger's bookkeeping over rows of the store
    rows.py      what those rows look like
    usage.py     the computed QuotaUsage
    trail.py     the audit trail as computed QuotaDecisions
    metrics.py   the same for Prometheus
    repair.py    on start: are the books what the objects add up to?

Every rule is in isoplane.quota; its engine (quota/engine.py) decides, and nothing here does.
"""

from isoplane.server.quota_admission.metrics import quota_families
from isoplane.server.quota_admission.plugin import QuotaAdmission
from isoplane.server.quota_admission.repair import repair
from isoplane.server.quota_admission.trail import decisions_summary
from isoplane.server.quota_admission.usage import usage_summary

__all__ = ["QuotaAdmission", "decisions_summary", "quota_families", "repair", "usage_summary"]
