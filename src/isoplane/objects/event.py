"""The object that an Event is: what happened to whom, told by which component. Writing it is the caller's.

Source: client-go's ``tools/record``, which fills the same fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import EVENTS
from isoplane.objects.metadata import Object

MESSAGE_LIMIT = 1024
"""Characters of a message; the API takes no longer ones."""
_NAME_LIMIT = 220


def event_of(
    obj: Mapping[str, Any],
    type_: str,
    reason: str,
    message: str,
    *,
    now: float,
    suffix: str,
    component: str,
    host: str = "",
    field_path: str = "",
) -> Object:
    """The Event about ``obj``. ``suffix`` makes its name unique; ``field_path`` is the part of ``obj`` that it is about."""
    namespace = metadata.namespace(obj)
    stamp = metadata.rfc3339(now)
    involved = {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "name": metadata.name(obj),
        "namespace": namespace,
        "uid": metadata.uid(obj),
        "resourceVersion": (obj.get("metadata") or {}).get("resourceVersion"),
        "fieldPath": field_path,
    }
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": f"{metadata.name(obj)[:_NAME_LIMIT]}.{suffix}", "namespace": namespace or "default"},
        "involvedObject": {key: value for key, value in involved.items() if value},
        "reason": reason,
        "message": shortened(message),
        "source": {"component": component, **({"host": host} if host else {})},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
        "type": type_,
        "eventTime": None,
        "reportingComponent": component,
        "reportingInstance": host,
    }


def shortened(message: str) -> str:
    """A message that an Event may hold; what was cut off is shown by an ellipsis."""
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
