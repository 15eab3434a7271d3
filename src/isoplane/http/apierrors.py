"""The refusals that several verbs share, worded and detailed as Kubernetes words them."""

from __future__ import annotations

from typing import Any

from isoplane.objects.errors import AlreadyExists, BadRequest, Conflict, MethodNotAllowed, NotFound
from isoplane.objects.kinds import Resource


def details(resource: Resource, name: str) -> dict[str, Any]:
    """StatusDetails that name the resource (its plural, as errors about missing objects do)."""
    found: dict[str, Any] = {"name": name, "kind": resource.plural}
    if resource.group:
        found["group"] = resource.group
    return found


def not_found(resource: Resource, name: str) -> NotFound:
    return NotFound(f'{resource.qualified} "{name}" not found', details=details(resource, name))


def already_exists(resource: Resource, name: str) -> AlreadyExists:
    return AlreadyExists(f'{resource.qualified} "{name}" already exists', details=details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> Conflict:
    return Conflict(
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}', details=details(resource, name)
    )


def modified(resource: Resource, name: str) -> Conflict:
    return conflict(
        resource, name, "the object has been modified; please apply your changes to the latest version and try again"
    )


def wrong_kind(resource: Resource, api_version: object, kind: object) -> BadRequest:
    if kind and kind != resource.kind:
        return BadRequest(f'{kind} in version "{api_version}" cannot be handled as a {resource.kind}')
    return BadRequest(
        f"the API version in the data ({api_version}) does not match the expected API version ({resource.api_version})"
    )


def not_served_yet(resource: Resource) -> MethodNotAllowed:
    return MethodNotAllowed(f"{resource.qualified} are not served by isoplane yet: none can be written")
