"""The live cluster as NetworkPolicy sees it: Workloads, namespaces and policies from the caches, as one policy snapshot.

The offline twin is ``policy.snapshot``.  A stored policy that cannot be read raises: leaving it out would open what it
isolates, so the engines keep their last good rules until somebody mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from isoplane.client.informer import Change, Informer, Informers
from isoplane.objects import metadata
from isoplane.objects.kinds import CLUSTERNETWORKPOLICIES, NAMESPACES, NETWORKPOLICIES, Resource
from isoplane.policy import model
from isoplane.policy.clusterpolicy import cluster_network_policy
from isoplane.policy.model import Cluster, Endpoint, NamedPort, Node
from isoplane.policy.parse import network_policy
from isoplane.workload.adapters import adapter_for, workload_resources
from isoplane.workload.shape import Attachment, Workload

T = TypeVar("T")

WATCHED: tuple[Resource, ...] = (NAMESPACES, NETWORKPOLICIES, CLUSTERNETWORKPOLICIES)


def endpoint_of(workload: Workload, address: str) -> Endpoint:
    """The endpoint that a workload is. ``address`` is what the fabric plugged in, known before the status tells it."""
    kind, _, _ = workload.id.partition("/")
    ip = address or workload.address
    return Endpoint(
        kind=kind,
        namespace=workload.namespace,
        name=workload.name,
        labels=workload.labels,
        ips=(ip,) if ip else (),
        ports=tuple(NamedPort(p.name, p.protocol, p.number) for p in workload.ports),
        host_network=workload.attachment is Attachment.HOST,
        node=workload.node,
        finished=workload.finished,
    )


class PolicyView:
    """Builds the snapshot; each object is read once a version."""

    def __init__(self, informers: Informers) -> None:
        self._workloads = [informers.of(resource) for resource in workload_resources()]
        self._namespaces = informers.of(NAMESPACES)
        self._policies = informers.of(NETWORKPOLICIES)
        self._cluster_policies = informers.of(CLUSTERNETWORKPOLICIES)
        self._read: dict[tuple[str, str], tuple[str, Any]] = {}

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` when something that policies look at changes: labels, addresses, ports, ends, policies."""
        for informer in (self._namespaces, self._policies, self._cluster_policies):
            informer.on_change(self._forgetting(informer, lambda old, new: changed()))
        for informer in self._workloads:
            self._watch_workloads(informer, changed)

    def _watch_workloads(self, informer: Informer, changed: Callable[[], None]) -> None:
        adapter = adapter_for(informer.resource)
        assert adapter is not None

        def seen(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            came_or_went = old is None or new is None
            if came_or_went or endpoint_of(adapter.project(old), "") != endpoint_of(adapter.project(new), ""):
                changed()

        informer.on_change(self._forgetting(informer, seen))

    def _forgetting(self, informer: Informer, then: Callable[[Any, Any], None]) -> Change:
        """A handler that drops what was read of an object that is gone."""

        def handler(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            if new is None:
                self._read.pop((informer.resource.qualified, key), None)
            then(old, new)

        return handler

    def workloads(self) -> Iterable[Workload]:
        """Every workload of the caches."""
        for informer in self._workloads:
            adapter = adapter_for(informer.resource)
            assert adapter is not None
            for obj in informer.items():
                yield self._once(informer, obj, adapter.project)

    def cluster(self, addresses: Mapping[str, str], nodes: Iterable[Node]) -> Cluster:
        """The snapshot now. ``addresses``: workload uid → address, for those plugged in on this node.

        Raises Invalid for a stored policy that cannot be read.
        """
        endpoints = [endpoint_of(w, addresses.get(w.uid, "")) for w in self.workloads()]
        namespaces = {metadata.name(obj): metadata.labels(obj) for obj in self._namespaces.items()}
        policies = [self._once(self._policies, obj, network_policy) for obj in self._policies.items()]
        wide = [
            self._once(self._cluster_policies, obj, cluster_network_policy) for obj in self._cluster_policies.items()
        ]
        return model.cluster(endpoints, namespaces, policies, wide, nodes)

    def _once(self, informer: Informer, obj: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T:
        where = (informer.resource.qualified, metadata.key(obj))
        version = f"{metadata.uid(obj)}@{obj['metadata'].get('resourceVersion')}"
        known = self._read.get(where)
        if known is not None and known[0] == version:
            found: T = known[1]
            return found
        value = read(obj)
        self._read[where] = (version, value)
        return value
