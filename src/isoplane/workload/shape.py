"""CONTRACT: the shape of a workload, whatever its kind.

A workload is a *sandbox* (an address, volumes, an identity) in which one or more *units* run.  A Pod's units are its init
containers and containers; a VirtualMachineInstance has one unit, the machine.  Quota, placement, lifecycle, policy, the
controller and the runtimes know only this.  What only one runtime can read (an image, a kernel, a command line) travels
in ``Unit.recipe`` and ``Workload.volumes``, opaque to everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from isoplane.objects.kinds import Resource
from isoplane.workload.networked import Port


class Stage(StrEnum):
    """Where a workload stands; each kind projects it on its own upstream phase. See lifecycle.py for the table."""

    ACCEPTED = "Accepted"
    GATED = "Gated"
    PLACED = "Placed"
    PREPARING = "Preparing"
    RUNNING = "Running"
    STOPPING = "Stopping"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class RunState(StrEnum):
    """What the owner of a workload wants of it."""

    RUN = "Run"
    PAUSE = "Pause"
    STOP = "Stop"


class RestartRule(StrEnum):
    """When a unit that ended is started again inside the same sandbox."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class UnitRole(StrEnum):
    """How a unit takes part: ``INIT`` runs to its end before the next starts; ``SIDECAR`` is an init that keeps running."""

    INIT = "Init"
    SIDECAR = "Sidecar"
    MAIN = "Main"


class InterfaceType(StrEnum):
    """What a workload's network interface is. Whoever needs to know more of it asks by one of the properties."""

    VETH = "veth"
    TAP = "tap"
    HOST = "host"

    @property
    def own(self) -> bool:
        """Whether the workload has an interface, and so an address and a port that policies guard, of its own."""
        return self is not InterfaceType.HOST

    @property
    def set_up_by_guest(self) -> bool:
        """Whether who has it sets it up (by DHCP and what routers say) and talks to it from the first frame on."""
        return self is InterfaceType.TAP


@dataclass(frozen=True, slots=True)
class Probe:
    """A health question asked of a unit. Exactly one of ``command``, ``http``, ``grpc``, ``tcp_port``, ``guest_ping`` is set.
    Seconds."""

    command: tuple[str, ...] = ()
    http: HttpGet | None = None
    grpc: GrpcHealth | None = None
    tcp_port: int | None = None
    tcp_host: str = ""
    """'' means the workload's own address."""
    guest_ping: bool = False
    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_seconds: int | None = None
    """What a unit has to end after this probe gave up on it; None: the workload's."""


