"""Who calls and how: what every verb needs to know beside the object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isoplane.http.user import SYSTEM, User
from isoplane.objects.errors import ApiError, BadRequest

FIELD_VALIDATION = ("Strict", "Warn", "Ignore")


@dataclass(slots=True)
class Call:
    """One call. ``warnings`` collects what the client should read although the call succeeds.

    ``manager`` names who owns the fields that the call writes; ``force`` lets an apply take fields from others.
    ``created`` is set when a patch (an apply) had to make the object.
    """

    user: User = SYSTEM
    dry_run: bool = False
    field_validation: str = "Ignore"
    manager: str = "isoplane"
    force: bool = False
    created: bool = False
    warnings: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    """Fields that the body gives twice, as the decoder found them."""
    denied: ApiError | None = None
    """What the client is answered although something was written: an eviction that only marks its machine."""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """metav1.DeleteOptions. ``grace_seconds`` None: the object's own; ``propagation`` None: Background."""

    grace_seconds: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    propagation: str | None = None

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> DeleteOptions:
        """From a DeleteOptions body (query parameters merged into it). Raises BadRequest."""
        check_shape(body)
        grace = body.get("gracePeriodSeconds")
        if grace is not None and (isinstance(grace, bool) or not isinstance(grace, int) or grace < 0):
            raise BadRequest(f"gracePeriodSeconds: {grace!r} is not a number of seconds")
        preconditions = body.get("preconditions") or {}
        propagation = body.get("propagationPolicy")
        orphan = body.get("orphanDependents")
        if orphan is not None:
            if propagation is not None:
                raise BadRequest("orphanDependents and propagationPolicy may not both be set")
            propagation = "Orphan" if orphan else "Background"
        if propagation not in (None, "Background", "Foreground", "Orphan"):
            raise BadRequest(f"propagationPolicy: {propagation!r} is not one of Background, Foreground, Orphan")
        return cls(grace, preconditions.get("uid"), preconditions.get("resourceVersion"), propagation)


_OBJECTS = ("metadata", "deleteOptions", "preconditions", "target")


def check_shape(body: Mapping[str, Any]) -> None:
    """The members of an action's or a deletion's body that are read on: objects, and dryRun a list. Raises BadRequest."""
    for name in _OBJECTS:
        if body.get(name) is not None and not isinstance(body[name], Mapping):
            raise BadRequest(f"{name}: must be an object")
    trial = body.get("dryRun")
    if trial is not None and (not isinstance(trial, list) or any(stage != "All" for stage in trial)):
        raise BadRequest(f"dryRun: {trial!r} is not supported; the only value is [All]")
    if body.get("deleteOptions"):
        check_shape(body["deleteOptions"])


@dataclass(frozen=True, slots=True)
class ListOptions:
    """metav1.ListOptions of a list or a watch."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    timeout_seconds: float | None = None
    bookmarks: bool = False
    send_initial_events: bool | None = None
    pace: float = 0.0
    """Seconds within which changes of a watch are handed out together; for watchers across a socket."""
