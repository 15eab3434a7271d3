"""The quota engine behind one interface: over books in memory, without any store, and embedded, through the API and SQLite.

``Shell`` is what the contract suite speaks to.  To add a shell (an operator on a Kubernetes), implement it and name it in
``SHELLS``.  Workloads are real manifests in every shell; a name stands for one object at a time, and its kind is said by
its first letter: ``v…`` a VirtualMachineInstance, anything else a Pod.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Set
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from isoplane.objects import metadata
from isoplane.objects.errors import NotFound, QuotaExceeded
from isoplane.objects.kinds import (
    COHORTS,
    NAMESPACES,
    NODES,
    PODS,
    QUOTAPOLICIES,
    RESOURCEQUOTAS,
    VIRTUALMACHINEINSTANCES,
)
from isoplane.objects.metadata import Object
from isoplane.objects.quantity import render
from isoplane.quota import effects, events
from isoplane.quota.accounts import Accounts
from isoplane.quota.audit import Entry
from isoplane.quota.census import Observed
from isoplane.quota.effects import Effect
from isoplane.quota.engine import Engine
from isoplane.quota.ledger import Ledger
from isoplane.quota.model import DEFAULT_ACCOUNTING, Budget, Charge, Cohort, Limits
from isoplane.quota.read import policy_of, quota_of
from isoplane.server.quota_admission import rows
from isoplane.workload.adapters import QUOTA_GATE, Adapter
from isoplane.workload.registry import adapter_for
from quota_plane_support import QuotaPlane, pod, quota_plane, vmi

PRIORITIES = {"": 0, "batch": 10, "normal": 100, "critical": 1000}
TENANTS = ("a", "b")


class Refused(Exception):
    """A workload was refused, with the message that its author gets."""


@dataclass(frozen=True)
class Place:
    """How a workload stands: ``state`` runs | waits | reserved | leaves | stuck."""

    state: str
    victims: tuple[str, ...] = ()
    """Who leaves for it: ``pod/ns/name``."""


class Shell(Protocol):
    """What a script can do, and see. Every call returns once all that follows from it is carried out."""

    async def limits(self, tenant: str, hard: Mapping[str, str], **policy: Any) -> None:
        """Set the one quota ``q`` of a tenant, and its policy, if any is given."""

    async def capacity(self, cpu: str) -> None:
        """Set what the cohort ``default`` shares."""

    async def create(self, name: str, tenant: str, *, cpu: str, priority: str = "", owned: bool = True) -> None:
        """Ask for a workload. Raises Refused."""

    async def delete(self, name: str, tenant: str) -> None:
        """Mark it for deletion; it does not go by itself."""

    async def gone(self, name: str, tenant: str) -> None:
        """It has ended and its object goes, whether marked or not."""

    async def retry(self, name: str, tenant: str) -> None:
        """Ask for a new decision about somebody who waits."""

    async def advance(self, seconds: float) -> None:
        """Let time pass; nothing else happens."""

    async def picture(self) -> dict[str, Place]:
        """``pod/ns/name`` → how it stands, of everyone who is there."""

    async def used(self, tenant: str) -> dict[str, str]:
        """What the quota ``q`` publishes as its use."""

    async def trail(self) -> list[tuple[str, str, str]]:
        """(act, workload, rule) of everything that was recorded."""


def manifest(name: str, tenant: str, *, cpu: str, priority: str, owned: bool) -> Object:
    make = vmi if name.startswith("v") else pod
    return make(name, tenant, cpu=cpu, priority=priority, owner="rs" if owned else "", grace=30)


def places(accounts: Accounts) -> dict[str, Place]:
    """The picture that books give."""
    found: dict[str, Place] = {}
    for tenant in TENANTS:
        for charge in accounts.charges(tenant):
            found[charge.id] = Place("stuck" if charge.stuck else "leaves" if charge.evicting else "runs")
        for pending in accounts.waiting(tenant):
            found[pending.charge.id] = Place("reserved" if pending.held else "waits", pending.victims)
    return found


class MemoryShell:
    """Objects in a dict, books in memory: all that a shell has to do, and nothing else."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.objects: dict[str, Object] = {}
        """uid → object."""
        self.now = 1_800_000_000.0
        self.entries: list[Entry] = []
        self.published: dict[str, dict[str, str]] = {}
        self.serial = 0
        self.preempted: list[effects.Preempt] = []
        self.batches = 0
        self.unwritable: set[str] = set()
        """uids of objects whose writes fail."""

    # what the engine asks

    def grace(self, charge: Charge) -> int | None:
        obj = self.objects.get(charge.uid)
        if obj is None:
            return None
        return 30 if QUOTA_GATE not in self._demand(obj).gates else 0

    def workloads(self, tenant: str, accounting: str) -> Iterator[Observed]:
        for obj in self.objects.values():
            if metadata.namespace(obj) == tenant:
                yield Observed(adapter_of(obj).claim(obj, accounting), self.now)

    def counts(self, tenant: str, names: Set[str]) -> Mapping[str, int]:
        return {}

    def closing(self, tenant: str) -> bool:
        return False

    # events

    def tell(self, *happened: events.Event) -> None:
        """One batch: the events, then whoever they make room for."""
        engine = self.engine = Engine(self.ledger, self, self.now)
        self.batches += 1
        recorded = len(self.entries)
        try:
            with self.ledger.attempt():
                for event in happened:
                    self._carry_out(engine.handle(event))
                for tenant in engine.waking():
                    self._carry_out(engine.wake(tenant))
        except Refused:
            # Nothing of it happened but the refusal.
            self.entries[recorded:] = [entry for entry in self.entries[recorded:] if entry.act == "refuse"]
            raise
        self._carry_out(engine.finish())

    async def limits(self, tenant: str, hard: Mapping[str, str], **policy: Any) -> None:
        quota = quota_of({"metadata": {"name": "q"}, "spec": {"hard": dict(hard)}})
        self.tell(
            events.LimitsChanged(
                tenant, Limits((quota,), policy_of({"spec": policy}) if policy else self.ledger.policy(tenant))
            )
        )

    async def capacity(self, cpu: str) -> None:
        self.tell(events.CohortsChanged((Cohort("default", {"requests.cpu": int(cpu) * 1000}),)))

    async def create(self, name: str, tenant: str, *, cpu: str, priority: str = "", owned: bool = True) -> None:
        obj = manifest(name, tenant, cpu=cpu, priority=priority, owned=owned)
        self.serial += 1
        obj["metadata"]["uid"] = f"uid-{self.serial:06}"
        obj = adapter_of(obj).set_priority(obj, priority, PRIORITIES[priority], "PreemptLowerPriority")
        uid = metadata.uid(obj)
        self.objects[uid] = obj
        try:
            self.tell(events.Requested(self._demand(obj), queues=owned, owner="rs" if owned else ""))
        except Refused:
            del self.objects[uid]
            raise

    async def delete(self, name: str, tenant: str) -> None:
        obj = self._find(name, tenant)
        obj["metadata"]["deletionTimestamp"] = metadata.rfc3339(self.now)
        if QUOTA_GATE in self._demand(obj).gates:
            return await self.gone(name, tenant)  # nothing runs that would have to end
        return self.tell(events.Terminating(tenant, metadata.uid(obj)))

    async def gone(self, name: str, tenant: str) -> None:
        uid = metadata.uid(self._find(name, tenant))
        del self.objects[uid]
        self.tell(events.Removed(tenant, uid))

    async def retry(self, name: str, tenant: str) -> None:
        self.tell(events.Changed(self._demand(self._find(name, tenant)), asks_again=True))

    async def advance(self, seconds: float) -> None:
        self.now += seconds

    def budget(self, tenant: str, names: Iterable[str], allowed: int) -> None:
        members = frozenset(metadata.uid(self._find(name, tenant)) for name in names)
        self.ledger.set_budgets(tenant, [Budget("b", members, allowed)])

    # what is seen

    async def picture(self) -> dict[str, Place]:
        found = places(self.ledger)
        for obj in self.objects.values():
            demand = self._demand(obj)
            gated = QUOTA_GATE in demand.gates
            assert gated == (found[demand.id].state in ("waits", "reserved")), demand.id
            assert demand.deleting == (found[demand.id].state in ("leaves", "stuck")), demand.id
        assert len(found) == len(self.objects)
        return found

    async def used(self, tenant: str) -> dict[str, str]:
        return self.published[tenant]

    async def trail(self) -> list[tuple[str, str, str]]:
        return [(entry.act, entry.workload, entry.rule) for entry in self.entries]

    # effects

    def _carry_out(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            match effect:
                case effects.Admit():
                    pass
                case effects.Gate() | effects.Release() if effect.charge.uid in self.unwritable:
                    self._carry_out(self.engine.handle(events.NotWritten(effect.pending)))
                case effects.Gate():
                    self._write(effect.charge, lambda a, o, effect=effect: a.gate(o, effect.message, self.now))  # type: ignore[misc]
                    self.entries += [effect.entry] if effect.entry is not None else []
                case effects.Release():
                    self._write(effect.charge, lambda a, o: a.ungate(o, self.now))
                    self.entries.append(effect.entry)
                case effects.Preempt():
                    self.preempted.append(effect)
                    self._write(effect.charge, self._marked)
                case effects.Audit():
                    self.entries.append(effect.entry)
                case effects.SetUsage():
                    self.published[effect.tenant] = {name: render(name, value) for name, value in effect.used.items()}
                case effects.Refuse():
                    raise Refused(effect.message)

    def _write(self, charge: Charge, change: Callable[[Adapter, Object], Object]) -> None:
        obj = self.objects[charge.uid]
        self.objects[charge.uid] = change(adapter_of(obj), obj)

    def _marked(self, adapter: Adapter, obj: Object) -> Object:
        marked = adapter.mark_victim(obj, "PreemptedByQuota", "", self.now)
        return {**marked, "metadata": {**marked["metadata"], "deletionTimestamp": metadata.rfc3339(self.now)}}

    def _find(self, name: str, tenant: str) -> Object:
        return next(o for o in self.objects.values() if (metadata.name(o), metadata.namespace(o)) == (name, tenant))

    def _demand(self, obj: Object) -> Any:
        return adapter_of(obj).claim(obj, self.ledger.policy(metadata.namespace(obj)).accounting)


def adapter_of(obj: Object) -> Adapter:
    adapter = adapter_for(PODS if obj["kind"] == "Pod" else VIRTUALMACHINEINSTANCES)
    assert adapter is not None
    return adapter


class EmbeddedShell:
    """The server's admission plug-in: API writes, rows in SQLite."""

    def __init__(self, plane: QuotaPlane) -> None:
        self.plane = plane

    async def start(self) -> None:
        for name, value in PRIORITIES.items():
            if name:
                await self.plane.priority(name, value)
        for tenant in TENANTS:
            await self.plane.api.create(NAMESPACES, {"metadata": {"name": tenant}})
            await self.plane.maker(tenant, "rs")

    async def limits(self, tenant: str, hard: Mapping[str, str], **policy: Any) -> None:
        quota = {"metadata": {"name": "q", "namespace": tenant}, "spec": {"hard": dict(hard)}}
        await self._put(RESOURCEQUOTAS, quota)
        if policy:
            await self._put(QUOTAPOLICIES, {"metadata": {"name": "default", "namespace": tenant}, "spec": policy})
        await self._place()

    async def _put(self, resource: Any, obj: Object) -> None:
        name, namespace = metadata.name(obj), metadata.namespace(obj)
        try:
            old = await self.plane.api.get(resource, name, namespace)
        except NotFound:
            await self.plane.api.create(resource, obj)
            return
        if old.get("spec") != obj["spec"]:
            await self.plane.api.update(resource, {**old, "spec": obj["spec"]})

    async def capacity(self, cpu: str) -> None:
        try:
            await self.plane.api.get(COHORTS, "default")
        except NotFound:
            await self.plane.cohort()
            await self.plane.node("n1", cpu=cpu)
            return
        allocatable = {"status": {"allocatable": {"cpu": cpu}}}
        await self.plane.api.patch(NODES, "n1", "", allocatable, subresource="status")
        await self._place()

    async def create(self, name: str, tenant: str, *, cpu: str, priority: str = "", owned: bool = True) -> None:
        obj = manifest(name, tenant, cpu=cpu, priority=priority, owned=owned)
        try:
            await self.plane.api.create(_resource(name), obj)
        except QuotaExceeded as error:
            raise Refused(error.message.partition("is forbidden: ")[2]) from None
        await self._place()

    async def _place(self) -> None:
        """Play scheduler and node: whoever may run is bound, so that its deletion waits for its end."""
        for tenant in TENANTS:
            for obj in (await self.plane.api.list(PODS, tenant)).items:
                if not obj["spec"].get("schedulingGates") and not obj["spec"].get("nodeName"):
                    target = {"target": {"kind": "Node", "name": "n1"}}
                    await self.plane.api.subresource(PODS, metadata.name(obj), tenant, "binding", target)
            for obj in (await self.plane.api.list(VIRTUALMACHINEINSTANCES, tenant)).items:
                adapter = adapter_of(obj)
                if QUOTA_GATE not in adapter.claim(obj, DEFAULT_ACCOUNTING).gates and not (obj.get("status") or {}).get(
                    "nodeName"
                ):
                    obj["status"] = {**(obj.get("status") or {}), "phase": "Scheduled", "nodeName": "n1"}
                    await self.plane.api.update(VIRTUALMACHINEINSTANCES, obj, subresource="status")

    async def delete(self, name: str, tenant: str) -> None:
        await self.plane.api.delete(_resource(name), name, tenant)
        await self._place()

    async def gone(self, name: str, tenant: str) -> None:
        await self.plane.api.delete(_resource(name), name, tenant, grace_seconds=0)
        await self._place()

    async def retry(self, name: str, tenant: str) -> None:
        patch = {"metadata": {"annotations": {"isoplane.io/quota-retry": str(self.plane.now)}}}
        await self.plane.api.patch(_resource(name), name, tenant, patch)
        await self._place()

    async def advance(self, seconds: float) -> None:
        self.plane.now += seconds

    async def picture(self) -> dict[str, Place]:
        return places(self.plane.accounts())

    async def used(self, tenant: str) -> dict[str, str]:
        return await self.plane.used(tenant)

    async def trail(self) -> list[tuple[str, str, str]]:
        # A refusal is written with the next write that is not refused, or by one of its own.
        await self.plane.store.transact(lambda txn: self.plane.plugin._record(txn, ()))
        found = [rows.decode_entry(row) for row in self.plane.store.state.rows(rows.AUDIT).values()]
        return [(e["act"], e["workload"], e["rule"]) for e in sorted(found, key=lambda e: e["n"])]


def _resource(name: str) -> Any:
    return VIRTUALMACHINEINSTANCES if name.startswith("v") else PODS


@asynccontextmanager
async def in_memory(directory: Path) -> AsyncIterator[Shell]:
    yield MemoryShell()


@asynccontextmanager
async def embedded(directory: Path) -> AsyncIterator[Shell]:
    async with quota_plane(directory) as plane:
        shell = EmbeddedShell(plane)
        await shell.start()
        yield shell


SHELLS: dict[str, Callable[[Path], AbstractAsyncContextManager[Shell]]] = {"memory": in_memory, "embedded": embedded}
