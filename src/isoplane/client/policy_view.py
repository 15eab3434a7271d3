"""The live cluster as NetworkPolicy sees it: workloads, namespaces and policies from the caches, as one policy snapshot.

The offline twin is ``policy.snapshot``; what makes an endpoint is said once for both, by the adapters.  A stored policy that
cannot be read raises: leaving it out would open what it isolates, so the engines
keep their last good rules until somebody mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from isoplane.client.informer import Informer, Informers
from isoplane.objects import metadata
from isoplane.objects.kinds import CLUSTERNETWORKPOLICIES, NAMESPACES, NETWORKPOLICIES
from isoplane.policy import model
from isoplane.policy.clusterpolicy import cluster_network_policy
from isoplane.policy.endpoints import endpoint_of
from isoplane.policy.model import Cluster, Node
from isoplane.policy.parse import network_policy
from isoplane.workload.networked import Networked
from isoplane.workload.registry import adapter_for, workload_resources


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
            if informer.derived(adapter.networked, old) != informer.derived(adapter.networked, new):
                changed()

        informer.on_change(seen)

    def _seen(self) -> Iterator[Networked]:
        """Every workload of the caches."""
        for informer in self._workloads:
            adapter = adapter_for(informer.resource)
            assert adapter is not None
            for obj in informer.items():
                yield informer.derived(adapter.networked, obj)

    def ids(self, known: Iterable[tuple[str, str, str]]) -> dict[str, str]:
        """uid → the endpoint's id, of those (namespace, name, uid) whose objects are in the caches."""
        found: dict[str, str] = {}
        for namespace, name, uid in known:
            for informer in self._workloads:
                adapter, obj = adapter_for(informer.resource), informer.by_key(f"{namespace}/{name}")
                if obj is not None and adapter is not None and metadata.uid(obj) == uid:
                    found[uid] = informer.derived(adapter.networked, obj).id
        return found

    def cluster(self, addresses: Mapping[str, tuple[str, ...]], nodes: Iterable[Node]) -> Cluster:
        """The snapshot now. ``addresses``: workload uid → its addresses, for those plugged in on this node.

        Raises Invalid for a stored policy that cannot be read.
        """
        endpoints = [endpoint_of(seen, addresses.get(seen.uid, ())) for seen in self._seen()]
        namespaces = {metadata.name(obj): metadata.labels(obj) for obj in self._namespaces.items()}
        policies = [self._policies.derived(network_policy, obj) for obj in self._policies.items()]
        wide = [self._cluster_policies.derived(cluster_network_policy, obj) for obj in self._cluster_policies.items()]
        return model.cluster(endpoints, namespaces, policies, wide, nodes)
