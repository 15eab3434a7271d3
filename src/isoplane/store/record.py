"""One stored object as the read model keeps it: bytes ready to serve, and just enough beside them to find it.

The parsed form is made on demand and belongs to whoever asked; nobody shares a mutable object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from sys import intern

import orjson

from isoplane.objects.errors import BadRequest
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.store.fields import values

ObjectKey = tuple[tuple[str, str], str, str]
"""((group, plural), namespace or '', name)."""

_NO_LABELS: Mapping[str, str] = {}


@dataclass(slots=True, eq=False)
class Record:
    """An object at one revision. ``data`` is its JSON, with ``metadata.resourceVersion`` equal to ``revision``.

    ``fields`` holds the selectable values in the order of ``Resource.selectable``; ``owners`` the owners' uids.
    """

    resource: Resource
    namespace: str
    name: str
    uid: str
    revision: int
    data: bytes
    labels: Mapping[str, str]
    fields: tuple[str, ...]
    owners: tuple[str, ...]
    deleting: bool

    @property
    def key(self) -> ObjectKey:
        return ((self.resource.group, self.resource.plural), self.namespace, self.name)

    def object(self) -> Object:
        """A fresh parsed copy that belongs to the caller."""
        parsed: Object = orjson.loads(self.data)
        return parsed


def describe(resource: Resource, obj: Object, data: bytes, revision: int) -> Record:
    """The record of ``obj``, whose JSON is ``data``."""
    meta = obj["metadata"]
    labels = meta.get("labels")
    owners = meta.get("ownerReferences")
    return Record(
        resource,
        intern(meta.get("namespace") or ""),
        meta["name"],
        meta.get("uid") or "",
        revision,
        data,
        labels or _NO_LABELS,
        values(resource, obj),
        tuple(o.get("uid", "") for o in owners) if owners else (),
        meta.get("deletionTimestamp") is not None,
    )


def encode(resource: Resource, obj: Object, revision: int) -> Record:
    """Stamp ``obj`` with ``revision`` and encode it. Raises BadRequest when a value has no JSON form."""
    obj["metadata"]["resourceVersion"] = str(revision)
    try:
        data = orjson.dumps(obj)
    except (TypeError, ValueError) as error:
        raise BadRequest(
            f"{resource.kind} {obj['metadata'].get('name')!r} cannot be written as JSON: {error}"
        ) from error
    # orjson leaves its growth buffer behind the bytes it returns (16 KiB behind 4); a copy has the exact size.
    return describe(resource, obj, bytes(memoryview(data)), revision)


def decode(resource: Resource, data: bytes, revision: int) -> Record:
    """The record of stored bytes. Raises ValueError or KeyError when they are not an object of ours."""
    obj = orjson.loads(data)
    return describe(resource, obj, data, revision)


def snapshot(resource: Resource, obj: Object, revision: int) -> Record:
    """A record that is not (or not yet) stored: a dry run's answer, a computed object, a last state."""
    return encode(resource, obj, revision)
