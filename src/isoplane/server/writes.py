"""Create, replace and patch, evaluated inside one store transaction.

check type, name, namespace → unknown fields → defaults → mutate → validate → name free? → decide in transaction → put
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from isoplane.http import apierrors
from isoplane.http.request_options import Call
from isoplane.http.user import SYSTEM
from isoplane.objects.defaults import apply_defaults
from isoplane.objects.empties import settled
from isoplane.objects.errors import BadRequest, Cause, Forbidden
from isoplane.objects.kinds import NAMESPACES, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.patch import apply_config, record_update
from isoplane.objects.schema.validator import is_plain, misplaced_values, type_causes
from isoplane.objects.scheme import Scheme
from isoplane.objects.validation import invalid, validate, validate_update, without_unknown
from isoplane.server import launcher, objectmeta, strategy
from isoplane.server.admission import AdmissionRequest, Chain, Operation
from isoplane.store.record import Record, snapshot
from isoplane.store.transaction import Transaction

_NAME_ATTEMPTS = 8
_log = logging.getLogger(__name__)


class Writes:
    """The write half of the verbs; every method runs inside a transaction."""

    def __init__(self, chain: Chain, clock: strategy.Clock, scheme: Scheme) -> None:
        self._chain = chain
        self._scheme = scheme
        self._clock = clock

    def request(
        self,
        txn: Transaction,
        operation: Operation,
        resource: Resource,
        namespace: str,
        name: str,
        call: Call,
        *,
        obj: Object | None = None,
        old: Object | None = None,
        subresource: str = "",
        removes: bool = False,
    ) -> AdmissionRequest:
        return AdmissionRequest(
            operation, resource, subresource, namespace, name, obj, old, call.user, call.dry_run, self._clock(), txn,
            self._scheme, removes, call.warnings,
        )  # fmt: skip

    # create

    def create(
        self, txn: Transaction, resource: Resource, namespace: str, obj: Object, call: Call, *, applied: bool = False
    ) -> Record:
        """Raises BadRequest, Invalid, NotFound (namespace), Forbidden (terminating), AlreadyExists, and what admission
        raises."""
        objectmeta.prepare_new(resource, obj, namespace)
        obj = self._known(resource, obj, call)
        meta = obj["metadata"]
        prefix = "" if meta.get("name") else meta["generateName"]
        name = meta.get("name") or objectmeta.generated(prefix)
        meta["name"] = name
        strategy.prepare_create(resource, obj)
        apply_defaults(resource, obj)
        if not applied:
            record_update(resource, None, obj, manager=call.manager, now=objectmeta.second(self._clock()))
        request = self.request(txn, "CREATE", resource, namespace, name, call, obj=obj)
        self._chain.mutate(request)
        obj = _object(request)
        causes = validate(resource, obj)
        if causes:
            raise invalid(resource, name, causes)
        self._chain.validate(request)
        if resource.namespaced:
            self._check_namespace(txn, resource, namespace, name)
            launcher.check_new(txn, resource, namespace, name)
        attempts = _NAME_ATTEMPTS if prefix else 1
        while txn.get(resource, namespace, name) is not None:
            attempts -= 1
            if not attempts:
                raise apierrors.already_exists(resource, name)
            name = request.name = objectmeta.generated(prefix)
            obj["metadata"]["name"] = name
        objectmeta.stamp_new(obj["metadata"], request.now)
        self._chain.in_transaction(txn, request)
        return txn.put(resource, _object(request))

    def _known(self, resource: Resource, obj: Object, call: Call) -> Object:
        """The object with the fields that its kind has; others are dropped, and told or refused as the caller asked.

        Types first: whatever looks at the object from here on need not ask what it is looking at.  Raises BadRequest
        (unknown or repeated fields under Strict, a wrong type) or Invalid.
        """
        if is_plain(resource, obj) and not call.repeated:
            return obj
        if causes := misplaced_values(resource, obj):
            name = obj["metadata"].get("name")
            raise invalid(resource, name if isinstance(name, str) else "", causes)
        known, found = without_unknown(resource, obj)
        if found and call.user is SYSTEM:
            # Nobody reads the warnings of a controller's own write: what it loses is a fault of ours.
            _log.warning("%s %s: dropped: %s", resource.kind, obj["metadata"].get("name"), ", ".join(found))
        told = call.repeated + found
        if told and call.field_validation == "Strict":
            raise BadRequest(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                f"strict decoding error: {', '.join(told)}"
            )
        if call.field_validation == "Warn":
            call.warnings.extend(text for text in told if text not in call.warnings)
        result: Object = known
        return result

    def _check_namespace(self, txn: Transaction, resource: Resource, namespace: str, name: str) -> None:
        found = txn.get(NAMESPACES, "", namespace)
        if found is None:
            raise apierrors.not_found(NAMESPACES, namespace)
        if found.deleting:
            message = f"because namespace {namespace} is being terminated"
            raise Forbidden(
                f'{resource.qualified} "{name}" is forbidden: unable to create new content in namespace {namespace} '
                f"{message}",
                causes=[
                    Cause("metadata.namespace", f"namespace {namespace} is being terminated", "NamespaceTerminating")
                ],
                details=apierrors.details(resource, name),
            )

    # update

    def update(
        self, txn: Transaction, resource: Resource, namespace: str, name: str, obj: Object, subresource: str, call: Call
    ) -> Record:
        """Replace an object, or the part of it that ``subresource`` owns."""
        objectmeta.check_type(resource, obj)
        meta = objectmeta.metadata_of(obj)
        if not subresource or "namespace" in meta:
            objectmeta.place(resource, meta, namespace)
        given = meta.get("name")
        if given and given != name:
            raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")
        known = self._known(resource, obj, call)
        return self.change(txn, resource, namespace, name, subresource, call, lambda old: known)

    def patch(
        self,
        txn: Transaction,
        resource: Resource,
        namespace: str,
        name: str,
        apply: Callable[[Object], Any],
        subresource: str,
        call: Call,
        *,
        applied: bool = False,
    ) -> Record:
        """Read, apply, write, in one step: a patch never conflicts unless it names a resourceVersion.

        ``applied``: ``apply`` keeps the account of managed fields itself.
        """

        def patched(old: Object) -> Object:
            new = apply(without_unknown(resource, old)[0])
            if not isinstance(new, dict):
                raise BadRequest("the patch does not leave an object")
            objectmeta.metadata_of(new)
            if new["metadata"].get("name") != name:
                raise invalid(
                    resource, name, [Cause("metadata.name", "Invalid value: field is immutable", "FieldValueInvalid")]
                )
            if (new.get("kind"), new.get("apiVersion")) != (resource.kind, resource.api_version):
                raise apierrors.wrong_kind(resource, new.get("apiVersion"), new.get("kind"))
            return self._known(resource, new, call)

        return self.change(txn, resource, namespace, name, subresource, call, patched, applied=applied)

    def apply(
        self,
        txn: Transaction,
        resource: Resource,
        namespace: str,
        name: str,
        config: Any,
        subresource: str,
        call: Call,
    ) -> Record:
        """Server-side apply: make the object, or merge what the manager wants into it. Raises Conflict on others' fields."""
        now = objectmeta.second(self._clock())

        def merged(live: Object | None) -> Object:
            return apply_config(
                resource, live, config, manager=call.manager, force=call.force, now=now, subresource=subresource
            )

        if isinstance(config, dict):
            meta = objectmeta.metadata_of(config)
            if meta.setdefault("name", name) != name:
                raise BadRequest(f"metadata.name {meta['name']!r} of the configuration is not {name!r} on the URL")
            config = self._known(resource, config, call)
        if txn.get(resource, namespace, name) is None and not subresource:
            obj = merged(None)
            if (obj["metadata"].get("uid") or "") or (obj["metadata"].get("resourceVersion") or ""):
                raise apierrors.not_found(resource, name)
            call.created = True
            return self.create(txn, resource, namespace, obj, call, applied=True)
        return self.patch(txn, resource, namespace, name, merged, subresource, call, applied=True)

    def change(
        self,
        txn: Transaction,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str,
        call: Call,
        make: Callable[[Object], Object],
        *,
        applied: bool = False,
    ) -> Record:
        """Every update ends here. ``make`` gets the stored object, which it must not change, and returns the new one."""
        stored = txn.get(resource, namespace, name)
        if stored is None:
            raise launcher.absent(txn, resource, namespace, name)
        old = stored.object()
        new = make(old)
        objectmeta.check_preconditions(resource, new["metadata"], old)
        new = strategy.isolate(resource, old, new, subresource)
        objectmeta.carry_over(old, new)
        if subresource != "status":
            apply_defaults(resource, new)
        new = settled(resource, old, new)
        if not applied:
            # As in Kubernetes before admission: what that fills in belongs to nobody, and no apply takes it away.
            now = objectmeta.second(self._clock())
            record_update(resource, old, new, manager=call.manager, now=now, subresource=subresource)
        request = self.request(
            txn, "UPDATE", resource, namespace, name, call, obj=new, old=old, subresource=subresource
        )
        self._chain.mutate(request)
        new = _object(request)
        if new == old:
            return stored
        if subresource == "status" and resource.strategy.node is not None:
            # The node reports often, and with the stored spec, which was checked when it was written: types are enough.
            causes = type_causes(resource, new)
        else:
            causes = validate(resource, new)
        if not subresource:
            # An action (binding, start…) is the server's own way of changing what authors may not.
            causes = [*causes, *validate_update(resource, new, old)]
        if causes:
            raise invalid(resource, name, causes)
        _check_finalizers(resource, old, new)
        self._chain.validate(request)
        if strategy.changes_generation(resource, old, new):
            new["metadata"]["generation"] = int(old["metadata"].get("generation") or 0) + 1
        if released(resource, new):
            return self.remove(txn, stored, old, call, final=new)
        self._chain.in_transaction(txn, request)
        return txn.put(resource, _object(request))

    def admit(self, txn: Transaction, request: AdmissionRequest) -> None:
        """Ask admission about a write that changes no field of the author's (a deletion mark)."""
        self._chain.validate(request)
        self._chain.in_transaction(txn, request)

    def remove(
        self, txn: Transaction, stored: Record, old: Object, call: Call, *, final: Object | None = None
    ) -> Record:
        """Take an object out of the store for good; ``final`` is the state that released it, returned to the caller."""
        request = self.request(
            txn, "DELETE", stored.resource, stored.namespace, stored.name, call, old=old, removes=True
        )
        self.admit(txn, request)
        last = txn.delete(stored)
        return last if final is None else snapshot(stored.resource, final, last.revision)


def released(resource: Resource, obj: Object) -> bool:
    """Whether a deleted object has nothing left to wait for: no grace, no finalizer."""
    meta = obj["metadata"]
    return bool(
        meta.get("deletionTimestamp")
        and not meta.get("deletionGracePeriodSeconds")
        and not strategy.finalizers(resource, obj)
    )


def _check_finalizers(resource: Resource, old: Object, new: Object) -> None:
    if not old["metadata"].get("deletionTimestamp"):
        return
    before = set(old["metadata"].get("finalizers") or ())
    added = [f for f in new["metadata"].get("finalizers") or () if f not in before]
    if added:
        message = (
            f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added}"
        )
        raise invalid(resource, old["metadata"]["name"], [Cause("metadata.finalizers", message, "FieldValueForbidden")])


def _object(request: AdmissionRequest) -> Object:
    assert request.obj is not None
    return request.obj
