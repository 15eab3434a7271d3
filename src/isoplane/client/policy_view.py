"""The live cluster as NetworkPolicy sees it: Workloads, namespaces and policies from the caches, as one policy snapshot.

The offline twin is ``policy.snapshot``.  A stored policy that cannot be read raises: leaving it out would open what it
isolates, so the engines keep their last good rules until somebody mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from isoplane.client.informer import Informer, Informers
from isoplane.objects import metadata
from isoplane.objects.kinds import CLUSTERNETWORKPOLICIES, NAMESPACES, NETWORKPOLICIES, Resource
from isoplane.policy import model
from isoplane.policy.clusterpolicy import cluster_network_policy
from isoplane.policy.model import Cluster, Endpoint, NamedPort, Node
from isoplane.policy.parse import network_policy
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.shape import Workload

WATCHED: tuple[Resource, ...] = (NAMESPACES, NETWORKPOLICIES, CLUSTERNETWORKPOLICIES)


def endpoint_of(workload: Workload, addresses: tuple[str, ...]) -> Endpoint:
    """The endpoint that a workload is. ``addresses`` are what the fabric plugged in, known before the status tells them."""
    kind, _, _ = workload.id.partition("/")
    return Endpoint(
        kind=kind,
        namespace=workload.namespace,
        name=workload.name,
        labels=workload.labels,
        ips=addresses or workload.addresses,
        ports=tuple(NamedPort(p.name, p.protocol, p.number) for p in workload.ports),
        exposed=workload.exposed,
        host_network=not workload.interface.own,
        node=workload.node,
        finished=workload.finished,
    )


class PolicyView:
    """Builds the snapshot from the caches."""

    def __init__(self, informers: Informers) -> None:
        self._workloads = [informers.of(resource) for resource in workload_resources()]
        self._namespaces = informers.of(NAMESPACES)
        self._policies = informers.of(NETWORKPOLICIES)
        self._cluster_policies = informers.of(CLUSTERNETWORKPOLICIES)

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` when something that policies look at changes: labels, addresses, ports, ends, policies."""
        for informer in (self._namespaces, self._policies, self._cluster_policies):
            informer.on_change(lambda key, old, new: changed())
        for informer in self._workloads:
            self._watch_workloads(informer, changed)

    def _watch_workloads(self, informer: Informer, changed: Callable[[], None]) -> None:
        adapter = adapter_for(informer.resource)
        assert adapter is not None

        def seen(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
            if old is None or new is None:
                changed()
                return
            before, after = informer.derived(adapter.project, old), informer.derived(adapter.project, new)
            if endpoint_of(before, ()) != endpoint_of(after, ()):
                changed()

        informer.on_change(seen)

    def workloads(self) -> Iterable[Workload]:
        """Every workload of the caches."""
        for informer in self._workloads:
            adapter = adapter_for(informer.resource)
            assert adapter is not None
            for obj in informer.items():
                yield informer.derived(adapter.project, obj)

    def ids(self, known: Iterable[tuple[str, str, str]]) -> dict[str, str]:
        """uid → the endpoint's id, of those (namespace, name, uid) whose objects are in the caches."""
        found: dict[str, str] = {}
        for namespace, name, uid in known:
            for informer in self._workloads:
                adapter, obj = adapter_for(informer.resource), informer.by_key(f"{namespace}/{name}")
                if obj is not None and adapter is not None and metadata.uid(obj) == uid:
                    found[uid] = informer.derived(adapter.project, obj).id
        return found

    def cluster(self, addresses: Mapping[str, tuple[str, ...]], nodes: Iterable[Node]) -> Cluster:
        """The snapshot now. ``addresses``: workload uid → its addresses, for those plugged in on this node.

        Raises Invalid for a stored policy that cannot be read.
        """
        endpoints = [endpoint_of(w, addresses.get(w.uid, ())) for w in self.workloads()]
        namespaces = {metadata.name(obj): metadata.labels(obj) for obj in self._namespaces.items()}
        policies = [self._policies.derived(network_policy, obj) for obj in self._policies.items()]
        wide = [self._cluster_policies.derived(cluster_network_policy, obj) for obj in self._cluster_policies.items()]
        return model.cluster(endpoints, namespaces, policies, wide, nodes)
