"""What can happen to a machine, and what may follow from it: the alphabet of machine_state.py. Pure values.

``at`` are POSIX seconds; ``now`` is any steady clock's.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoplane.node.runtime.qemu.records import End, Run


@dataclass(frozen=True, slots=True)
class Launch:
    run: Run


@dataclass(frozen=True, slots=True)
class Spawned:
    pid: int
    limited: bool


@dataclass(frozen=True, slots=True)
class Launched:
    started_at: float


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    pass


@dataclass(frozen=True, slots=True)
class Answered:
    status: str
    at: float


@dataclass(frozen=True, slots=True)
class StatusRead:
    status: str
    at: float


@dataclass(frozen=True, slots=True)
class GuestShutdown:
    at: float


@dataclass(frozen=True, slots=True)
class GuestPanicked:
    at: float


@dataclass(frozen=True, slots=True)
class GuestReset:
    pass


@dataclass(frozen=True, slots=True)
class Stopped:
    pass


@dataclass(frozen=True, slots=True)
class Resumed:
    pass


@dataclass(frozen=True, slots=True)
class PowerButton:
    pass


@dataclass(frozen=True, slots=True)
class Pause:
    pass


@dataclass(frozen=True, slots=True)
class Resume:
    now: float


@dataclass(frozen=True, slots=True)
class Kill:
    at: float


@dataclass(frozen=True, slots=True)
class MonitorLost:
    pass


@dataclass(frozen=True, slots=True)
class ProcessGone:
    """``signal``: what killed it, 0 when none did or nobody saw; ``words``: the last that it said itself."""

    at: float
    signal: int = 0
    out_of_memory: bool = False
    words: str = ""


@dataclass(frozen=True, slots=True)
class NobodyThere:
    at: float


Event = (
    Launch | Spawned | Launched | LaunchFailed | Answered | StatusRead | GuestShutdown | GuestPanicked | GuestReset | Stopped
    | Resumed | PowerButton | Pause | Resume | Kill | MonitorLost | ProcessGone | NobodyThere
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Save:
    """Write a record down."""

    record: Run | End


@dataclass(frozen=True, slots=True)
class Command:
    """Tell the monitor."""

    name: str


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Ask the monitor for the status: a StatusRead follows."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Ask QEMU to flush and leave, and insist after a while: a ProcessGone follows."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Come back to the monitor for as long as the process lives: an Answered may follow."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Say that the machine has changed by itself."""


Effect = Save | Command | AskStatus | Quit | Reconnect | Tell
