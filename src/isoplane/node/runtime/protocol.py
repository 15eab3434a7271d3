"""CONTRACT: the Runtime protocol, one small seam for containers, machines and their simulation.

A runtime acts and chooses nothing: when to start, stop, restart or kill is decided by ``workload.delta`` (pure).  All methods
are idempotent, for after kill -9 the agent repeats what it cannot know to have finished.  A runtime keeps no state of its
own that a restart could lose: everything it needs to adopt is on disk or in the kernel.  The contract suite in
tests/contract runs against every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from isoplane.client.streams import ExecOptions, ExecSession
from isoplane.workload.eviction import StorageUse
from isoplane.workload.shape import Observed, Unit, Workload


class RuntimeReason(StrEnum):
    """Why a runtime could not do what it was asked, in kubelet's words."""

    ERR_IMAGE_PULL = "ErrImagePull"
    IMAGE_NEVER_PULL = "ErrImageNeverPull"
    INVALID_IMAGE_NAME = "InvalidImageName"
    CREATE_CONFIG = "CreateContainerConfigError"
    CREATE = "CreateContainerError"
    RUN = "RunContainerError"
    SANDBOX = "CreatePodSandboxError"


class RuntimeFailure(Exception):
    """A failed step: ``reason`` for the status, ``message`` for people (what, where, what to do). Retrying is the caller's.

    ``image``: the one that cannot be had, as the workload names it, if that is what failed."""

    def __init__(self, reason: RuntimeReason, message: str, *, image: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.image = image


class ImageStep(StrEnum):
    """How far an image has come that a workload asked for."""

    PRESENT = "present"
    PULLING = "pulling"
    PULLED = "pulled"


@dataclass(frozen=True, slots=True)
class ImageNews:
    """Told while a sandbox is prepared: an image, as the workload names it, was found or is being fetched."""

    step: ImageStep
    image: str
    seconds: float = 0.0
    """How long the pull took."""
    waited: float = 0.0
    """How long this workload waited for it, the time before the pull included."""
    size: int = 0


ImageListener = Callable[[ImageNews], None]


def nobody_listens(news: ImageNews) -> None:
    """The listener where nobody wants to know."""


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """A workload's interface; made by the fabric before ``prepare``. Addresses without prefix length."""

    netns: str = ""
    """Path of the network namespace for a veth, e.g. /run/netns/iso-…; '' for host networking or a tap."""
    tap: str = ""
    """Name of the tap device for a machine; '' otherwise."""
    mac: str = ""
    address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    address6: str = ""
    """Alone on its link: a /128 behind ``gateway6``. '' without IPv6."""
    gateway6: str = ""
    """Link-local, and so the same however the range changes."""
    mtu: int = 1500
    host_interface: str = ""
    ofport: int = 0
    """Its OpenFlow port number on the bridge, and its zone of connection tracking; 0 when it is not on a bridge."""
    uid: str = ""
    """Whose it is; '' where a workload has none of its own (host networking)."""
    namespace: str = ""
    name: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """One a family, IPv4 first."""
        return tuple(one for one in (self.address, self.address6) if one)


@dataclass(frozen=True, slots=True)
class Materials:
    """What a sandbox is made of beyond its own spec: the ConfigMaps and Secrets it refers to, by ``resource.plural/name``."""

    objects: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    network: NetworkInterface = field(default_factory=NetworkInterface)
    node_name: str = ""
    node_addresses: tuple[str, ...] = ()
    """One a family, IPv4 first."""
    on_image: ImageListener = field(default=nobody_listens, compare=False)
    """Hears on the event loop how the images come."""


@dataclass(frozen=True, slots=True)
class ExecResult:
    exit_code: int
    output: bytes


class Runtime(Protocol):
    """Runs the units of workloads. ``uid`` is the workload's; unit names are unique within it."""

    name: str
    reachable: bool
    """Whether its workloads' addresses are real, so that probes are asked over the network."""

    async def start(self) -> None:
        """Make ready: probe the host, create directories, adopt what still runs. Raises RuntimeFailure when impossible."""
        ...

    async def close(self) -> None:
        """Let go of everything and leave the workloads running."""
        ...

    async def prepare(self, workload: Workload, materials: Materials) -> None:
        """Images, root file systems, volumes, disks: everything up to, and not including, the first start."""
        ...

    async def refresh(self, workload: Workload, materials: Materials) -> None:
        """Bring what a prepared sandbox shows of its objects up to them; objects that are absent are not in ``materials``.

        Nothing to do where that is fixed at the start, and where there is no sandbox."""
        ...

    async def start_unit(self, workload: Workload, unit: Unit, attempt: int, materials: Materials) -> None:
        """Start a unit that is absent or exited. A second call with the same ``attempt`` changes nothing."""
        ...

    async def stop_unit(self, uid: str, unit: str) -> None:
        """Ask to end: SIGTERM (or the image's stop signal), or the ACPI power button. Returns at once; may be repeated."""
        ...

    async def kill_unit(self, uid: str, unit: str) -> None:
        """End it now: SIGKILL, or quit the machine."""
        ...

    async def pause_unit(self, uid: str, unit: str, paused: bool) -> None:
        """Freeze or thaw."""
        ...

    async def remove(self, uid: str) -> None:
        """Remove every trace of the sandbox: processes, mounts, directories, cgroups. Logs included."""
        ...

    async def observe(self, uid: str) -> Observed | None:
        """The sandbox as it is now, or None when the host has no trace of it."""
        ...

    async def observe_all(self) -> Sequence[Observed]:
        """Every sandbox of this runtime on this host, those of earlier processes included."""
        ...

    async def storage(self, workload: Workload) -> StorageUse:
        """What the sandbox takes of the disk now; nothing for one that is not there. Raises RuntimeFailure."""
        ...

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call ``callback(uid)`` on the event loop whenever a unit changed by itself (exited, powered off, crashed)."""
        ...

    async def exec(self, uid: str, unit: str, command: Sequence[str], timeout: float) -> ExecResult:
        """Run a command inside a unit and collect its output; for probes. Raises RuntimeFailure when it cannot run."""
        ...

    def logs(
        self,
        uid: str,
        unit: str,
        *,
        follow: bool,
        tail_lines: int | None,
        since: float | None,
        previous: bool,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        """The unit's output (stdout and stderr, or the serial console) in whole lines. ``since`` in POSIX seconds."""
        ...


@runtime_checkable
class Interactive(Protocol):
    """A runtime by which a client of the API can run commands with their input and output connected."""

    async def open_exec(self, uid: str, unit: str, options: ExecOptions) -> ExecSession:
        """Raises RuntimeFailure when the command could not be started."""
        ...


@runtime_checkable
class GuestAgent(Protocol):
    """A runtime whose units have an agent inside that can be asked whether it lives (guestAgentPing)."""

    async def ping(self, uid: str, unit: str, timeout: float) -> None:
        """Return if it answers. Raises RuntimeFailure."""
        ...
