"""What one transaction tells: the status of its quotas, Events, the trail, refusals; and whose object a charge stands for."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from isoplane.http import apierrors
from isoplane.objects import metadata
from isoplane.objects.errors import QuotaExceeded
from isoplane.objects.event import event_of
from isoplane.objects.kinds import EVENTS
from isoplane.objects.metadata import Object
from isoplane.objects.quantity import render
from isoplane.quota.audit import Entry
from isoplane.quota.effects import SetUsage
from isoplane.quota.model import Charge
from isoplane.quota.read import quota_object
from isoplane.server.admission import AdmissionRequest
from isoplane.server.quota_admission.accounts import Lines, RowAccounts, kind_names
from isoplane.store.transaction import Transaction
from isoplane.workload.adapters import Adapter
from isoplane.workload.registry import adapter_for

_log = logging.getLogger(__name__)
COMPONENT = "isoplane-quota"


@contextlib.contextmanager
def harmless(what: str) -> Iterator[None]:
    """What only tells, or serves others than the writer, fails no write: a fault is logged whole, and the write goes on."""
    try:
        yield
    except Exception:
        _log.exception("quota: a fault in %s was left behind; the write goes on", what)


class Telling:
    """The half of a Session that only writes down what the other half did."""

    def __init__(self, txn: Transaction, request: AdmissionRequest, lines: Lines) -> None:
        self.txn = txn
        self.request = request
        self.now = request.now
        self.accounts = RowAccounts(txn, lines, dry_run=request.dry_run)
        self.audit: list[Entry] = []
        self._lines = lines

    def refused(self, why: str) -> QuotaExceeded:
        """The refusal of this request, as Kubernetes words it."""
        resource, name = self.request.resource, self.request.name
        return QuotaExceeded(
            f'{resource.qualified} "{name}" is forbidden: {why}', details=apierrors.details(resource, name)
        )

    def set_usage(self, effect: SetUsage) -> None:
        """Write a quota's status. Another namespace's that fails fails not this write, and is tried again with the next one."""
        key, untold = (effect.tenant, effect.quota), self._lines.untold
        if effect.tenant == self.request.namespace:
            self._write_usage(effect)
        elif not self._written(effect):
            untold.add(key)
            return
        if key in untold:
            self.txn.on_commit(partial(untold.discard, key))

    def _written(self, effect: SetUsage) -> bool:
        with harmless(f"the status of quota {effect.tenant}/{effect.quota}"):
            self._write_usage(effect)
            return True
        return False

    def _write_usage(self, effect: SetUsage) -> None:
        tenant, quota, request = effect.tenant, effect.quota, self.request
        resource, name = quota_object(quota)
        status_used = {what: render(what, value) for what, value in effect.used.items()}
        written = (request.resource, request.namespace, request.name) == (resource, tenant, name)
        if request.obj is not None and written:
            obj: Object = request.obj
            obj["status"] = {"hard": dict((obj.get("spec") or {}).get("hard") or {}), "used": status_used}
            return
        record = self.txn.get(resource, tenant, name)
        if record is None:
            return
        # Written at every admission: parsed only when somebody else wrote it last.
        last, told = self._lines.told.get((tenant, quota), (None, {}))
        base = told if last is record else record.object()
        status = {"hard": (base.get("spec") or {}).get("hard") or {}, "used": status_used}
        obj = {**base, "metadata": dict(base["metadata"]), "status": status}
        self._lines.told[(tenant, quota)] = (self.txn.put(resource, obj), obj)

    def forget_told(self, tenant: str, quota: str) -> None:
        """A quota is removed: its status is nobody's any more."""
        self._lines.told.pop((tenant, quota), None)

    def _event(self, obj: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        """Write an Event along. One that cannot be written is logged and costs nothing but itself."""
        try:
            self._write_event(obj, type_, reason, message)
        except Exception:
            _log.exception("the Event %s of %s was dropped", reason, metadata.key(obj))

    def _write_event(self, obj: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        serial = uuid.uuid4().hex
        event = event_of(obj, type_, reason, message, now=self.now, suffix=serial[:16], component=COMPONENT)
        # Written past the admission chain: what every object bears from its creation on is given here.
        event["metadata"] |= {
            "uid": str(uuid.UUID(hex=serial)),
            "creationTimestamp": metadata.rfc3339(self.now),
        }
        self.txn.put(EVENTS, event)

    def _adapter(self, charge: Charge) -> Adapter:
        adapter = adapter_for(kind_names()[charge.id.partition("/")[0]])
        assert adapter is not None
        return adapter

    def _is_request(self, charge: Charge) -> bool:
        return self.request.obj is not None and metadata.uid(self.request.obj) == charge.uid
