"""What is served: every kind, found by where it is served or by what its objects say they are.

A plane has one Scheme and hands it to whoever routes, publishes, stores, collects or counts kinds.  It can grow and shrink
while the plane runs (custom resources); whoever keeps something made of it listens, or compares :attr:`Scheme.generation`.
Belongs to one event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from isoplane.objects.resource import Resource
from isoplane.objects.resources import BUILT_IN

Listener = Callable[[Resource, bool], None]
"""(resource, whether it is served from now on)."""


class Scheme:
    """The served kinds, in the order of their groups (core first), versions and plurals."""

    def __init__(self, resources: Iterable[Resource] = BUILT_IN) -> None:
        self.generation = 0
        """Counts the changes."""
        self._by_place: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str], Resource] = {}
        self._sorted: tuple[Resource, ...] = ()
        self.groups: Mapping[str, Mapping[str, tuple[Resource, ...]]] = {}
        """Group → version → its resources."""
        self.actions: Mapping[tuple[str, str], tuple[Resource, ...]] = {}
        """(group, version) in which clients look for the actions of other groups' kinds → these kinds."""
        self._listeners: list[Listener] = []
        for resource in resources:
            self._enter(resource)
        self._sort()

    def __iter__(self) -> Iterator[Resource]:
        """A snapshot: the scheme may change while somebody goes through it."""
        return iter(self._sorted)

    def __contains__(self, resource: object) -> bool:
        return isinstance(resource, Resource) and self._by_place.get(_place(resource)) is resource

    def at(self, group: str, version: str, plural: str) -> Resource | None:
        """What is served at ``/apis/GROUP/VERSION/PLURAL``."""
        return self._by_place.get((group, version, plural))

    def kind(self, api_version: object, kind: object) -> Resource | None:
        """The resource of a kind, such as an owner reference names it."""
        return self._by_kind.get((str(api_version), str(kind)))

    def of(self, obj: Mapping[str, Any]) -> Resource:
        """The resource of an object by its apiVersion and kind. Raises LookupError with what was asked for."""
        version, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
        found = self.kind(version, kind)
        if found is None:
            raise LookupError(f'no matches for kind "{kind}" in version "{version}"')
        return found

    def stored(self) -> Iterator[Resource]:
        """What has objects in the store."""
        return (resource for resource in self._sorted if not resource.computed)

    def add(self, resource: Resource) -> None:
        """Serve a kind from now on, in place of what was served there before.

        Raises LookupError when it has no schema, ValueError when another resource of its group has its kind.
        """
        _ = resource.schema.root  # raises now rather than at the first request
        self._enter(resource)
        self._changed(resource, True)

    def remove(self, resource: Resource) -> None:
        """Serve a kind no longer. Its objects are not touched: whoever removes it has deleted them. Raises LookupError."""
        if resource not in self:
            raise LookupError(f"{resource.qualified}/{resource.version} is not served")
        del self._by_place[_place(resource)]
        del self._by_kind[resource.api_version, resource.kind]
        self._changed(resource, False)

    def follow(self, listener: Listener) -> Callable[[], None]:
        """Hear of every kind that is served, now and whenever one comes or goes; the answer ends that."""
        for resource in self:
            listener(resource, True)
        return self.on_change(listener)

    def on_change(self, listener: Listener) -> Callable[[], None]:
        """Hear of every kind that comes or goes from now on; the answer ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _enter(self, resource: Resource) -> None:
        named = self._by_kind.get((resource.api_version, resource.kind))
        if named is not None and named != resource:
            raise ValueError(f"{resource.kind} of {resource.api_version} is served as {named.plural} already")
        replaced = self._by_place.get(_place(resource))
        if replaced is not None:
            self._by_kind.pop((replaced.api_version, replaced.kind), None)
        self._by_place[_place(resource)] = resource
        self._by_kind[resource.api_version, resource.kind] = resource

    def _changed(self, resource: Resource, served: bool) -> None:
        self._sort()
        self.generation += 1
        for listener in tuple(self._listeners):
            listener(resource, served)

    def _sort(self) -> None:
        self._sorted = tuple(self._by_place[place] for place in sorted(self._by_place))
        groups: dict[str, dict[str, tuple[Resource, ...]]] = {}
        actions: dict[tuple[str, str], tuple[Resource, ...]] = {}
        for resource in self._sorted:
            versions = groups.setdefault(resource.group, {})
            versions[resource.version] = (*versions.get(resource.version, ()), resource)
            if resource.action_group:
                key = (resource.action_group, resource.version)
                actions[key] = (*actions.get(key, ()), resource)
        self.groups, self.actions = groups, actions


def _place(resource: Resource) -> tuple[str, str, str]:
    return (resource.group, resource.version, resource.plural)
