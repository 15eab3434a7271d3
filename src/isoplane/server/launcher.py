"""The launcher pod that clients of KubeVirt expect behind a VMI, as far as logs need it.

``kubectl logs`` reads pods only.  Under KubeVirt the serial console of a machine is the log of the container
``guest-console-log`` in its launcher pod; here no such pod runs, so ``virt-launcher-NAME`` answers a get and a log, and
appears in no list: it charges nothing, is scheduled nowhere and cannot be written.
"""

from __future__ import annotations

from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES
from isoplane.objects.metadata import Object, owner_reference
from isoplane.store import ReadView, Record
from isoplane.store.record import snapshot

PREFIX = "virt-launcher-"
CONTAINER = "guest-console-log"
_PHASES = {"Running": "Running", "Succeeded": "Succeeded", "Failed": "Failed"}


def machine_of(view: ReadView, namespace: str, pod_name: str) -> Record | None:
    """The VMI that a launcher pod's name stands for; None for any other name, and where a real pod has it."""
    if not pod_name.startswith(PREFIX) or view.get(PODS, namespace, pod_name) is not None:
        return None
    return view.get(VIRTUALMACHINEINSTANCES, namespace, pod_name.removeprefix(PREFIX))


def launcher_pod(machine: Record) -> Record:
    """What a get of the launcher pod shows."""
    vmi = machine.object()
    meta, status = vmi["metadata"], vmi.get("status") or {}
    phase = _PHASES.get(status.get("phase") or "", "Pending")
    running = phase == "Running"
    pod: Object = {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {
            "name": PREFIX + machine.name,
            "namespace": machine.namespace,
            "uid": machine.uid,
            "creationTimestamp": meta.get("creationTimestamp"),
            "labels": {"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": machine.name},
            "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
            "ownerReferences": [owner_reference(vmi)],
        },
        "spec": {
            "nodeName": status.get("nodeName") or "",
            "containers": [{"name": CONTAINER, "image": "serial-console"}],
        },
        "status": {
            "phase": phase,
            "containerStatuses": [
                {
                    "name": CONTAINER,
                    "image": "serial-console",
                    "imageID": "",
                    "ready": running,
                    "restartCount": 0,
                    "state": {"running": {}} if running else {},
                }
            ],
        },
    }
    return snapshot(PODS, pod, machine.revision)
