"""From what a request is about to the resource that is meant, as far as it is served."""

from __future__ import annotations

from isoplane.http.request_info import RequestInfo
from isoplane.objects.kinds import BY_PLURAL, NAMESPACES, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.server import actions

KUBEVIRT_ACTIONS = "subresources.kubevirt.io"
"""KubeVirt serves the actions of its kinds in a group of their own; virtctl and its clients ask there."""
ACTION_GROUPS: dict[tuple[str, str], tuple[Resource, ...]] = {
    (KUBEVIRT_ACTIONS, "v1"): (VIRTUALMACHINES, VIRTUALMACHINEINSTANCES),
}


def resource_of(info: RequestInfo) -> Resource | None:
    """The resource; None when nothing is served there."""
    if info.rest:
        return None
    if (info.group, info.version) in ACTION_GROUPS:
        return _with_action(info)
    resource = BY_PLURAL.get((info.group, info.version, info.resource))
    if resource is None or (info.subresource and info.subresource not in resource.subresources):
        return None
    if resource.namespaced:
        return None if info.subresource and not info.namespace else resource
    return None if info.namespace and resource is not NAMESPACES else resource


def _with_action(info: RequestInfo) -> Resource | None:
    if not info.namespace or not info.subresource:
        return None
    for resource in ACTION_GROUPS[(info.group, info.version)]:
        if resource.plural == info.resource and (
            actions.exists(resource, info.subresource) or info.subresource == "log"
        ):
            return resource
    return None
