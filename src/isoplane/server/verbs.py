"""The verbs of the Kubernetes API, whoever asks and over whatever transport.

Reads answer from the committed state; writes are one store transaction each.  Records come back as they are served:
bytes with an identity.  Representation (Table, metadata only) is the transport's, deciding is admission's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from isoplane.client.api import PatchKind
from isoplane.http import apierrors
from isoplane.http.items import Listing
from isoplane.http.request_options import Call, DeleteOptions, ListOptions
from isoplane.objects.errors import Expired, MethodNotAllowed, NotFound, UnsupportedMediaType
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.objects.patch import apply_json, apply_merge, apply_strategic
from isoplane.objects.scheme import Scheme
from isoplane.server import actions, ahead, deletion, launcher_writes, listing
from isoplane.server.admission import Chain
from isoplane.server.computed import Derived, Registry
from isoplane.server.deletion import Deleted
from isoplane.server.launcher import LAUNCHERS, launcher_pod, machine_of
from isoplane.server.strategy import Clock
from isoplane.server.watching import Direct, Step, watch_steps
from isoplane.server.workload_events import translated
from isoplane.server.writes import Writes
from isoplane.store import Record, Store, Transaction
from isoplane.store.mirror import Mirror

Records = list[Record]


class Verbs:
    """``clock`` gives POSIX seconds for stamps, ``monotonic`` seconds for time-outs; ``scheme`` None: the built-in kinds."""

    def __init__(
        self,
        store: Store,
        admission: Chain | None = None,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
        scheme: Scheme | None = None,
    ) -> None:
        self.store = store
        self.scheme = scheme or Scheme()
        self.admission = admission or Chain()
        self.computed = Registry(store)
        for resource in self.scheme:
            if resource.announced:
                self.computed.register(Derived(resource, (), lambda record: None))
        self._clock = clock
        self._monotonic = monotonic
        self.scheme.on_change(self._served)
        self._writes = Writes(self.admission, clock, self.scheme)

    def _served(self, resource: Resource, served: bool) -> None:
        if not served:
            self.store.end_watches(resource)

    # reads

    def get(self, resource: Resource, namespace: str, name: str, *, mirrored: bool = False) -> Record:
        """``mirrored``, here and below: with what is shown among the objects stored (launcher Pods). Raises NotFound."""
        if resource.computed:
            return self.computed.get(resource, namespace, name)
        record = self.store.state.get(resource, namespace, name)
        if record is None and mirrored:
            machine = machine_of(self.store.state, resource, namespace, name)
            record = None if machine is None else launcher_pod(machine)
        if record is None:
            raise apierrors.not_found(resource, name)
        return record

    def list(
        self, resource: Resource, namespace: str | None, options: ListOptions, *, mirrored: bool = False
    ) -> Listing[Record]:
        """``namespace`` None: all. Raises BadRequest, Invalid, Expired."""
        if resource.computed:
            return self.computed.list(resource, namespace, options)
        options = translated(resource, options)
        try:
            return listing.list_records(self.store, resource, namespace, options, _mirror(resource, mirrored))
        except Expired as error:
            raise (listing.expired_page(error) if options.continue_token else error) from error

    def watch(
        self,
        resource: Resource,
        namespace: str | None,
        options: ListOptions,
        direct: Direct | None = None,
        *,
        mirrored: bool = False,
    ) -> AsyncGenerator[Sequence[Step], None]:
        """Steps in commit groups until the watch's time is over. Raises BadRequest, Invalid, Expired at once."""
        if resource.computed:
            return self.computed.watch(resource, namespace, options, self._monotonic)
        options = translated(resource, options)
        mirror = _mirror(resource, mirrored)
        return watch_steps(self.store, resource, namespace, options, self._monotonic, direct, mirror)

    # writes

    async def create(self, resource: Resource, namespace: str, obj: Object, call: Call) -> Record:
        self._writable(resource)
        await ahead.look_at(self.admission, resource, obj, new=True)

        def evaluate(txn: Transaction) -> Record:
            return self._writes.create(txn, resource, namespace, obj, call)

        return await self.store.transact(evaluate, dry_run=call.dry_run)

    async def update(
        self, resource: Resource, namespace: str, name: str, obj: Object, call: Call, subresource: str = ""
    ) -> Record:
        """Replace the object or what the subresource (status, finalize) owns of it."""
        self._writable(resource)
        await ahead.look_at(self.admission, resource, obj)

        def evaluate(txn: Transaction) -> Record:
            return self._writes.update(txn, resource, namespace, name, obj, subresource, call)

        return await self.store.transact(evaluate, dry_run=call.dry_run)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        kind: PatchKind,
        call: Call,
        subresource: str = "",
    ) -> Record:
        self._writable(resource)
        if kind == "apply":
            return await self._apply(resource, namespace, name, patch, call, subresource)
        stored = self.store.state.get(resource, namespace, name)
        apply = await ahead.apply_to(self.admission, resource, stored, patch, _patcher(resource, patch, kind))

        def evaluate(txn: Transaction) -> Record:
            return self._writes.patch(txn, resource, namespace, name, apply, subresource, call)

        return await self.store.transact(evaluate, dry_run=call.dry_run)

    async def _apply(
        self, resource: Resource, namespace: str, name: str, config: Any, call: Call, subresource: str
    ) -> Record:
        def evaluate(txn: Transaction) -> Record:
            return self._writes.apply(txn, resource, namespace, name, config, subresource, call)

        return await self.store.transact(evaluate, dry_run=call.dry_run)

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions, call: Call
    ) -> Deleted:
        self._writable(resource)

        def evaluate(txn: Transaction) -> Deleted:
            return self._delete(txn, resource, namespace, name, options, call)

        return await self.store.transact(evaluate, dry_run=call.dry_run)

    def _delete(
        self, txn: Transaction, resource: Resource, namespace: str, name: str, options: DeleteOptions, call: Call
    ) -> Deleted:
        machine = machine_of(txn, resource, namespace, name)
        if machine is not None:
            return launcher_writes.delete(txn, self._writes, machine, name, options, call)
        return deletion.delete(txn, self._writes, resource, namespace, name, options, call)

    async def delete_collection(
        self, resource: Resource, namespace: str | None, select: ListOptions, options: DeleteOptions, call: Call
    ) -> Listing[Record]:
        """Delete what a list with these selectors shows, each object by itself; what vanished meanwhile is skipped."""
        self._writable(resource)
        found = self.list(resource, namespace, select, mirrored=True).records

        def evaluate(txn: Transaction) -> Listing[Record]:
            gone: Records = []
            for record in found:
                with suppress(NotFound):
                    gone.append(self._delete(txn, resource, record.namespace, record.name, options, call).record)
            return Listing(gone, txn.revision)

        return await self.store.transact(evaluate, dry_run=call.dry_run)

    async def act(
        self, resource: Resource, namespace: str, name: str, subresource: str, body: Mapping[str, Any], call: Call
    ) -> Record:
        """Run an action subresource (binding, eviction, start, stop, restart, pause, unpause)."""
        call.dry_run = call.dry_run or actions.dry_run(body)

        def evaluate(txn: Transaction) -> Record:
            return actions.run(txn, self._writes, resource, namespace, name, subresource, body, call, self._clock())

        done = await self.store.transact(evaluate, dry_run=call.dry_run)
        if call.denied is not None:
            raise call.denied
        return done

    def _writable(self, resource: Resource) -> None:
        if self.scheme.at(resource.group, resource.version, resource.plural) is None:
            raise NotFound("the server could not find the requested resource")
        if resource.announced:
            raise apierrors.not_served_yet(resource)
        if "create" not in resource.verbs:
            raise MethodNotAllowed(f"{resource.qualified} are computed; they cannot be written")


def _mirror(resource: Resource, mirrored: bool) -> Mirror | None:
    return LAUNCHERS if mirrored and resource is LAUNCHERS.resource else None


def _patcher(resource: Resource, patch: Any, kind: Literal["json", "merge", "strategic"]) -> Callable[[Object], Any]:
    """How a patch body of this kind is applied. Raises UnsupportedMediaType for what the resource does not take."""
    match kind:
        case "json":
            return lambda old: apply_json(old, patch)
        case "merge":
            return lambda old: apply_merge(old, patch)
        case "strategic" if not resource.custom:
            return lambda old: apply_strategic(resource, old, patch)
        case "strategic":
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json"
            )
