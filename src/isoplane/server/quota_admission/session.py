"""One transaction's work on quota: tell the engine what is being written, carry out what it answers. Decides nothing.

Whatever else the write does happens in the same transaction, so that there is no moment at which object, charge, counter, victim
and reservation disagree.  A victim's deletion is carried out here and comes back to the engine as what became of it, not
through admission.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set
from typing import Any

from isoplane.http import apierrors
from isoplane.http.request_options import Call, DeleteOptions
from isoplane.http.user import SYSTEM
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Forbidden
from isoplane.objects.kinds import NAMESPACES
from isoplane.objects.metadata import Object
from isoplane.quota import effects, events
from isoplane.quota.census import Observed
from isoplane.quota.charge import object_amounts
from isoplane.quota.configuration import Change, cohorts_of, limits_of
from isoplane.quota.effects import Effect
from isoplane.quota.engine import Engine
from isoplane.quota.model import Charge
from isoplane.quota.population import object_counts, observed
from isoplane.quota.read import quota_name
from isoplane.quota.release import RETRY_ANNOTATION
from isoplane.server import deletion, strategy
from isoplane.server.admission import AdmissionRequest, Chain
from isoplane.server.quota_admission.accounts import Lines, stored_record
from isoplane.server.quota_admission.telling import Telling, harmless
from isoplane.server.writes import Writes
from isoplane.store.record import Record
from isoplane.store.transaction import Transaction
from isoplane.workload.accounting import Accounting
from isoplane.workload.adapters import Adapter
from isoplane.workload.shape import Stage

_log = logging.getLogger(__name__)

PREEMPTED = "PreemptedByQuota"
"""The reason of a victim's DisruptionTarget condition and of its Event."""
NODES_GROUP = "system:nodes"


