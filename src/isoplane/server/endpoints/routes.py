"""From a path to what it names: a resource, a namespace, a name, a subresource."""

from __future__ import annotations

from dataclasses import dataclass

from isoplane.objects.kinds import BY_PLURAL, NAMESPACES, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.server import actions

KUBEVIRT_ACTIONS = "subresources.kubevirt.io"
"""KubeVirt serves the actions of its kinds in a group of their own; virtctl and its clients ask there."""
ACTION_GROUPS: dict[tuple[str, str], tuple[Resource, ...]] = {
    (KUBEVIRT_ACTIONS, "v1"): (VIRTUALMACHINES, VIRTUALMACHINEINSTANCES),
}


@dataclass(frozen=True, slots=True)
class Route:
    """``namespace`` None: the cluster or all namespaces. ``name`` '': the collection."""

    resource: Resource
    namespace: str | None = None
    name: str = ""
    subresource: str = ""


def resolve(group: str, version: str, parts: list[str]) -> Route | None:
    """The route of the path below ``/api/v1`` or ``/apis/GROUP/VERSION``; None when nothing is served there."""
    if (group, version) in ACTION_GROUPS:
        return _action(group, version, parts)
    namespace: str | None = None
    if len(parts) >= 3 and parts[0] == "namespaces" and not (_is_core_namespace(group, parts)):
        namespace = parts[1]
        parts = parts[2:]
    resource = BY_PLURAL.get((group, version, parts[0]))
    if resource is None or len(parts) > 3 or "" in parts or namespace == "":
        return None
    if namespace is not None and not resource.namespaced:
        return None
    name = parts[1] if len(parts) > 1 else ""
    if name and resource.namespaced and namespace is None:
        return None
    subresource = parts[2] if len(parts) > 2 else ""
    if subresource and subresource not in resource.subresources:
        return None
    return Route(resource, namespace, name, subresource)


def _is_core_namespace(group: str, parts: list[str]) -> bool:
    """``/api/v1/namespaces/NAME/status`` names the namespace's subresource, not a resource called status."""
    return group == "" and len(parts) == 3 and parts[2] in NAMESPACES.subresources


def _action(group: str, version: str, parts: list[str]) -> Route | None:
    if len(parts) != 5 or parts[0] != "namespaces" or "" in parts:
        return None
    _, namespace, plural, name, subresource = parts
    for resource in ACTION_GROUPS[(group, version)]:
        if resource.plural == plural and (actions.exists(resource, subresource) or subresource == "log"):
            return Route(resource, namespace, name, subresource)
    return None
