"""CONTRACT: admission: what may look at a write, change it, refuse it, or decide it together with the store.

    mutate(request)                 fill in what the author left open (priority, tolerations)
    validate(request)               refuse what must not be; changes nothing
    in_transaction(txn, request)    decide together with other state, in the very transaction of the write: rewrite the
                                    object, keep a ledger (``txn.put_row``), mark other objects, write Events

All hooks are synchronous and run on the event loop inside the evaluation of one store transaction, in list order; what
they read is consistent with what is written.  They refuse by raising an ``objects.errors.ApiError``; then nothing at
all is written.  In a dry run everything runs the same and the transaction is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from isoplane.http.user import User
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.objects.reader import ObjectReader
from isoplane.objects.scheme import Scheme
from isoplane.store.transaction import Transaction

Operation = Literal["CREATE", "UPDATE", "DELETE"]


@dataclass(slots=True)
class AdmissionRequest:
    """One write on its way in.

    CREATE: ``obj`` is the new object, complete with uid and creationTimestamp from ``in_transaction`` on.
    UPDATE: ``obj`` is the new object (after patch and defaults), ``old`` the stored one; also for subresources, named
    in ``subresource`` ('' for the object itself, 'status', 'binding', …).
    DELETE: ``obj`` is None, ``old`` the stored object. It is called twice in the life of a gracefully deleted object:
    when it is marked (``removes`` False) and when it leaves the store (``removes`` True). An UPDATE that takes the last
    finalizer away also ends in a DELETE with ``removes``.

    Hooks may change ``obj`` in place or replace it; ``old`` is not to be changed.
    """

    operation: Operation
    resource: Resource
    subresource: str
    namespace: str
    name: str
    obj: Object | None
    old: Object | None
    user: User
    dry_run: bool
    now: float
    """POSIX seconds."""
    view: ObjectReader
    """Reads for ``mutate`` and ``validate``: the transaction's own view."""
    scheme: Scheme
    """What is served."""
    removes: bool = False
    warnings: list[str] = field(default_factory=list)


class AdmissionPlugin(Protocol):
    """One plug-in. ``handles`` is asked once per (resource, operation, subresource) and its answer is kept."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool: ...

    def mutate(self, request: AdmissionRequest) -> None: ...

    def validate(self, request: AdmissionRequest) -> None: ...

    def in_transaction(self, txn: Transaction, request: AdmissionRequest) -> Iterable[str]:
        """Decide and write along. Returns warnings for the client."""
        ...

    def ahead(self, resource: Resource, obj: Object) -> None:
        """Find out about a large object, whose types are right, what needs nothing else. Runs beside the event loop."""
        ...


class Plugin:
    """A convenient base: handles everything and does nothing."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return True

    def mutate(self, request: AdmissionRequest) -> None: ...

    def validate(self, request: AdmissionRequest) -> None: ...

    def in_transaction(self, txn: Transaction, request: AdmissionRequest) -> Iterable[str]:
        return ()

    def ahead(self, resource: Resource, obj: Object) -> None: ...


class Chain:
    """The plug-ins in their order, with those that a kind of request concerns picked once."""

    def __init__(self, plugins: Sequence[AdmissionPlugin] = ()) -> None:
        self._plugins = list(plugins)
        self._picked: dict[tuple[str, str, str, str], tuple[AdmissionPlugin, ...]] = {}

    def add(self, plugin: AdmissionPlugin) -> None:
        """Append a plug-in; do it before requests are served."""
        self._plugins.append(plugin)
        self._picked.clear()

    def _for(self, request: AdmissionRequest) -> tuple[AdmissionPlugin, ...]:
        resource = request.resource
        key = (resource.group, resource.plural, request.operation, request.subresource)
        picked = self._picked.get(key)
        if picked is None:
            picked = tuple(p for p in self._plugins if p.handles(resource, request.operation, request.subresource))
            self._picked[key] = picked
        return picked

    def mutate(self, request: AdmissionRequest) -> None:
        for plugin in self._for(request):
            plugin.mutate(request)

    def validate(self, request: AdmissionRequest) -> None:
        for plugin in self._for(request):
            plugin.validate(request)

    def in_transaction(self, txn: Transaction, request: AdmissionRequest) -> None:
        for plugin in self._for(request):
            request.warnings.extend(plugin.in_transaction(txn, request))

    def ahead(self, resource: Resource, obj: Object) -> None:
        for plugin in self._plugins:
            plugin.ahead(resource, obj)
