"""What every namespace has from the start: the service account ``default`` and the plane's CA certificate.

Pods name the one and mount the other; people meet both in every Kubernetes.  Deleted or changed, they come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from isoplane.client.api import Api
from isoplane.client.controller import Controller, Keys
from isoplane.client.informer import Informers
from isoplane.objects import metadata
from isoplane.objects.errors import AlreadyExists, Forbidden, NotFound
from isoplane.objects.kinds import CONFIGMAPS, NAMESPACES, SERVICEACCOUNTS, Resource
from isoplane.objects.metadata import Object

ACCOUNT = "default"
ROOT_CA = "kube-root-ca.crt"
_WHAT = "Contains a CA bundle that can be used to verify the isoplane API server"


def wanted(namespace: str, ca: str) -> list[tuple[Resource, Object]]:
    """What a namespace has to have. ``ca`` is PEM; '' leaves the certificate out. Pure."""
    found: list[tuple[Resource, Object]] = [
        (
            SERVICEACCOUNTS,
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": namespace}},
        )
    ]
    if ca:
        meta = {"name": ROOT_CA, "namespace": namespace, "annotations": {"kubernetes.io/description": _WHAT}}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": ca}}
        found.append((CONFIGMAPS, config))
    return found


class ServiceAccountController(Controller):
    """Keys are names of namespaces."""

    name = "serviceaccount"

    def __init__(self, api: Api, informers: Informers, *, ca: str = "") -> None:
        super().__init__(workers=2)
        self._api = api
        self._informers = informers
        self._ca = ca
        self._namespaces = self.watch(informers.of(NAMESPACES))
        self.watch(informers.of(SERVICEACCOUNTS), _namespace_of(ACCOUNT))
        if ca:
            self.watch(informers.of(CONFIGMAPS), _namespace_of(ROOT_CA))

    async def reconcile(self, key: str) -> float | None:
        namespace = self._namespaces.by_key(key)
        if namespace is None or metadata.is_deleting(namespace):
            return None
        for resource, obj in wanted(key, self._ca):
            await self._ensure(resource, key, obj)
        return None

    async def _ensure(self, resource: Resource, namespace: str, obj: Object) -> None:
        name = metadata.name(obj)
        present = self._informers.of(resource).get(namespace, name)
        try:
            if present is None:
                await self._api.create(resource, obj, namespace=namespace)
            elif "data" in obj and present.get("data") != obj["data"] and not metadata.is_deleting(present):
                # data is a map: what others put beside the certificate has to go by name.
                others = {extra: None for extra in present.get("data") or {} if extra not in obj["data"]}
                await self._api.patch(resource, name, namespace, {"data": {**others, **obj["data"]}}, kind="merge")
        except (AlreadyExists, NotFound):
            return
        except Forbidden:
            # The namespace began to end meanwhile.
            return


def _namespace_of(name: str) -> Keys:
    def keys(obj: Mapping[str, Any]) -> Iterable[str]:
        if metadata.name(obj) == name:
            yield metadata.namespace(obj)

    return keys
