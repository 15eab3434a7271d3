"""Action subresources: bind and evict a pod; start, stop and restart a VM; pause and unpause a VMI.

Each changes desired state only; the controllers and the node act on it.  Sources: kube-apiserver's binding and eviction,
KubeVirt's virt-api subresource handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from isoplane.http import apierrors
from isoplane.http.request_options import Call, DeleteOptions
from isoplane.objects.errors import BadRequest, Cause, Forbidden, Internal, MethodNotAllowed, TooManyRequests
from isoplane.objects.kinds import PODDISRUPTIONBUDGETS, PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.objects.metadata import Object, rfc3339, set_condition
from isoplane.objects.phase import has_ended
from isoplane.objects.validation import invalid
from isoplane.quota.disruption import Eviction, Verdict, decide_eviction
from isoplane.server import deletion, launcher, launcher_writes
from isoplane.server.writes import Writes
from isoplane.store.record import Record
from isoplane.store.transaction import Transaction
from isoplane.workload.adapters import PAUSED_ANNOTATION as PAUSED
from isoplane.workload.common import is_paused


class Target:
    """What an action works on: one object in one transaction."""

    def __init__(
        self, txn: Transaction, writes: Writes, resource: Resource, namespace: str, name: str, call: Call, now: float
    ) -> None:
        self.txn = txn
        self.writes = writes
        self.resource = resource
        self.namespace = namespace
        self.name = name
        self.call = call
        self.now = now

    def change(self, action: str, make: Callable[[Object], Object]) -> Record:
        return self.writes.change(self.txn, self.resource, self.namespace, self.name, action, self.call, make)

    def refuse(self, why: str) -> Exception:
        return apierrors.conflict(self.resource, self.name, why)

    def instance(self) -> Object | None:
        """The VMI of a VM, unless it has ended."""
        found = self.txn.get(VIRTUALMACHINEINSTANCES, self.namespace, self.name)
        if found is None:
            return None
        obj = found.object()
        return None if has_ended(obj) else obj


Action = Callable[[Target, Mapping[str, Any]], Record]


def run(
    txn: Transaction,
    writes: Writes,
    resource: Resource,
    namespace: str,
    name: str,
    subresource: str,
    body: Mapping[str, Any],
    call: Call,
    now: float,
) -> Record:
    """Do the action. Raises MethodNotAllowed for one that this resource does not have."""
    action = _ACTIONS.get((resource, subresource))
    if action is None:
        raise MethodNotAllowed(f"the server does not allow {subresource!r} on {resource.qualified}")
    if txn.get(resource, namespace, name) is not None:
        return action(Target(txn, writes, resource, namespace, name, call, now), body)
    machine = launcher.machine_of(txn, resource, namespace, name)
    if machine is None or action is not _evict:
        raise launcher.absent(txn, resource, namespace, name)
    behind = Target(txn, writes, machine.resource, namespace, machine.name, call, now)
    return _evict_machine(behind, machine, name, body)


def exists(resource: Resource, subresource: str) -> bool:
    return (resource, subresource) in _ACTIONS


def _bind(target: Target, body: Mapping[str, Any]) -> Record:
    node = (body.get("target") or {}).get("name")
    if not node:
        raise invalid(
            target.resource, target.name, [Cause("target.name", "Required value: the node", "FieldValueRequired")]
        )

    def bound(old: Object) -> Object:
        spec, meta = old.get("spec") or {}, old["metadata"]
        if meta.get("deletionTimestamp"):
            raise target.refuse(f"pod {target.name} is being deleted, cannot be assigned to a host")
        if spec.get("nodeName"):
            raise target.refuse(f"pod {target.name} is already assigned to node {spec['nodeName']!r}")
        if spec.get("schedulingGates"):
            raise target.refuse(f"pod {target.name} has non-empty .spec.schedulingGates")
        status = dict(old.get("status") or {})
        status.pop("nominatedNodeName", None)
        scheduled = {"type": "PodScheduled", "status": "True"}
        status["conditions"] = set_condition(status.get("conditions") or (), scheduled, rfc3339(target.now))
        return {**old, "metadata": dict(meta), "spec": {**spec, "nodeName": node}, "status": status}

    return target.change("binding", bound)


def _evict(target: Target, body: Mapping[str, Any]) -> Record:
    """Delete a pod as its PodDisruptionBudget allows; the budget is charged in the same transaction.

    Raises TooManyRequests (ask again later), Forbidden, Internal (several budgets) and BadRequest.
    """
    return _disrupt(target, _eviction_options(target.name, body))


def _evict_machine(target: Target, machine: Record, name: str, body: Mapping[str, Any]) -> Record:
    """Evict the launcher Pod ``name``: stop its machine (the target), as its evictionStrategy and its budget allow."""
    options = launcher_writes.options_for(machine, name, _eviction_options(name, body))
    marked = launcher_writes.evacuated(machine.object(), target.call)
    return _disrupt(target, options) if marked is None else target.change("status", lambda old: marked)


def _eviction_options(name: str, body: Mapping[str, Any]) -> DeleteOptions:
    given = (body.get("metadata") or {}).get("name")
    if given and given != name:
        raise BadRequest("name in URL does not match name in Eviction object")
    return DeleteOptions.read(body.get("deleteOptions") or {})


def _disrupt(target: Target, options: DeleteOptions) -> Record:
    """Ask the budgets, delete, and say on the object why it goes."""
    stored = target.txn.get(target.resource, target.namespace, target.name)
    assert stored is not None
    evicted, now = stored.object(), rfc3339(target.now)
    budgets = [record.object() for record in target.txn.list(PODDISRUPTIONBUDGETS, target.namespace)]
    decision = decide_eviction(evicted, budgets, now)
    _refuse_eviction(decision)
    if decision.status is not None:
        status = dict(decision.status)
        target.writes.change(
            target.txn, PODDISRUPTIONBUDGETS, target.namespace, decision.budget, "status", target.call,
            lambda old: {**old, "metadata": dict(old["metadata"]), "status": status},
        )  # fmt: skip
    deleted = deletion.delete(
        target.txn, target.writes, target.resource, target.namespace, target.name, options, target.call
    )
    if deleted.removed or evicted["metadata"].get("deletionTimestamp"):
        return deleted.record

    def told(old: Object) -> Object:
        status = dict(old.get("status") or {})
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }
        status["conditions"] = set_condition(status.get("conditions") or (), condition, now)
        return {**old, "metadata": dict(old["metadata"]), "status": status}

    return target.change("status", told)


def _refuse_eviction(decision: Eviction) -> None:
    match decision.verdict:
        case Verdict.WAIT:
            raise TooManyRequests(
                "Cannot evict pod as it would violate the pod's disruption budget.",
                causes=[Cause("", decision.why, "DisruptionBudget")],
                details={"retryAfterSeconds": decision.retry_after} if decision.retry_after else None,
            )
        case Verdict.FORBIDDEN:
            raise Forbidden(
                f'{PODDISRUPTIONBUDGETS.qualified} "{decision.budget}" is forbidden: {decision.why}',
                details=apierrors.details(PODDISRUPTIONBUDGETS, decision.budget),
            )
        case Verdict.AMBIGUOUS:
            raise Internal(decision.why)


def dry_run(body: Mapping[str, Any]) -> bool:
    """Whether the body of an action asks for a trial only: by its own options, or an Eviction's by those it carries."""
    return any(bool(options.get("dryRun")) for options in (body, body.get("deleteOptions") or {}))


