"""Who owns whom, and what that means for deletion: a graph of owner references and pure decisions on it.

Stands under :mod:`~isoplane.controllers.garbagecollector`, which feeds it what informers see and carries decisions out.  What
the graph does not know may exist all the same (informers are not ordered among each other), so a missing owner is a
question to the server, never an answer: :class:`Ask`.
Source of the rules: Kubernetes' garbage collector (attemptToDeleteItem, processDeletingDependentsItem, orphanDependents).
In one it goes further: objects that own each other in a circle and all wait for their dependents do not wait for each
other.  Upstream breaks a circle only when it comes to it from one side; here it does not matter who was deleted first, how, or
whether an object owns itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import Resource
from isoplane.objects.scheme import Scheme

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
DEPTH = 2000
"""How many owners above an item are followed in search of a circle. Longer chains of which every object waits for its
dependents are let go without their order."""


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

    def means(self, owner: Reference, known: Item) -> bool:
        """Whether the object of that uid is the one that is named: of that kind and name, and in a place where it may own."""
        return (owner.resource, owner.name, self.owner_namespace(owner)) == (
            known.resource,
            known.name,
            known.namespace,
        )

    def owner_namespace(self, owner: Reference) -> str:
        return self.namespace if owner.resource is not None and owner.resource.namespaced else ""


def item_of(scheme: Scheme, resource: Resource, obj: Mapping[str, Any]) -> Item:
    """The graph's view of an object."""
    meta = obj.get("metadata") or {}
    owners = tuple(
        Reference(
            str(o.get("uid") or ""),
            str(o.get("name") or ""),
            scheme.kind(o.get("apiVersion"), o.get("kind")),
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
    """Its dependents go first; the item is looked at again when one of them is gone."""


Decision = Ask | Delete | Disown | SetFree | LetGo | Wait | None


@dataclass(slots=True)
class Graph:
    """Every object with an identity, and the edges between them."""

    items: dict[str, Item] = field(default_factory=dict)
    _dependents: dict[str, set[str]] = field(default_factory=dict)
    _blocking: dict[str, set[str]] = field(default_factory=dict)
    """Owner → those of its dependents that it has to wait for when it is deleted in the foreground."""

    def put(self, item: Item) -> list[str]:
        """Add or replace an item. Returns the uids to look at because of it."""
        old = self.items.get(item.uid)
        self.items[item.uid] = item
        if old is None or old.owners != item.owners:
            self._unlink(old)
            for owner in item.owners:
                self._dependents.setdefault(owner.uid, set()).add(item.uid)
                if owner.blocks:
                    self._blocking.setdefault(owner.uid, set()).add(item.uid)
        look: list[str] = []
        if item.foreground and not (old is not None and old.foreground):
            # From now on its dependents have an owner that waits for them to go; later ones are looked at as they come.
            look += self._dependents.get(item.uid, ())
            # And whoever waits for it may be in a circle with it.
            look += self._waiting_owners(item)
        changed = old is None or old.owners != item.owners
        if item.foreground or item.orphaning or (item.owners and changed):
            look.append(item.uid)
        if old is not None and changed:
            # An owner that waits for its dependents may have lost the last one.
            look += self._waiting_owners(old)
        return look

    def drop(self, uid: str) -> list[str]:
        """Remove an item that left the store. Returns the uids to look at because of it."""
        item = self.items.pop(uid, None)
        if item is None:
            return []
        self._unlink(item)
        look = list(self._dependents.get(uid, ()))
        look += self._waiting_owners(item)
        return look

    def _waiting_owners(self, item: Item) -> list[str]:
        """The owners of an item that are deleted in the foreground."""
        return [o.uid for o in item.owners if (found := self.items.get(o.uid)) is not None and found.foreground]

    def _unlink(self, item: Item | None) -> None:
        if item is None:
            return
        for owner in item.owners:
            for edges in (self._dependents, self._blocking):
                uids = edges.get(owner.uid)
                if uids is not None:
                    uids.discard(item.uid)
                    if not uids:
                        del edges[owner.uid]

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
            return Wait() if self._waits(item) else LetGo()
        if item.deleting or not item.owners:
            return None
        return self._judge(item, frozenset(absent), frozenset(present))

    def _waits(self, item: Item) -> bool:
        """Whether a dependent has to go before the item: one that blocks it and does not itself wait for the item."""
        blocking: set[str] = set()
        for uid in self._blocking.get(item.uid, ()):
            dependent = self.items.get(uid)
            # A reference that only has the uid right holds nobody up: it could be in anybody's namespace.
            if dependent is None or not any(o.uid == item.uid and dependent.means(o, item) for o in dependent.owners):
                continue
            if not dependent.foreground and uid != item.uid:
                return True
            blocking.add(uid)
        if not blocking:
            return False
        above = self._above(item)
        return above is not None and not blocking <= above

    def _above(self, item: Item) -> frozenset[str] | None:
        """The item and whoever waits for it to go, directly or not; None when there are more than are followed."""
        found = {item.uid}
        todo = [item]
        while todo:
            for owner in todo.pop().owners:
                known = self.items.get(owner.uid)
                if known is None or not owner.blocks or not known.foreground or known.uid in found:
                    continue
                found.add(known.uid)
                if len(found) > DEPTH:
                    return None
                todo.append(known)
        return frozenset(found)

    def _judge(self, item: Item, absent: frozenset[str], present: frozenset[str]) -> Decision:
        """Solid owners keep an item, dangling and waiting ones do not."""
        solid: list[Reference] = []
        dangling: list[Reference] = []
        waiting: list[Reference] = []
        unknown: list[Reference] = []
        for owner in item.owners:
            known = self.items.get(owner.uid)
            if known is not None and not item.means(owner, known):
                # The same uid elsewhere is not this owner; the server confirms it.
                known = None
            if known is not None:
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
            lost = frozenset(o.uid for o in (*dangling, *waiting)) - {o.uid for o in solid}
            return Disown(lost) if lost else None
        if waiting and self._dependents.get(item.uid):
            return Delete("Foreground")
        return Delete(self._own_propagation(item))

    @staticmethod
    def _own_propagation(item: Item) -> str:
        if ORPHAN in item.finalizers:
            return "Orphan"
        return "Foreground" if FOREGROUND in item.finalizers else "Background"
