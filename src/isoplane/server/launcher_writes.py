"""What may be done to a launcher Pod: evicting and deleting it stops its machine; everything else is refused in a sentence.

An eviction follows the machine's evictionStrategy, as KubeVirt's webhook on pods/eviction does, and then the budgets, as for
any Pod.  Nothing migrates here, so no machine is live-migratable: ``LiveMigrate`` refuses, ``LiveMigrateIfPossible`` stops.

Source: KubeVirt's pod eviction admitter.
"""

from __future__ import annotations

from dataclasses import replace

from isoplane.http import apierrors
from isoplane.http.request_options import Call, DeleteOptions
from isoplane.objects.errors import ApiError, BadRequest, TooManyRequests
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES
from isoplane.objects.metadata import Object
from isoplane.objects.phase import ENDED
from isoplane.server import deletion
from isoplane.server.deletion import Deleted
from isoplane.server.launcher import launcher_pod, pod_uid
from isoplane.server.writes import Writes
from isoplane.store import Record, Transaction


def refuse_command(machine: Record) -> ApiError:
    """Commands cannot be run in a launcher: nothing runs there beside the guest."""
    return BadRequest(
        f"vmi/{machine.namespace}/{machine.name}: commands cannot be run inside a virtual machine; "
        f"its console is open to isoplane vm console {machine.name}"
    )


def delete(txn: Transaction, writes: Writes, machine: Record, name: str, options: DeleteOptions, call: Call) -> Deleted:
    """Delete the machine, as deleting its launcher does under KubeVirt. Raises Conflict (preconditions)."""
    gone = deletion.delete(
        txn, writes, VIRTUALMACHINEINSTANCES, machine.namespace, machine.name, options_for(machine, name, options), call
    )
    shown = launcher_pod(gone.record) or launcher_pod(machine)
    assert shown is not None
    return Deleted(shown, gone.removed)


def options_for(machine: Record, name: str, options: DeleteOptions) -> DeleteOptions:
    """The options of a launcher's deletion, meant for its machine."""
    if options.uid and options.uid != pod_uid(machine.uid):
        raise apierrors.conflict(
            PODS,
            name,
            f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {pod_uid(machine.uid)}",
        )
    return replace(options, uid=machine.uid if options.uid else None)


def evacuated(vmi: Object, call: Call) -> Object | None:
    """The machine marked for whoever evacuates it, where its strategy leaves that to somebody else; None: it may be stopped.

    Then ``call.denied`` says that the eviction itself does not happen.  Raises TooManyRequests where the strategy forbids it.
    """
    spec, status = vmi.get("spec") or {}, vmi.get("status") or {}
    name, namespace = vmi["metadata"]["name"], vmi["metadata"]["namespace"]
    if status.get("phase") in ENDED:
        return None
    strategy = spec.get("evictionStrategy")
    if strategy == "LiveMigrate":
        raise TooManyRequests(f"VMI {name} is configured with an eviction strategy but is not live-migratable")
    if strategy != "External":
        return None
    triggered = f'Eviction triggered evacuation of VMI "{namespace}/{name}"'
    if status.get("evacuationNodeName"):
        raise TooManyRequests(f"Evacuation in progress: {triggered}")
    call.denied = TooManyRequests(triggered)
    return {
        **vmi,
        "metadata": dict(vmi["metadata"]),
        "status": {**status, "evacuationNodeName": status.get("nodeName") or ""},
    }
