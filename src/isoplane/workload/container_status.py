"""The status of one container of a Pod: waiting, running or terminated, and how it ended before.

A part of the Pod adapter.  Source: k8s.io/api/core/v1 ContainerStatus and the kubelet's convertStatusToAPIStatus.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects import metadata
from isoplane.workload.adapters import Report, Waiting
from isoplane.workload.health import Health
from isoplane.workload.shape import UnitObserved, UnitState


def container_status(
    container: Mapping[str, Any], old: Mapping[str, Any] | None, report: Report, *, init: bool
) -> dict[str, Any]:
    """As of now; ``old`` is what was told before."""
    name = container["name"]
    seen = report.observed.unit(name) if report.observed else UnitObserved(name, UnitState.ABSENT)
    health = report.health.get(name)
    waiting = report.waiting.get(name)
    old = old or {}
    status: dict[str, Any] = {
        "name": name,
        "image": container.get("image") or "",
        "imageID": seen.image_id or old.get("imageID") or "",
        "restartCount": max(seen.attempt, int(old.get("restartCount") or 0)),
        "ready": False,
        "started": False,
        "state": {},
        "lastState": dict(old.get("lastState") or {}),
    }
    if seen.handle:
        status["containerID"] = seen.handle
    elif old.get("containerID"):
        status["containerID"] = old["containerID"]
    _unit_state(status, seen, health, waiting, old, init)
    return status


def _unit_state(
    status: dict[str, Any],
    seen: UnitObserved,
    health: Health | None,
    waiting: Waiting | None,
    old: Mapping[str, Any],
    init: bool,
) -> None:
    ended_before = (old.get("state") or {}).get("terminated")
    if seen.before is not None:
        status["lastState"] = {"terminated": _terminated(seen.before)}
    if seen.state in (UnitState.RUNNING, UnitState.PAUSED) and not seen.starting:
        status["state"] = {"running": {"startedAt": metadata.rfc3339(seen.started_at)}}
        status["started"] = health.started if health else True
        status["ready"] = health.ready if health else True
        if ended_before and seen.attempt > int(old.get("restartCount") or 0):
            status["lastState"] = {"terminated": ended_before}
    elif seen.state is UnitState.EXITED:
        ended = _terminated(seen)
        if waiting is not None:
            status["state"] = {"waiting": _waiting(waiting)}
            status["lastState"] = {"terminated": ended}
        else:
            status["state"] = {"terminated": ended}
            status["ready"] = init and seen.exit_code == 0
    else:
        status["state"] = {"waiting": _waiting(waiting or Waiting("ContainerCreating"))}
        if ended_before:
            status["lastState"] = {"terminated": ended_before}


def _waiting(waiting: Waiting) -> dict[str, str]:
    return {"reason": waiting.reason, **({"message": waiting.message} if waiting.message else {})}


def _terminated(seen: UnitObserved) -> dict[str, Any]:
    ended: dict[str, Any] = {
        "exitCode": seen.exit_code if seen.exit_code is not None else (0 if seen.graceful else 137),
        "reason": seen.reason or ("Completed" if seen.exit_code == 0 else "Error"),
        "startedAt": metadata.rfc3339(seen.started_at) if seen.started_at else None,
        "finishedAt": metadata.rfc3339(seen.finished_at) if seen.finished_at else None,
    }
    if seen.signal:
        ended["signal"] = seen.signal
    if seen.message:
        ended["message"] = seen.message
    if seen.handle:
        ended["containerID"] = seen.handle
    return ended
