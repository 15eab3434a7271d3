"""Defaults, as the Kubernetes API server and KubeVirt's admission set them: each kind's module says its own.

Called before validation, so nothing there may trust a type: what is not of the expected shape is left for validation
to report.  Nulls are dropped first, as Go's decoder does.
"""

from __future__ import annotations

from typing import Any

from isoplane.objects.defaulting.nulls import drop_nulls, has_nulls
from isoplane.objects.resource import Resource


def apply_defaults(resource: Resource, obj: dict[str, Any]) -> None:
    """Fill in, in place, what the user left out. A generated name must be set before (a Namespace is labelled by it)."""
    if has_nulls(obj):
        drop_nulls(obj, resource.schema.root)
    resource.default(obj)
