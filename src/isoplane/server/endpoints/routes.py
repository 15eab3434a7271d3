"""From what a request is about to the resource that is meant, as far as it is served."""

from __future__ import annotations

from collections.abc import Sequence

from isoplane.http.request_info import RequestInfo
from isoplane.objects.kinds import NAMESPACES, Resource
from isoplane.objects.scheme import Scheme
from isoplane.server import actions


def resource_of(scheme: Scheme, info: RequestInfo) -> Resource | None:
    """The resource; None when nothing is served there."""
    if info.rest:
        return None
    if (members := scheme.actions.get((info.group, info.version))) is not None:
        return _with_action(members, info)
    resource = scheme.at(info.group, info.version, info.resource)
    if resource is None or (info.subresource and info.subresource not in resource.subresources):
        return None
    if resource.namespaced:
        return None if info.subresource and not info.namespace else resource
    return None if info.namespace and resource is not NAMESPACES else resource


def _with_action(members: Sequence[Resource], info: RequestInfo) -> Resource | None:
    if not info.namespace or not info.subresource:
        return None
    for resource in members:
        if resource.plural == info.resource and (
            actions.exists(resource, info.subresource) or info.subresource == "log"
        ):
            return resource
    return None