def _run_strategy(vm: Object) -> str:
    spec = vm.get("spec") or {}
    if spec.get("runStrategy"):
        return str(spec["runStrategy"])
    return "Always" if spec.get("running") else "Halted"


def _with_strategy(vm: Object, wanted: str) -> Object:
    """The VM with its run strategy changed in the words its author uses (``running`` or ``runStrategy``)."""
    spec = dict(vm.get("spec") or {})
    if "running" in spec:
        spec["running"] = wanted == "Always"
    else:
        spec["runStrategy"] = wanted
    return {**vm, "metadata": dict(vm["metadata"]), "spec": spec}


def _with_requests(vm: Object, requests: list[dict[str, Any]]) -> Object:
    status = {**(vm.get("status") or {}), "stateChangeRequests": requests}
    return {**vm, "metadata": dict(vm["metadata"]), "status": status}


def _start(target: Target, body: Mapping[str, Any]) -> Record:
    instance = target.instance()

    def started(vm: Object) -> Object:
        wanted = _run_strategy(vm)
        if instance is not None:
            raise target.refuse("VM is already running")
        if wanted == "Halted":
            return _with_strategy(vm, "Always")
        if wanted in ("Manual", "RerunOnFailure"):
            return _with_requests(vm, [{"action": "Start"}])
        raise target.refuse(f"{wanted} does not support manual start requests")

    return target.change("start", started)


