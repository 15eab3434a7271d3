"""What exists in a fresh plane before anybody asks: system namespaces and priority classes."""

from __future__ import annotations

from isoplane.http.request_options import Call
from isoplane.objects.errors import AlreadyExists
from isoplane.objects.kinds import NAMESPACES, PRIORITYCLASSES, Resource
from isoplane.objects.metadata import Object
from isoplane.server.verbs import Verbs

NAMESPACE_NAMES = ("default", "kube-system", "kube-public", "kube-node-lease")
_PRIORITIES = {
    "system-cluster-critical": (
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    "system-node-critical": (
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
}


def objects() -> list[tuple[Resource, Object]]:
    found: list[tuple[Resource, Object]] = [(NAMESPACES, {"metadata": {"name": name}}) for name in NAMESPACE_NAMES]
    for name, (value, description) in _PRIORITIES.items():
        found.append((PRIORITYCLASSES, {"metadata": {"name": name}, "value": value, "description": description}))
    return found


async def bootstrap(verbs: Verbs) -> None:
    """Make what is missing; what is there, in whatever state, is left alone."""
    for resource, obj in objects():
        if verbs.store.state.get(resource, "", obj["metadata"]["name"]) is None:
            try:
                await verbs.create(resource, "", obj, Call())
            except AlreadyExists:
                continue
