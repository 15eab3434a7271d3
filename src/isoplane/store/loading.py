"""From the file to the read model, when the store opens: replay the kept log in order."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from isoplane.objects.resource import Resource
from isoplane.store.database import Database
from isoplane.store.history import History, Retention
from isoplane.store.record import decode, encode
from isoplane.store.state import Row, State
from isoplane.store.transaction import Change

_log = logging.getLogger(__name__)


def load(database: Database, retention: Retention, served: Iterable[Resource]) -> tuple[State, History]:
    """The committed state and the history that watches resume from. Raises StoreCorrupt on rows it cannot read.

    Rows of what is not ``served`` stay in the file.
    """
    facts = database.facts()
    state = State()
    history = History(int(facts.get("compacted", "0")), retention)
    resources = {resource.qualified: resource for resource in served}
    unknown: dict[str, int] = {}
    for revision, name_of_resource, namespace, name, data in database.log():
        resource = resources.get(name_of_resource)
        state.revision = revision
        if resource is None:
            unknown[name_of_resource] = unknown.get(name_of_resource, 0) + 1
            continue
        previous = state.get(resource, namespace, name)
        try:
            if data is None:
                last = previous or decode(resource, _tombstone(namespace, name), revision)
                record = encode(resource, last.object(), revision)
                change = Change("DELETED", revision, record, previous)
                if previous is not None:
                    state.remove(previous)
            else:
                record = decode(resource, database.keys.unseal(name_of_resource, namespace, name, data), revision)
                change = Change("ADDED" if previous is None else "MODIFIED", revision, record, previous)
                state.put(record, previous)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise database.unreadable(revision, repr(error)) from error
        history.append(change)
    state.revision = max(state.revision, int(facts.get("revision", "0")))
    for place, table, key, data in database.side_rows():
        row = Row(data)
        row.place = place
        state.put_row(table, key, row)
        state.places = max(state.places, place)
    for kind, count in unknown.items():
        _log.warning("store: kept %d revisions of %s, which this version does not serve", count, kind)
    history.settle()
    return state, history


def _tombstone(namespace: str, name: str) -> bytes:
    """Stands for an object whose last state is compacted while its deletion is not; nobody can watch it any more."""
    return b'{"metadata":{"namespace":"%s","name":"%s"}}' % (namespace.encode(), name.encode())