@dataclass(frozen=True, slots=True)
class HttpGet:
    """An HTTP question: a 2xx or 3xx answer is healthy. ``host`` '' means the workload's own address."""

    port: int
    path: str = "/"
    scheme: str = "HTTP"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class GrpcHealth:
    """A question by grpc.health.v1, at the workload's own address: whether a service ('': the server as a whole) serves."""

    port: int
    service: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing that runs. ``recipe`` is read by the workload's own runtime only (a container or a domain, as declared)."""

    name: str
    role: UnitRole = UnitRole.MAIN
    restart: RestartRule = RestartRule.ALWAYS
    image: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)
    cpu_limit: int = 0
    """Millicores; 0 is unlimited."""
    memory_limit: int = 0
    """Bytes; 0 is unlimited."""
    cpu_request: int = 0
    memory_request: int = 0
    storage_limit: int = 0
    """Bytes of the node's disk; 0 is unlimited."""
    start_hook: bool = False
    """Whether something is to happen right after its start, before which it does not count as started."""
    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """Another object that a workload needs before it can start: a ConfigMap or a Secret of its namespace."""

    resource: Resource
    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a quota asks of a workload: the part of the shape that admission needs of every write, cheap to project.

    CPU in millicores, memory in bytes.
    """

    resource: Resource
    namespace: str
    name: str
    uid: str
    created: str
    """metadata.creationTimestamp."""
    priority: int
    priority_class: str
    preemption_policy: str
    """PreemptLowerPriority or Never."""
    request: Mapping[str, int]
    """What it takes of a node and of a quota: resource name → amount (cpu in millicores)."""
    limits: Mapping[str, int]
    disruption_cost: int
    """Stopping a Pod costs 1, a VM 10: the cheaper victim goes first among equals."""
    gates: tuple[str, ...]
    """Scheduling gates that hold it back, e.g. ``isoplane.io/quota``."""
    stage: Stage
    """The stage its status tells."""
    deleting: bool
    owned_by_tenant: bool
    """Whether an owner created it for the tenant, so that it waits for quota rather than being refused."""
    scopes: frozenset[str] = frozenset()
    """The ResourceQuota scopes it is in (NotTerminating, BestEffort…), PriorityClass aside."""
    unspecified: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """``limits.cpu`` → the units that leave it open, for quotas that insist on it."""
    guest: Mapping[str, int] = field(default_factory=dict, hash=False)
    """What the guest of a machine sees, whatever it costs to run it: cpu (its vCPUs, in millicores) and memory; else empty."""
    overhead: Mapping[str, int] = field(default_factory=dict, hash=False)
    """The part of a machine's request that running its guest takes beside what its author asks for; else empty."""
    migrating: bool = False
    """Whether it is moving between nodes: never a victim meanwhile."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def id(self) -> str:
        """``pod/ns/name`` or ``vmi/ns/name``: unambiguous among kinds, short enough for people."""
        return f"{self.resource.short_names[0] if self.resource.custom else self.resource.singular}/{self.key}"

    @property
    def finished(self) -> bool:
        return self.stage in (Stage.SUCCEEDED, Stage.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload(Claim):
    """A Pod or a VirtualMachineInstance, as everything but its adapter sees it."""

    generation: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    desired: RunState
    grace_seconds: int
    """From deletionGracePeriodSeconds once deleting, else terminationGracePeriodSeconds."""
    stop_deadline: float | None
    """POSIX seconds at which a stopping workload is killed; None while it is not being stopped."""
    restart: RestartRule
    graceful_resend: float
    """Seconds after which a graceful stop is asked for again (a booting guest misses the button); 0 asks once."""

    runtime: str
    """Which runtime runs it: ``oci`` or ``qemu``."""
    interface: InterfaceType
    units: tuple[Unit, ...]
    volumes: tuple[Mapping[str, Any], ...]
    references: tuple[Reference, ...]
    ports: tuple[Port, ...]
    hostname: str
    service_account: str

    node: str
    """The node it is bound to; '' while it is not placed."""
    node_selector: Mapping[str, str]
    transitions: Mapping[str, float]
    """Stage → POSIX seconds at which it was first reached, as recorded on the object."""
    addresses: tuple[str, ...]
    """What its status tells, one a family, the primary first; nothing before it has any."""

    exposed: tuple[tuple[str, int], ...] | None = None
    """(protocol, port): all that its interface lets in from outside; None: whatever policies let in."""
    cpu_limit: int = 0
    """Millicores that all its units together may use; 0: what each may use alone."""
    memory_limit: int = 0
    """Bytes, likewise."""
    expires_at: float | None = None
    """POSIX seconds after which it may not run on, and has failed; None: it may for ever."""
    tolerations: tuple[Mapping[str, Any], ...] = ()
    """Which taints of a node it bears, as declared (core/v1 Toleration)."""
    node_affinity: tuple[Mapping[str, Any], ...] = ()
    """nodeSelectorTerms of which a node has to match one; empty: any node."""
    scheduler: str = ""
    """Who places it; '' and default-scheduler: isoplane."""
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Its spec as declared, for what concerns the whole sandbox (a Pod's securityContext, hostAliases, dnsPolicy…); read by
    its own runtime only."""

    @property
    def address(self) -> str:
        """The primary address its status tells; '' before it has one."""
        return self.addresses[0] if self.addresses else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a node ends a workload that would go on by itself: it has failed, for a reason in the kubelet's words."""

    reason: str
    message: str


class UnitState(StrEnum):
    """What a runtime sees of one unit."""

    ABSENT = "Absent"
    CREATED = "Created"
    RUNNING = "Running"
    PAUSED = "Paused"
    EXITED = "Exited"


ALIVE = (UnitState.RUNNING, UnitState.PAUSED, UnitState.CREATED)
"""The states of a unit that has something to be stopped."""


@dataclass(frozen=True, slots=True)
class UnitObserved:
    """One unit as its runtime sees it. Times are POSIX seconds; 0 when unknown."""

    name: str
    state: UnitState
    attempt: int = 0
    """How often it was started again in this sandbox: 0 for the first start."""
    handle: str = ""
    """The runtime's own identifier, e.g. ``runc://<id>`` or ``qemu://<pid>``."""
    pid: int = 0
    started_at: float = 0
    finished_at: float = 0
    exit_code: int | None = None
    signal: int = 0
    reason: str = ""
    """Completed, Error, OOMKilled, GuestShutdown, GuestPanicked, Destroyed…"""
    message: str = ""
    graceful: bool = False
    """Whether the unit ended itself after being asked, or by its own will (a guest that powered off)."""
    image: str = ""
    """What its unit named as image when it was started; '' where that cannot change."""
    image_id: str = ""
    before: UnitObserved | None = None
    """How its attempt before this one ended, where the runtime still knows."""
    hook_pending: bool = False
    """Whether what is to happen right after its start (a postStart hook) goes on still: until then it has not started."""
    hook_failure: str = ""
    """Why that failed; '' when it did not. Such a unit is ended and, by its rule, started again."""
    details: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What only the kind's adapter projects, e.g. {"accelerator": "tcg"}."""

    @property
    def starting(self) -> bool:
        """Whether it has a process and does not count as started: created only, or held by its hook."""
        return self.state is UnitState.CREATED or (
            self.state in ALIVE and (self.hook_pending or bool(self.hook_failure))
        )


@dataclass(frozen=True, slots=True)
class Observed:
    """One sandbox as the host has it: the actual state that the controller compares with a Workload."""

    uid: str
    namespace: str
    name: str
    prepared: bool
    """Whether volumes, root file systems and network are in place, so that units can be started."""
    units: Mapping[str, UnitObserved]
    addresses: tuple[str, ...] = ()

    def unit(self, name: str) -> UnitObserved:
        return self.units.get(name) or UnitObserved(name, UnitState.ABSENT)
