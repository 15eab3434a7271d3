"""Reading and writing what every object has: identity, labels, owners, finalizers, conditions, timestamps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON; unknown fields are kept."""


def namespace(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("namespace") or "")


def name(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("name") or "")


def uid(obj: Mapping[str, Any]) -> str:
    return str((obj.get("metadata") or {}).get("uid") or "")


def key(obj: Mapping[str, Any]) -> str:
    """``namespace/name``, or ``name`` for a cluster-scoped object: what work queues carry."""
    own = namespace(obj)
    return f"{own}/{name(obj)}" if own else name(obj)


def split_key(text: str) -> tuple[str, str]:
    """The inverse of :func:`key`: (namespace or '', name)."""
    own, _, rest = text.rpartition("/")
    return own, rest


def labels(obj: Mapping[str, Any]) -> dict[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> dict[str, str]:
    return (obj.get("metadata") or {}).get("annotations") or {}


def is_deleting(obj: Mapping[str, Any]) -> bool:
    return bool((obj.get("metadata") or {}).get("deletionTimestamp"))


def controller_of(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference with ``controller: true``, if there is one."""
    for owner in (obj.get("metadata") or {}).get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return None


def owner_reference(owner: Mapping[str, Any], *, controller: bool = True) -> dict[str, Any]:
    """A reference to ``owner`` for a dependent's metadata.ownerReferences."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name(owner),
        "uid": uid(owner),
        "controller": controller,
        "blockOwnerDeletion": True,
    }


def condition(obj: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    """The named entry of status.conditions, if there is one."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry.get("type") == type_:
            return dict(entry)
    return None


def set_condition(conditions: Iterable[Mapping[str, Any]], new: Mapping[str, Any], now: str) -> list[dict[str, Any]]:
    """The conditions with ``new`` in place of its type; lastTransitionTime moves only when the status does."""
    result: list[dict[str, Any]] = []
    placed = False
    for entry in conditions:
        if entry.get("type") != new["type"]:
            result.append(dict(entry))
            continue
        same = entry.get("status") == new["status"]
        result.append({**new, "lastTransitionTime": entry.get("lastTransitionTime") or now if same else now})
        placed = True
    if not placed:
        result.append({**new, "lastTransitionTime": now})
    return result


def drop_condition(conditions: Iterable[Mapping[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [dict(entry) for entry in conditions if entry.get("type") != type_]


def rfc3339(moment: float, *, micro: bool = False) -> str:
    """A POSIX time (seconds) as metav1.Time, or as metav1.MicroTime with ``micro``."""
    stamp = datetime.fromtimestamp(moment, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def posix(stamp: str | None) -> float | None:
    """A metav1.Time or MicroTime as POSIX seconds; None when absent. Raises ValueError when malformed."""
    if not stamp:
        return None
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
