"""Objects that are shown among those of one resource and made of another's: nobody stores or writes them.

A watcher that subscribes with a mirror gets both in the order of their commits; lists merge them in (``server.listing``).
Whoever reads without the mirror sees what is stored, and pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from isoplane.objects.kinds import Resource
from isoplane.store.fields import ResourceKey, resource_key
from isoplane.store.record import Record, encode
from isoplane.store.transaction import Change


@dataclass(frozen=True, slots=True, eq=False)
class Mirror:
    """``make`` gives the object of ``resource`` that is shown of a record of ``source``; None: none is."""

    resource: Resource
    source: Resource
    make: Callable[[Record], Record | None]
    source_name: Callable[[str], str]
    """The name of the object that the shown one of this name is made of; '' when it can be made of none."""
    indexed: Mapping[str, str] = field(default_factory=dict)
    """Indexed path of ``resource`` → the indexed path of ``source`` with the same value."""

    @property
    def key(self) -> ResourceKey:
        """What watchers of the shown objects are filed under: no resource has such a group."""
        return (f"shown of {self.source.qualified}", self.resource.plural)

    def change(self, change: Change) -> Change | None:
        """What a change of a source means for the object shown of it; None: nothing."""
        before = None if change.previous is None else self.make(change.previous)
        after = None if change.type == "DELETED" else self.make(change.record)
        if after is not None:
            return Change("ADDED" if before is None else "MODIFIED", change.revision, after, before)
        if before is None:
            return None
        last = encode(self.resource, before.object(), change.revision)
        return Change("DELETED", change.revision, last, before)

    def shows(self, key: ResourceKey) -> bool:
        """Whether objects of this resource are what it is made of."""
        return key == resource_key(self.source)
