"""CONTRACT: the Api protocol, the one seam between whoever wants objects and whoever serves them.

The server serves it in process from its verbs, ``http.py`` from any Kubernetes.  Controllers, the node
agent and the command line know only this.  Every method raises a subclass of ``objects.errors.ApiError``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object

PatchKind = Literal["json", "merge", "strategic", "apply"]
Propagation = Literal["Background", "Foreground", "Orphan"]


@dataclass(frozen=True, slots=True)
class Page:
    """A list answer: the items, the revision they were read at, and the token of the next page ('' at the end)."""

    items: list[Object]
    resource_version: str
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``type``: ADDED, MODIFIED, DELETED or BOOKMARK (then ``object`` has only metadata.resourceVersion)."""

    type: str
    object: Object


class Api(Protocol):
    """Objects in and out. ``namespace`` is '' for cluster-scoped resources and, in lists, for all namespaces.

    Returned objects belong to the caller, who may change them.
    """

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object: ...

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Page: ...

    async def create(
        self, resource: Resource, obj: Object, *, namespace: str = "", dry_run: bool = False
    ) -> Object: ...

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        """Replace; metadata.resourceVersion, when set, must match or Conflict is raised."""
        ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Any,
        *,
        kind: PatchKind = "merge",
        subresource: str = "",
    ) -> Object: ...

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
        """Mark for deletion (or remove, when nothing holds it). ``uid`` is a precondition."""
        ...

    async def subresource(
        self, resource: Resource, name: str, namespace: str, subresource: str, body: Mapping[str, Any]
    ) -> Object:
        """POST/PUT of an action subresource: binding, eviction, start, stop, restart, pause, unpause."""
        ...

    def watch(
        self, resource: Resource, namespace: str = "", *, resource_version: str, field_selector: str = ""
    ) -> AsyncIterator[WatchEvent]:
        """Events after ``resource_version``, with bookmarks, until the server ends it. Raises Expired (410)."""
        ...