class Session(Telling):
    """The quota side of one transaction. Raises QuotaExceeded to refuse it."""

    def __init__(self, txn: Transaction, request: AdmissionRequest, lines: Lines) -> None:
        super().__init__(txn, request, lines)
        self.warnings: list[str] = []
        self.repaired: list[effects.Repaired] = []
        self._change: Change | None = None
        """What the write makes of an object that configures quota."""
        self.engine = Engine(self.accounts, self, self.now, harmless)

    # what the engine asks about objects

    def grace(self, charge: Charge) -> int | None:
        if self._is_request(charge):
            assert self.request.obj is not None
            return strategy.grace_seconds(self.request.resource, self.request.obj, None)
        record = stored_record(self.txn, charge)
        return None if record is None else strategy.grace_seconds(record.resource, record.object(), None)

    def workloads(self, tenant: str, accounting: Accounting) -> Iterable[Observed]:
        return observed(self.txn, tenant, accounting, self._change)

    def counts(self, tenant: str, names: Set[str]) -> Mapping[str, int]:
        return object_counts(self.request.scheme, self.txn, tenant, names, self._change)

    def closing(self, tenant: str) -> bool:
        namespace = self.txn.get(NAMESPACES, "", tenant)
        return namespace is not None and namespace.deleting

    # what is being written

    def create(self, adapter: Adapter) -> None:
        """A workload is created."""
        assert self.request.obj is not None
        obj, tenant = self.request.obj, self.request.namespace
        demand = adapter.claim(obj, self.engine.accounting(tenant))
        maker = self._maker(obj) if demand.owned_by_tenant else None
        self._tell_engine(events.Requested(demand, maker is not None, maker.uid if maker is not None else ""))

    def update(self, adapter: Adapter) -> None:
        """A workload began to run, ended, changed its size, or asks again."""
        old, new, tenant = self.request.old, self.request.obj, self.request.namespace
        assert old is not None
        assert new is not None
        same = _phase(old) == _phase(new) and old.get("spec") == new.get("spec")
        if same and self.engine.ignores(tenant, metadata.uid(new)):
            return
        accounting = self.engine.accounting(tenant)
        demand = adapter.claim(new, accounting)
        retried = metadata.annotations_of(new).get(RETRY_ANNOTATION)
        event = events.Changed(
            demand,
            began=demand.stage is Stage.RUNNING and adapter.claim(old, accounting).stage is not Stage.RUNNING,
            asks_again=retried != metadata.annotations_of(old).get(RETRY_ANNOTATION),
            trusted=self._is_node(),
            successor_of=self._restarted_by(new) if demand.finished else "",
        )
        self._tell_engine(event)

    def delete(self) -> None:
        """A workload is marked for deletion, or leaves the store."""
        old, tenant = self.request.old, self.request.namespace
        assert old is not None
        kind = events.Removed if self.request.removes else events.Terminating
        self._tell_engine(kind(tenant, metadata.uid(old), self._restarted_by(old)))

    def count(self, sign: int) -> None:
        """An object that is no workload comes or goes."""
        request, tenant, amounts = self.request, self.request.namespace, object_amounts(self.request.resource)
        name = f"{request.resource.singular}/{tenant}/{request.name}"
        event = events.ObjectCreated(tenant, name, amounts) if sign > 0 else events.ObjectRemoved(tenant, amounts)
        self._tell_engine(event)

    def limits_changed(self) -> None:
        """A ResourceQuota, TenantQuota or QuotaPolicy is written, or removed."""
        request, tenant = self.request, self.request.namespace
        change = self._change = Change(request.resource, tenant, request.name, request.obj)
        if request.obj is None:
            self.forget_told(tenant, quota_name(request.resource.kind, request.name))
        self._tell_engine(events.LimitsChanged(tenant, limits_of(self.txn, tenant, change)))

    def cohorts_changed(self) -> None:
        """A Cohort or a Node is written, or removed."""
        request = self.request
        change = self._change = Change(request.resource, "", request.name, request.obj)
        self._tell_engine(events.CohortsChanged(cohorts_of(self.txn, change)))

    def verify(self, tenant: str) -> None:
        """Compare the books of a namespace with its objects, or ('') those of the cohorts."""
        if tenant:
            self._tell_engine(events.LimitsChanged(tenant, limits_of(self.txn, tenant, None), verify=True))
        else:
            self._tell_engine(events.CohortsChanged(cohorts_of(self.txn, None), verify=True))
        self.finish()

    def _maker(self, obj: Mapping[str, Any]) -> Record | None:
        """The controller that an object names, where it is stored with that uid and of a kind that makes workloads.

        Anybody can write any owner reference; only what somebody makes for the tenant waits for quota.
        """
        owner = metadata.controller_of(obj)
        resource = self.request.scheme.kind(owner.get("apiVersion"), owner.get("kind")) if owner else None
        if owner is None or resource is None or not resource.makes_workloads:
            return None
        found = self.txn.get(resource, self.request.namespace, str(owner.get("name") or ""))
        return found if found is not None and found.uid == owner.get("uid") else None

    def _restarted_by(self, obj: Mapping[str, Any]) -> str:
        """uid of the owner that stops a workload only to start it again; '' for any other."""
        maker = self._maker(obj)
        if maker is None or maker.deleting:
            return ""
        asked = (maker.object().get("status") or {}).get("stateChangeRequests") or ()
        return maker.uid if any(request.get("action") == "Start" for request in asked) else ""

    def _is_node(self) -> bool:
        """Whether the plane itself, or a node, makes this write."""
        user = self.request.user
        return user.name == SYSTEM.name or NODES_GROUP in user.groups

    # what is to be done

    def _tell_engine(self, event: events.Event) -> None:
        self._carry_out(self.engine.handle(event))

    def _carry_out(self, wanted: Iterable[Effect]) -> None:
        for effect in wanted:
            match effect:
                case effects.Admit():
                    self._admit(effect)
                case effects.Audit():
                    self.audit.append(effect.entry)
                case effects.Release() | effects.Gate():
                    self._wait_or_run(effect)
                case effects.Preempt():
                    self._preempt(effect)
                case effects.Notify():
                    self._notify(effect)
                case effects.Warn():
                    if self.request.dry_run or not effect.dry_run_only:
                        self.warnings.append(effect.message)
                case effects.SetUsage():
                    self.set_usage(effect)
                case effects.Repaired():
                    self.repaired.append(effect)
                case effects.Refuse():
                    raise self._refusal(effect)

    def _refusal(self, refuse: effects.Refuse) -> ApiError:
        if refuse.quota:
            return self.refused(refuse.message)
        resource, name = self.request.resource, self.request.name
        message = f'{resource.qualified} "{name}" is forbidden: {refuse.message}'
        return Forbidden(message, details=apierrors.details(resource, name))

    def _admit(self, admit: effects.Admit) -> None:
        assert self.request.obj is not None
        if admit.gated:
            self.request.obj = self._adapter(admit.charge).ungate(self.request.obj, self.now)

    def _wait_or_run(self, effect: effects.Release | effects.Gate) -> None:
        """Gate a workload or take its gate off. One whose object cannot be written keeps its place: that is its own fault, and
        must not fail the write that made room, which is somebody else's."""
        charge = effect.charge
        try:
            written = self._write_gate(effect)
        except ApiError:
            raise
        except Exception:
            if self._is_request(charge):
                raise
            _log.exception("%s could not be released from its wait for quota", charge.id)
            self._tell_engine(events.NotWritten(effect.pending))
            return
        if effect.entry is not None:
            self.audit.append(effect.entry)
        if isinstance(effect, effects.Release):
            self._event(written, "Normal", "QuotaAdmitted", effect.message)

    def _write_gate(self, effect: effects.Release | effects.Gate) -> Object:
        adapter = self._adapter(effect.charge)

        def told(obj: Object) -> Object:
            released = isinstance(effect, effects.Release)
            return adapter.ungate(obj, self.now) if released else adapter.gate(obj, effect.message, self.now)

        if self._is_request(effect.charge):
            assert self.request.obj is not None
            self.request.obj = told(self.request.obj)
            return self.request.obj
        record = stored_record(self.txn, effect.charge)
        if record is None:
            raise LookupError(f"{effect.charge.id} is not stored")
        old = record.object()
        new = told(old)
        if strategy.changes_generation(record.resource, old, new):
            new["metadata"]["generation"] = int(old["metadata"].get("generation") or 0) + 1
        self.txn.put(record.resource, new)
        return new

    def _preempt(self, effect: effects.Preempt) -> None:
        """Mark a victim, tell it why, and start its graceful deletion: one write of the object."""
        charge = effect.charge
        record = stored_record(self.txn, charge)
        if record is None:
            raise LookupError(f"{charge.id} is not stored")
        marked = self._adapter(charge).mark_victim(record.object(), PREEMPTED, effect.message, self.now)
        self._event(marked, "Warning", PREEMPTED, effect.message)
        # The engine knows that it leaves: no admission is asked about it.
        writes = Writes(Chain(), lambda: self.now, self.request.scheme)
        call, options = Call(dry_run=self.request.dry_run), DeleteOptions(grace_seconds=effect.grace)
        done = deletion.delete(
            self.txn, writes, record.resource, record.namespace, record.name, options, call, changed=marked
        )
        if done.removed:
            self._tell_engine(events.Removed(charge.tenant, charge.uid))

    def _notify(self, effect: effects.Notify) -> None:
        type_ = "Warning" if effect.warning else "Normal"
        if self._is_request(effect.charge):
            assert self.request.obj is not None
            self._event(self.request.obj, type_, effect.reason, effect.message)
        elif (record := stored_record(self.txn, effect.charge)) is not None:
            self._event(record.object(), type_, effect.reason, effect.message)

    # the end

    def finish(self) -> None:
        """Wake, write sums and statuses. The last thing a session does."""
        for tenant in self.engine.waking():
            with harmless(f"waking who waits in {tenant}"):
                self._wake(tenant)
        for tenant, _ in self._lines.untold:
            self.engine.publish(tenant)
        self._carry_out(self.engine.finish())

    def _wake(self, tenant: str) -> None:
        """Let in who waits there. What fails is undone and passed on, and the session is as it was."""
        audit, obj = len(self.audit), self.request.obj
        try:
            with self.accounts.attempt():
                self._carry_out(self.engine.wake(tenant))
        except BaseException:
            del self.audit[audit:]
            self.request.obj = obj
            self.engine.abandon(tenant)
            raise


def _phase(obj: Mapping[str, Any]) -> Any:
    return (obj.get("status") or {}).get("phase")
