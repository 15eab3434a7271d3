"""The parts of metadata that belong to the server: names, uids, times, generations, and what a client may not touch."""

from __future__ import annotations

import os
import random
import uuid
from functools import lru_cache
from typing import Any

from isoplane.http import apierrors
from isoplane.objects.errors import BadRequest, Cause
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object, rfc3339
from isoplane.objects.validation import invalid

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no look-alikes, as Kubernetes' generated names."""
_SUFFIX = 5
_LONGEST_PREFIX = 63 - _SUFFIX
_SERVER_OWNED = (
    "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink",
)  # fmt: skip
_random = random.Random(os.urandom(32))
"""Seeded by the kernel once: names and uids must be unique, they are no secrets."""


def check_type(resource: Resource, obj: Object) -> None:
    """The body must be of the resource's kind; absent type fields are filled in. Raises BadRequest."""
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    if kind == resource.kind and api_version == resource.api_version:
        return
    if (kind and kind != resource.kind) or (api_version and api_version != resource.api_version):
        raise apierrors.wrong_kind(resource, api_version, kind)
    body = dict(obj)
    obj.clear()
    obj.update({"apiVersion": resource.api_version, "kind": resource.kind})
    body.pop("apiVersion", None)
    body.pop("kind", None)
    obj.update(body)


def metadata_of(obj: Object) -> dict[str, Any]:
    """metadata, made when absent. Raises BadRequest when it is not an object."""
    meta = obj.get("metadata")
    if meta is None:
        meta = obj["metadata"] = {}
    if not isinstance(meta, dict):
        raise BadRequest(f"metadata must be an object, not {type(meta).__name__}")
    return meta


def place(resource: Resource, meta: dict[str, Any], namespace: str) -> None:
    """Settle the namespace between the request and the body. Raises BadRequest when they disagree."""
    own = meta.get("namespace") or ""
    if resource.namespaced:
        if own and own != namespace:
            raise BadRequest(
                f"the namespace of the provided object does not match the namespace sent on the request: "
                f"{own!r} is not {namespace!r}"
            )
        meta["namespace"] = namespace
    else:
        meta.pop("namespace", None)


def prepare_new(resource: Resource, obj: Object, namespace: str) -> dict[str, Any]:
    """Check and clean the metadata of an object to be created, before anything looks at it. Raises BadRequest/Invalid."""
    check_type(resource, obj)
    meta = metadata_of(obj)
    place(resource, meta, namespace)
    if meta.get("resourceVersion"):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    meta.pop("resourceVersion", None)
    for owned in _SERVER_OWNED:
        meta.pop(owned, None)
    name, prefix = meta.get("name"), meta.get("generateName")
    if not name and not prefix:
        raise invalid(
            resource,
            "",
            [Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")],
        )
    for key, value in (("name", name), ("generateName", prefix)):
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"metadata.{key}: expected string, got {type(value).__name__}")
    return meta


def generated(prefix: str) -> str:
    return prefix[:_LONGEST_PREFIX] + "".join(_random.choice(_ALPHABET) for _ in range(_SUFFIX))


def second(now: float) -> str:
    """A metav1.Time, made once a second however many objects it stamps."""
    return _second(int(now))


@lru_cache(maxsize=4)
def _second(moment: int) -> str:
    return rfc3339(moment)


def stamp_new(meta: dict[str, Any], now: float) -> None:
    meta["uid"] = str(uuid.UUID(int=_random.getrandbits(128), version=4))
    meta["creationTimestamp"] = second(now)


def carry_over(old: Object, new: Object) -> None:
    """What an update cannot change comes from the stored object, whatever the client sent."""
    before, after = old["metadata"], new["metadata"]
    for owned in _SERVER_OWNED:
        if owned in before:
            after[owned] = before[owned]
        else:
            after.pop(owned, None)
    after["name"] = before["name"]
    if "namespace" in before:
        after["namespace"] = before["namespace"]
    after["resourceVersion"] = before["resourceVersion"]


def check_preconditions(resource: Resource, meta: dict[str, Any], old: Object) -> None:
    """A uid or resourceVersion in the body must be the stored one. Raises Conflict."""
    before = old["metadata"]
    uid, version = meta.get("uid"), meta.get("resourceVersion")
    if uid and uid != before.get("uid"):
        raise apierrors.conflict(
            resource,
            before["name"],
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {before.get('uid')}",
        )
    if version and version != before["resourceVersion"]:
        raise apierrors.modified(resource, before["name"])
