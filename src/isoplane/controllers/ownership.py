"""Who owns whom, and what that means for deletion: a graph of owner references and pure decisions on it.

Stands under :mod:`~isoplane.controllers.garbagecollector`, which feeds it what informers see and carries decisions out.  What
the graph does not know may exist all the same (informers are not ordered among each other), so a missing owner is a
question to the server, never an answer: :class:`Ask`.
Source of the rules: Kubernetes' garbage collector (attemptToDeleteItem, processDeletingDependentsItem, orphanDependents).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import BY_KIND, Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Reference:
    """One entry of metadata.ownerReferences. ``resource`` None: of a kind that is not served here."""

    uid: str
    name: str
    resource: Resource | None
    blocks: bool


@dataclass(frozen=True, slots=True)
class Item:
    """An object as the graph sees it."""

    uid: str
    resource: Resource
    namespace: str
    name: str
    owners: tuple[Reference, ...] = ()
    finalizers: frozenset[str] = frozenset()
    deleting: bool = False

    @property
    def foreground(self) -> bool:
        """Whether it goes only after its dependents."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphaning(self) -> bool:
        """Whether its dependents are to be set free before it goes."""
        return self.deleting and ORPHAN in self.finalizers

    def reaches(self, owner: Reference) -> bool:
        """Whether an owner of that kind can be looked up at all: served, and not namespaced above a cluster-scoped item."""
        return owner.resource is not None and (bool(self.namespace) or not owner.resource.namespaced)

    def owner_namespace(self, owner: Reference) -> str:
        return self.namespace if owner.resource is not None and owner.resource.namespaced else ""


def item_of(resource: Resource, obj: Mapping[str, Any]) -> Item:
    """The graph's view of an object."""
    meta = obj.get("metadata") or {}
    owners = tuple(
        Reference(
            str(o.get("uid") or ""),
            str(o.get("name") or ""),
            BY_KIND.get((str(o.get("apiVersion")), str(o.get("kind")))),
            bool(o.get("blockOwnerDeletion")),
        )
        for o in meta.get("ownerReferences") or ()
    )
    return Item(
        metadata.uid(obj),
        resource,
        metadata.namespace(obj),
        metadata.name(obj),
        owners,
        frozenset(meta.get("finalizers") or ()),
        metadata.is_deleting(obj),
    )


@dataclass(frozen=True, slots=True)
class Ask:
    """Whether these owners exist has to be asked of the server first."""

    owners: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Delete:
    """Nobody is left who wants the item. ``propagation`` as in DeleteOptions."""

    propagation: str


@dataclass(frozen=True, slots=True)
class Disown:
    """Drop these owners (uids) from the item: they are gone or going, and another one stays."""

    owners: frozenset[str]


@dataclass(frozen=True, slots=True)
class SetFree:
    """Drop the item from its dependents' owners, then let it go."""

    dependents: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class LetGo:
    """Its dependents are gone: take the foreground finalizer away."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look at these dependents first; the item is looked at again when one of them goes."""

    dependents: tuple[Item, ...]


Decision = Ask | Delete | Disown | SetFree | LetGo | Wait | None


@dataclass(slots=True)
class Graph:
    """Every object with an identity, and the edges between them."""

    items: dict[str, Item] = field(default_factory=dict)
    _dependents: dict[str, set[str]] = field(default_factory=dict)

    def put(self, item: Item) -> list[str]:
        """Add or replace an item. Returns the uids to look at because of it."""
        old = self.items.get(item.uid)
        self.items[item.uid] = item
        if old is None or old.owners != item.owners:
            self._unlink(old)
            for owner in item.owners:
                self._dependents.setdefault(owner.uid, set()).add(item.uid)
        look: list[str] = []
        changed = old is None or old.owners != item.owners
        if item.foreground or item.orphaning or (item.owners and changed):
            look.append(item.uid)
        if old is not None and changed:
            # An owner that waits for its dependents may have lost the last one.
            look += [o.uid for o in old.owners if (found := self.items.get(o.uid)) is not None and found.foreground]
        return look

    def drop(self, uid: str) -> list[str]:
        """Remove an item that left the store. Returns the uids to look at because of it."""
        item = self.items.pop(uid, None)
        if item is None:
            return []
        self._unlink(item)
        look = list(self._dependents.get(uid, ()))
        look += [o.uid for o in item.owners if (found := self.items.get(o.uid)) is not None and found.foreground]
        return look

    def _unlink(self, item: Item | None) -> None:
        for owner in item.owners if item is not None else ():
            uids = self._dependents.get(owner.uid)
            if uids is not None:
                uids.discard(item.uid if item is not None else "")
                if not uids:
                    del self._dependents[owner.uid]

    def dependents(self, uid: str) -> list[Item]:
        """What names ``uid`` as an owner, in the order of their names."""
        found = [self.items[one] for one in self._dependents.get(uid, ()) if one in self.items]
        return sorted(found, key=lambda item: (item.resource.qualified, item.namespace, item.name))

    def decide(self, uid: str, absent: Iterable[str] = (), present: Iterable[str] = ()) -> Decision:
        """What to do about one item. ``absent`` and ``present``: owners' uids that the server was asked about."""
        item = self.items.get(uid)
        if item is None:
            return None
        if item.orphaning:
            return SetFree(tuple(self.dependents(uid)))
        if item.foreground:
            blocking = [d for d in self.dependents(uid) if any(o.uid == uid and o.blocks for o in d.owners)]
            return Wait(tuple(blocking)) if blocking else LetGo()
        if item.deleting or not item.owners:
            return None
        return self._judge(item, frozenset(absent), frozenset(present))

    def _judge(self, item: Item, absent: frozenset[str], present: frozenset[str]) -> Decision:
        """Solid owners keep an item, dangling and waiting ones do not."""
        solid: list[Reference] = []
        dangling: list[Reference] = []
        waiting: list[Reference] = []
        unknown: list[Reference] = []
        for owner in item.owners:
            known = self.items.get(owner.uid)
            if known is not None and known.namespace != item.owner_namespace(owner):
                # The same uid elsewhere is not this owner; the server confirms it.
                known = None
            if known is not None and owner.uid not in absent:
                (waiting if known.foreground else solid).append(owner)
            elif not item.reaches(owner) or owner.uid in present:
                solid.append(owner)
            elif owner.uid in absent:
                dangling.append(owner)
            else:
                unknown.append(owner)
        if unknown:
            return Ask(tuple(unknown))
        if solid:
            lost = frozenset(o.uid for o in (*dangling, *waiting))
            return Disown(lost) if lost else None
        if waiting and self.dependents(item.uid):
            return Delete("Foreground")
        return Delete(self._own_propagation(item))

    @staticmethod
    def _own_propagation(item: Item) -> str:
        if ORPHAN in item.finalizers:
            return "Orphan"
        return "Foreground" if FOREGROUND in item.finalizers else "Background"
