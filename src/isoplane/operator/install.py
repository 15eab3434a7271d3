"""Putting the operator's objects into a cluster, and taking them out: server-side apply and deletion by discovery.

What is installed is :mod:`manifests`' to say.  Nothing depends on the server's version: what is served is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

import orjson

from isoplane.client.http import HttpApi
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Conflict, NotFound
from isoplane.objects.kinds import PODS, Resource
from isoplane.objects.metadata import Object
from isoplane.operator.cluster import is_gated
from isoplane.workload.adapters import QUOTA_GATE

_log = logging.getLogger(__name__)
ESTABLISHED_SECONDS = 30.0
_CRDS = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
_NAMESPACE = ("v1", "Namespace")


class NotServed(LookupError):
    """A cluster does not serve a kind that is needed."""


class Discovery:
    """What a server serves, asked once for each group and version."""

    def __init__(self, api: HttpApi) -> None:
        self._api = api
        self._known: dict[str, dict[str, Resource]] = {}

    async def serves(self, api_version: str, kind: str) -> bool:
        return kind in await self._kinds(api_version)

    async def resource(self, obj: Object) -> Resource:
        """Raises NotServed."""
        version, kind = str(obj["apiVersion"]), str(obj["kind"])
        found = (await self._kinds(version)).get(kind)
        if found is None:
            self._known.pop(version, None)  # it may come yet
            raise NotServed(f"this cluster does not serve {kind} in {version}")
        return found

    async def _kinds(self, api_version: str) -> dict[str, Resource]:
        if api_version not in self._known:
            group, _, version = api_version.rpartition("/")
            try:
                listed = orjson.loads(await self._api.text(f"/apis/{api_version}" if group else f"/api/{version}"))
            except NotFound:
                return {}
            self._known[api_version] = {
                entry["kind"]: Resource(group, version, entry["name"], entry["kind"], entry["namespaced"])
                for entry in listed["resources"]
                if "/" not in entry["name"]
            }
        return self._known[api_version]


async def install(api: HttpApi, objects: Sequence[Object]) -> None:
    """Apply objects in their order; kinds that are defined are waited for. Raises NotServed, ApiError."""
    discovery = Discovery(api)
    await asyncio.gather(*(_apply(api, discovery, obj) for obj in objects if _is(obj, _CRDS)))
    await asyncio.gather(*(_established(api, discovery, obj) for obj in objects if _is(obj, _CRDS)))
    for obj in objects:
        if not _is(obj, _CRDS):
            await _apply(api, discovery, obj)


async def _apply(api: HttpApi, discovery: Discovery, obj: Object) -> None:
    resource = await discovery.resource(obj)
    await api.patch(resource, metadata.name(obj), metadata.namespace(obj), obj, kind="apply")


async def _established(api: HttpApi, discovery: Discovery, obj: Object) -> None:
    resource = await discovery.resource(obj)
    async with asyncio.timeout(ESTABLISHED_SECONDS):
        while True:
            found = await api.get(resource, metadata.name(obj))
            conditions = (found.get("status") or {}).get("conditions") or ()
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
            await asyncio.sleep(0.1)


async def uninstall(api: HttpApi, objects: Sequence[Object], namespaces: Iterable[str]) -> int:
    """Take the APIService and the policies away, let every waiting Pod go, then the rest. Returns how many were released.

    ``objects``: what was installed, in its order.  Definitions of kinds stay, with the limits that people wrote.
    """
    discovery = Discovery(api)
    first = ("apiregistration.k8s.io/", "admissionregistration.k8s.io/")
    policies = [obj for obj in objects if str(obj["apiVersion"]).startswith(first)]
    rest = [obj for obj in objects if obj not in policies and not _is(obj, _CRDS)]
    for obj in sorted(policies, key=lambda obj: first.index(f"{obj['apiVersion'].partition('/')[0]}/")):
        await _delete(api, discovery, obj)
    released = 0
    for namespace in namespaces:
        released += await release_all(api, namespace)
    for obj in reversed(rest):
        await _delete(api, discovery, obj)
    return released


async def release_all(api: HttpApi, namespace: str) -> int:
    """Take the quota gate off every Pod of a namespace. Returns of how many."""
    released = 0
    for pod in (await api.list(PODS, namespace)).items:
        if not is_gated(pod):
            continue
        body = {
            "metadata": {"uid": metadata.uid(pod)},
            "spec": {"schedulingGates": [{"name": QUOTA_GATE, "$patch": "delete"}]},
        }
        try:
            await api.patch(PODS, metadata.name(pod), namespace, body, kind="strategic")
            released += 1
        except (NotFound, Conflict) as error:
            _log.info("%s is not released: %s", metadata.key(pod), error)
    return released


async def _delete(api: HttpApi, discovery: Discovery, obj: Object) -> None:
    try:
        resource = await discovery.resource(obj)
        await api.delete(resource, metadata.name(obj), metadata.namespace(obj))
    except (NotFound, NotServed):
        pass
    except ApiError as error:
        _log.warning("%s %s stays: %s", obj["kind"], metadata.name(obj), error)


def _is(obj: Object, kind: tuple[str, str]) -> bool:
    return (obj["apiVersion"], obj["kind"]) == kind
