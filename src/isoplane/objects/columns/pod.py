"""The columns of a Pod. The status column has rules of its own, kept here as kubectl's printer has them."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, NONE, Cell, Column, Printer, age, condition_status, since
from isoplane.objects.metadata import Object
from isoplane.objects.phase import ENDED

_FINISHED = {
    "Succeeded": {
        "type": "Completed", "status": "True", "reason": "Succeeded", "message": "The pod has completed successfully.",
    },
    "Failed": {"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."},
}  # fmt: skip

COLUMNS = (
    NAME,
    Column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    Column("Status", "The aggregate status of the containers in this pod."),
    Column("Restarts", "The number of times the containers in this pod have been restarted and when the last container "
           "in this pod has restarted."),
    AGE,
    Column("IP", "IP address allocated to the pod.", wide=True),
    Column("Node", "The node that the pod is placed on.", wide=True),
    Column("Nominated Node", "The node where lower-priority pods are preempted for this one.", wide=True),
    Column("Readiness Gates", "The readiness gates that are true, of all.", wide=True),
)  # fmt: skip


class _Summary:
    """Counts over a Pod's containers, and the reason that its status column shows."""

    def __init__(self, pod: Object) -> None:
        self.pod = pod
        self.spec: dict[str, Any] = pod.get("spec") or {}
        self.status: dict[str, Any] = pod.get("status") or {}
        self.sidecars = {
            c.get("name") for c in self.spec.get("initContainers") or () if c.get("restartPolicy") == "Always"
        }
        self.total = len(self.spec.get("containers") or ()) + len(self.sidecars)
        self.ready = 0
        self.restarts, self.last_restart = 0, ""
        self.reason = self.status.get("reason") or self.status.get("phase") or ""
        scheduled = metadata.condition(pod, "PodScheduled") or {}
        if scheduled.get("reason") == "SchedulingGated":
            self.reason = "SchedulingGated"
        initializing = self._init_containers()
        if not initializing or condition_status(pod, "Initialized") == "True":
            self._containers()
        self._deletion()

    def _init_containers(self) -> bool:
        """Whether one of them is still on its way; then the reason says which and how."""
        for index, status in enumerate(self.status.get("initContainerStatuses") or ()):
            self._count(status)
            sidecar = status.get("name") in self.sidecars
            state = status.get("state") or {}
            ended, waiting = state.get("terminated"), state.get("waiting") or {}
            if ended is not None and not ended.get("exitCode"):
                continue
            if sidecar and status.get("started"):
                self.ready += bool(status.get("ready"))
                continue
            if ended is not None:
                self.reason = "Init:" + _ended(ended)
            elif waiting.get("reason") not in (None, "", "PodInitializing"):
                self.reason = f"Init:{waiting['reason']}"
            else:
                self.reason = f"Init:{index}/{len(self.spec.get('initContainers') or ())}"
            return True
        return False

    def _containers(self) -> None:
        self.restarts, self.last_restart = 0, ""
        for status in self.status.get("initContainerStatuses") or ():
            if status.get("name") in self.sidecars:
                self._count(status)
        running = False
        for status in reversed(self.status.get("containerStatuses") or ()):
            self._count(status)
            state = status.get("state") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated")
            if waiting.get("reason"):
                self.reason = waiting["reason"]
            elif ended is not None:
                self.reason = _ended(ended)
            elif status.get("ready") and state.get("running") is not None:
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            self.reason = "Running" if condition_status(self.pod, "Ready") == "True" else "NotReady"

    def _deletion(self) -> None:
        if not metadata.is_deleting(self.pod):
            return
        if self.status.get("reason") == "NodeLost":
            self.reason = "Unknown"
        elif self.status.get("phase") not in ENDED:
            self.reason = "Terminating"

    def _count(self, status: dict[str, Any]) -> None:
        self.restarts += status.get("restartCount") or 0
        ended = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        self.last_restart = max(self.last_restart, ended)


def _ended(state: dict[str, Any]) -> str:
    if reason := state.get("reason"):
        return str(reason)
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode', 0)}"


def _row(pod: Object, now: float) -> list[Cell]:
    summary = _Summary(pod)
    restarts: str | int = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts = f"{summary.restarts} ({since(summary.last_restart, now)} ago)"
    addresses = summary.status.get("podIPs") or ()
    address = (addresses[0].get("ip") if addresses else summary.status.get("podIP")) or NONE
    gates = [gate.get("conditionType") for gate in summary.spec.get("readinessGates") or ()]
    met = sum(condition_status(pod, str(gate)) == "True" for gate in gates)
    return [
        metadata.name(pod), f"{summary.ready}/{summary.total}", summary.reason, restarts, age(pod, now), address,
        summary.spec.get("nodeName") or NONE, summary.status.get("nominatedNodeName") or NONE,
        f"{met}/{len(gates)}" if gates else NONE,
    ]  # fmt: skip


def _conditions(pod: Object) -> list[dict[str, str]]:
    finished = _FINISHED.get((pod.get("status") or {}).get("phase") or "")
    return [finished] if finished else []


PRINTER = Printer(COLUMNS, _row, _conditions)
