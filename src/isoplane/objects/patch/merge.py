"""JSON merge patch (RFC 7386): ``application/merge-patch+json``, the patch of custom resources.

Members are merged, null removes one, everything else (lists too) replaces.
"""

from __future__ import annotations

from typing import Any

from isoplane.objects.copying import deep_copy
from isoplane.objects.errors import BadRequest


def apply_merge(obj: dict[str, Any], patch: Any) -> dict[str, Any]:
    """The merged object. Raises BadRequest when the patch is not an object or nests too deep."""
    if not isinstance(patch, dict):
        raise BadRequest("a merge patch is an object")
    result: dict[str, Any] = _merge(deep_copy(obj), deep_copy(patch))
    return result


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = _merge(target.get(name), value)
    return target
