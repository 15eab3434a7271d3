"""The Api protocol over HTTP, to any Kubernetes: our own server in another process, or a whole cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson

from isoplane.client import kubeconfig
from isoplane.client.api import Page, PatchKind, Propagation, WatchEvent
from isoplane.objects.errors import ApiError, Internal, Unavailable, from_status
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object

_PATCH_TYPES: dict[PatchKind, str] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_VIRTUAL_MACHINE_ACTIONS = frozenset(("start", "stop", "restart", "pause", "unpause"))
_REQUEST_SECONDS = 60.0
_SILENCE_SECONDS = 150.0
"""A watch sends a bookmark at least every minute; this long without a byte, the connection is dead."""
FIELD_MANAGER = "isoplane"


class HttpApi:
    """Implements :class:`isoplane.client.api.Api`. Close it, or use it as an async context manager.

    Network failures are raised as Unavailable, so that callers retry them like a server's own 503.
    """

    def __init__(self, cluster: kubeconfig.Cluster, *, impersonate: str = "", write_seconds: float = 0) -> None:
        """``impersonate``: the user to act as, where the cluster allows it. ``write_seconds``: after which the server gives
        up a write, whose answer may have been lost on the way; 0: its default."""
        self._deadline = {"timeout": f"{write_seconds:g}s"} if write_seconds else {}
        headers = {"Accept": "application/json", "User-Agent": "isoplane"}
        if impersonate:
            headers["Impersonate-User"] = impersonate
        if cluster.token:
            headers["Authorization"] = f"Bearer {cluster.token}"
        self._client = httpx.AsyncClient(
            base_url=cluster.server,
            headers=headers,
            verify=cluster.context if cluster.context is not None else True,
            timeout=httpx.Timeout(_REQUEST_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    @classmethod
    def from_kubeconfig(cls, path: Path | None = None, context: str = "") -> HttpApi:
        """Raises KubeconfigProblem or OSError."""
        return cls(kubeconfig.load(path or kubeconfig.default_path(), context))

    async def close(self) -> None:
        await self._client.aclose()

    async def __aenter__(self) -> HttpApi:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        return await self._call("GET", path(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Page:
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit) if limit else "",
            **{"continue": continue_token},
        )
        found = await self._call("GET", path(resource, namespace), query)
        meta = found.get("metadata") or {}
        items = found.get("items") or []
        for item in items:
            # Items of a list come without their type on a real cluster.
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return Page(items, str(meta.get("resourceVersion") or ""), str(meta.get("continue") or ""))

    async def create(self, resource: Resource, obj: Object, *, namespace: str = "", dry_run: bool = False) -> Object:
        where = namespace or str((obj.get("metadata") or {}).get("namespace") or "")
        query = _query(dryRun="All" if dry_run else "", fieldManager=FIELD_MANAGER)
        body = {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
        return await self._call("POST", path(resource, where), query, body)

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        meta = obj["metadata"]
        where = path(resource, str(meta.get("namespace") or ""), str(meta["name"]), subresource)
        body = {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
        return await self._call("PUT", where, _query(fieldManager=FIELD_MANAGER), body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Any,
        *,
        kind: PatchKind = "merge",
        subresource: str = "",
    ) -> Object:
        where = path(resource, namespace, name, subresource)
        query = _query(fieldManager=FIELD_MANAGER, force="true" if kind == "apply" else "")
        return await self._call("PATCH", where, query, patch, content_type=_PATCH_TYPES[kind])

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_seconds: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
    ) -> None:
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if given := {name: value for name, value in preconditions.items() if value is not None}:
            options["preconditions"] = given
        if propagation is not None:
            options["propagationPolicy"] = propagation
        await self._call("DELETE", path(resource, namespace, name), body=options)

    async def subresource(
        self, resource: Resource, name: str, namespace: str, subresource: str, body: Mapping[str, Any]
    ) -> Object:
        """The acted-on object afterwards: actions themselves answer with a mere Status."""
        if resource.group == "kubevirt.io" and subresource in _VIRTUAL_MACHINE_ACTIONS:
            where = path(resource, namespace, name, subresource).replace(
                "/kubevirt.io/", "/subresources.kubevirt.io/", 1
            )
            await self._call("PUT", where, body=dict(body))
        else:
            await self._call("POST", path(resource, namespace, name, subresource), body=dict(body))
        return await self.get(resource, name, namespace)

    async def watch(
        self, resource: Resource, namespace: str = "", *, resource_version: str, field_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        query = _query(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=resource_version,
            fieldSelector=field_selector,
        )
        timeout = httpx.Timeout(_REQUEST_SECONDS, read=_SILENCE_SECONDS)
        try:
            async with self._client.stream("GET", path(resource, namespace), params=query, timeout=timeout) as answer:
                if answer.status_code >= 400:
                    raise _error(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if not line:
                        continue
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise from_status(event["object"])
                    yield WatchEvent(event["type"], event["object"])
        except httpx.HTTPError as error:
            raise _network(error) from error
        except orjson.JSONDecodeError as error:
            raise Unavailable(f"the watch of {resource.qualified} was cut short: {error}") from error

    async def text(self, where: str) -> str:
        """What the server serves at a path that is no resource's, such as ``/metrics``. Raises ApiError."""
        return (await self._request("GET", where)).text

    async def _call(
        self,
        method: str,
        where: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        content = None if body is None else orjson.dumps(body)
        if content is not None and self._deadline:
            query = {**(query or {}), **self._deadline}
        headers = {} if content is None else {"Content-Type": content_type}
        answer = await self._request(method, where, params=query, content=content, headers=headers)
        if not answer.content:
            return {}
        found: Object = orjson.loads(answer.content)
        return found

    async def _request(self, method: str, where: str, **more: Any) -> httpx.Response:
        try:
            answer = await self._client.request(method, where, **more)
        except httpx.HTTPError as error:
            raise _network(error) from error
        if answer.status_code >= 400:
            raise _error(answer.status_code, answer.content)
        return answer


def path(resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The URL path of a collection, an object or a subresource."""
    parts = ["/apis", resource.group, resource.version] if resource.group else ["/api", resource.version]
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts += [part for part in (resource.plural, name, subresource) if part]
    return "/".join(parts)


def _query(**given: str) -> dict[str, str]:
    return {name: value for name, value in given.items() if value}


def _network(error: httpx.HTTPError) -> Unavailable:
    return Unavailable(f"the server cannot be reached: {error or type(error).__name__}")


def _error(code: int, body: bytes) -> ApiError:
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        return from_status(status)
    text = body[:200].decode("utf-8", "replace")
    return (
        from_status({"code": code, "message": f"the server answered {code}: {text}"}) if code != 500 else Internal(text)
    )
