"""What a unit is doing, read from the disk and the kernel alone, so that any process can tell at any time.

final.json                            exited; how, was settled before
exits/<id> (by conmon)                exited; settle it
conmon lives or the process does, and
    the runtime's start line (exec.fifo) is still there     created
    its cgroup is frozen                                    paused
    else                                                    running
a pid and no process                  exited without a witness: conmon was killed too
a record and nothing else             never started: as if there were no such attempt
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path

from isoplane.node import procfs
from isoplane.node.runtime.oci import cgroups, processes
from isoplane.node.runtime.oci.layout import Attempt, Layout, read_json, write_json
from isoplane.node.runtime.oci.logs import last_lines
from isoplane.workload.shape import ALIVE, UnitObserved, UnitState

_MESSAGE_LIMIT = 4096
_FALLBACK_LIMIT = 2048
_LOST = 255


@dataclass(frozen=True, slots=True)
class Look:
    """One attempt as found. ``record`` is empty for an attempt of which there is no (whole) record."""

    attempt: Attempt
    state: UnitState
    record: dict[str, object]
    pid: int = 0
    supervised: bool = False
    """Whether its conmon lives."""


def has_started(layout: Layout, container_id: str) -> bool:
    """Whether a created container was let go: the low-level runtimes remove the FIFO at which it waited."""
    state = layout.state / container_id
    return state.exists() and not (state / "exec.fifo").exists()


def look(layout: Layout, attempt: Attempt) -> Look:
    """The state of one attempt. Reads only."""
    record = read_json(attempt.record)
    if record is None:
        return Look(attempt, UnitState.ABSENT, {})
    container_id = str(record.get("id"))
    if attempt.final.exists() or (layout.exits / container_id).exists():
        return Look(attempt, UnitState.EXITED, record)
    supervised = processes.conmon_lives(attempt.lock, attempt.conmon_pid, container_id)
    process = read_json(attempt.process) or {}
    pid = int(process.get("pid") or 0) or procfs.read_pid(attempt.pid)
    if not supervised:
        # conmon writes the exit code before it goes: look again after seeing it gone.
        if (layout.exits / container_id).exists():
            return Look(attempt, UnitState.EXITED, record)
        if not pid:
            return Look(attempt, UnitState.ABSENT, record)
        if not process or not procfs.alive(pid, int(process.get("startTicks") or 0)):
            return Look(attempt, UnitState.EXITED, record, pid)
    if not pid or not has_started(layout, container_id):
        return Look(attempt, UnitState.CREATED, record, pid, supervised)
    state = UnitState.PAUSED if cgroups.frozen(str(record.get("cgroup"))) else UnitState.RUNNING
    return Look(attempt, state, record, pid, supervised)


def hook_state(found: Look) -> tuple[bool, str]:
    """(whether the postStart hook of a living attempt is still to end, why it failed or '')."""
    if found.state not in ALIVE or not found.record.get("postStart"):
        return False, ""
    ended = read_json(found.attempt.hooked)
    return ended is None, str((ended or {}).get("failure") or "")


def observe_unit(layout: Layout, uid: str, unit: str) -> UnitObserved:
    """The unit as its latest attempt that came to anything has it."""
    looks = (look(layout, attempt) for attempt in reversed(layout.attempts(uid, unit)))
    found = list(itertools.islice((one for one in looks if one.state is not UnitState.ABSENT), 2))
    if not found:
        return UnitObserved(unit, UnitState.ABSENT)
    latest = _described(layout, found[0])
    if len(found) > 1 and found[1].state is UnitState.EXITED:
        return replace(latest, before=_described(layout, found[1]))
    return latest


def _described(layout: Layout, found: Look) -> UnitObserved:
    attempt, record = found.attempt, found.record
    final = settle(layout, found) if found.state is UnitState.EXITED else {}
    pending, failure = hook_state(found)
    return UnitObserved(
        name=attempt.unit,
        state=found.state,
        attempt=attempt.number,
        handle=f"{record.get('runtime')}://{record.get('id')}",
        pid=found.pid if found.state is not UnitState.EXITED else 0,
        started_at=_modified(attempt.pid),
        finished_at=float(str(final.get("finishedAt") or 0)),
        exit_code=int(str(final["exitCode"])) if final else None,
        reason=str(final.get("reason") or ""),
        message=str(final.get("message") or ""),
        graceful=bool(final) and final.get("exitCode") == 0,
        image=str(record.get("asked") or ""),
        hook_pending=pending,
        hook_failure=failure,
        image_id=str(record.get("imageID") or ""),
    )


def settle(layout: Layout, found: Look) -> dict[str, object]:
    """How an exited attempt ended, written down once: the cgroup that knows of an OOM kill will be removed."""
    attempt, record = found.attempt, found.record
    known = read_json(attempt.final)
    if known is not None:
        return known
    container_id = str(record.get("id"))
    path = layout.exits / container_id
    message = _message(attempt, record)
    try:
        code = int(path.read_text().strip() or _LOST)
        finished = path.stat().st_mtime
    except (OSError, ValueError):
        code, finished = _LOST, _modified(attempt.pid)
        message = message or "the container was lost: neither it nor its supervisor (conmon) was there any more"
        reason = "ContainerStatusUnknown"
    else:
        killed = code != 0 and (
            cgroups.oom_kills(str(record.get("cgroup"))) > 0 or (attempt.directory / "oom").exists()
        )
        reason = "OOMKilled" if killed else "Completed" if code == 0 else "Error"
    if not message and code != 0 and record.get("logFallback"):
        message = last_lines(attempt.log, 80, _FALLBACK_LIMIT)
    final: dict[str, object] = {"exitCode": code, "reason": reason, "message": message, "finishedAt": finished}
    # On a full disk it is worked out again each time, for as long as the cgroup is there.
    with contextlib.suppress(OSError):
        write_json(attempt.final, final)
    return final


def _message(attempt: Attempt, record: dict[str, object]) -> str:
    """What the container left at its terminationMessagePath. It owns that file: read little, follow nothing."""
    path = attempt.message if attempt.message.exists() else attempt.earlier_message
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(_MESSAGE_LIMIT).decode(errors="replace")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