def _stop(target: Target, body: Mapping[str, Any]) -> Record:
    instance = target.instance()
    grace = body.get("gracePeriod")
    if grace is not None and (isinstance(grace, bool) or not isinstance(grace, int) or grace < 0):
        raise BadRequest(f"gracePeriod: {grace!r} is not a number of seconds")

    def stopped(vm: Object) -> Object:
        wanted = _run_strategy(vm)
        if wanted == "Halted" and instance is None:
            raise target.refuse("VM is not running")
        if wanted in ("Manual", "RerunOnFailure"):
            if instance is None:
                raise target.refuse("VM is not running")
            return _with_requests(vm, [{"action": "Stop", "uid": instance["metadata"]["uid"]}])
        return _with_strategy(vm, "Halted")

    if instance is not None and grace is not None:
        spec = {**(instance.get("spec") or {}), "terminationGracePeriodSeconds": grace}
        shorter = {**instance, "metadata": dict(instance["metadata"]), "spec": spec}
        Target(
            target.txn, target.writes, VIRTUALMACHINEINSTANCES, target.namespace, target.name, target.call, target.now
        ).change("stop", lambda old: shorter)
    return target.change("stop", stopped)


def _restart(target: Target, body: Mapping[str, Any]) -> Record:
    instance = target.instance()

    def restarted(vm: Object) -> Object:
        wanted = _run_strategy(vm)
        if wanted == "Halted":
            raise target.refuse("Halted does not support manual restart requests")
        if instance is None:
            raise target.refuse("VM is not running")
        return _with_requests(vm, [{"action": "Stop", "uid": instance["metadata"]["uid"]}, {"action": "Start"}])

    return target.change("restart", restarted)


def _pause(target: Target, body: Mapping[str, Any]) -> Record:
    def paused(vmi: Object) -> Object:
        if (vmi.get("status") or {}).get("phase") != "Running":
            raise target.refuse("VM is not running")
        annotations = {**(vmi["metadata"].get("annotations") or {}), PAUSED: "true"}
        return {**vmi, "metadata": {**vmi["metadata"], "annotations": annotations}}

    return target.change("pause", paused)


def _unpause(target: Target, body: Mapping[str, Any]) -> Record:
    def resumed(vmi: Object) -> Object:
        if not is_paused(vmi):
            raise target.refuse("VMI is not paused")
        # Said, not taken away: a machine that was to start paused would be paused again.
        annotations = {**(vmi["metadata"].get("annotations") or {}), PAUSED: "false"}
        return {**vmi, "metadata": {**vmi["metadata"], "annotations": annotations}}

    return target.change("unpause", resumed)


_ACTIONS: dict[tuple[Resource, str], Action] = {
    (PODS, "binding"): _bind,
    (PODS, "eviction"): _evict,
    (VIRTUALMACHINES, "start"): _start,
    (VIRTUALMACHINES, "stop"): _stop,
    (VIRTUALMACHINES, "restart"): _restart,
    (VIRTUALMACHINEINSTANCES, "pause"): _pause,
    (VIRTUALMACHINEINSTANCES, "unpause"): _unpause,
}
