"""The values that a quota decision is made of. No behaviour beyond arithmetic; see decide.py for the rules.

Letters as in the invariants: U used, R held, E being given back by what is leaving, H a hard limit, N guaranteed.
All amounts are integers by quota resource name (``requests.cpu`` in millicores, ``count/pods`` in objects).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from isoplane.workload.accounting import DEFAULT_ACCOUNTING, Accounting

Amounts = Mapping[str, int]

_STORED = "count/"

NEVER = "Never"
"""The preemptionPolicy of a workload for which nobody leaves."""
DEFAULT_MAX_PENDING = 10_000
DEFAULT_MAX_GRACE = 300


def counts_stored(resource: str) -> bool:
    """Whether a quota resource counts objects as long as they are stored, admitted or not."""
    return resource.startswith(_STORED)


def stored(amounts: Amounts) -> dict[str, int]:
    """What a workload takes merely by being stored."""
    return {name: value for name, value in amounts.items() if counts_stored(name)}


@dataclass(frozen=True, slots=True)
class ScopeTerm:
    """One condition of a quota's scopes or scopeSelector. ``operator``: In, NotIn, Exists, DoesNotExist."""

    scope: str
    operator: str = "Exists"
    values: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Quota:
    """A ResourceQuota: its hard limits, and which workloads it counts (all terms must match)."""

    name: str
    hard: Amounts = field(hash=False)
    scopes: tuple[ScopeTerm, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A namespace's QuotaPolicy. Without one, nothing is ever evicted for quota and there is no cohort."""

    threshold: int | None = None
    """evictionThreshold: a request evicts only when its priority is strictly above."""
    min_run: float = 0
    """minRunSeconds: what was admitted (or began to run) less long ago is nobody's victim."""
    guaranteed: Amounts = field(default_factory=dict, hash=False)
    """N: never lent beyond recall, never taken by another tenant."""
    borrowing: Amounts = field(default_factory=dict, hash=False)
    """How far above N it may go; a resource not named has no such limit."""
    lending: Amounts = field(default_factory=dict, hash=False)
    """How much of an unused N others may borrow; a resource not named is lent in full."""
    migration_reserve: Amounts = field(default_factory=dict, hash=False)
    """Kept free of every quota for the targets of live migrations."""
    cohort: str = ""
    accounting: Accounting = DEFAULT_ACCOUNTING
    max_pending: int = DEFAULT_MAX_PENDING
    """How many workloads may wait; a further one is refused, whoever made it."""

    def reserve(self, resource: str) -> int:
        """The part of N that is kept even while unused."""
        lent = self.lending.get(resource)
        return 0 if lent is None else max(0, self.guaranteed.get(resource, 0) - lent)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the quotas and the policy of a tenant say."""

    quotas: tuple[Quota, ...] = ()
    policy: Policy = field(default_factory=Policy)

    @property
    def counted(self) -> frozenset[str]:
        """Every name that some quota limits."""
        return frozenset(name for quota in self.quotas for name in quota.hard)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Tenants that share capacity: the nodes' allocatable, times the overcommit ratio. The root quota node."""

    name: str
    capacity: Amounts
    max_grace: int = DEFAULT_MAX_GRACE
    """Seconds that a victim of another tenant has to end at most, whatever its own grace period."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A workload in the ledger: what it takes, and all that a victim search wants to know of it. Times in POSIX seconds."""

    uid: str
    id: str
    """``pod/ns/name`` or ``vmi/ns/name``."""
    tenant: str
    amounts: Amounts
    priority: int = 0
    priority_class: str = ""
    scopes: frozenset[str] = frozenset()
    cost: int = 1
    created: float = 0
    since: float = 0
    """When it was admitted, then when it began to run: minRunSeconds counts from here."""
    evicting: bool = False
    """Whether it is on its way out, so that what it takes will come back."""
    stuck: bool = False
    """Whether it should have been gone by now: nobody counts on what it takes any more."""
    finished: bool = False
    """Whether it ended and only its object still counts."""
    migrating: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A workload that wants in."""

    charge: Charge
    owned: bool = False
    """Whether an owner created it for the tenant, so that it waits rather than being refused."""
    preempts: bool = True
    """False under preemptionPolicy Never."""
    unspecified: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """``limits.cpu`` → the containers that leave it open."""
    holding: bool = False
    """Whether the ledger already holds room for it."""
    gated: bool = False
    """Whether it waits already."""
    may_evict: bool = True
    """False once its plans are used up, or when only a free place may be taken."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A Gated workload's place in the ledger."""

    charge: Charge
    held: bool = False
    """Whether room is kept for it (R); otherwise it only has its place in line."""
    victims: tuple[str, ...] = ()
    """ids of those who leave for it."""
    since: float = 0
    expires: float = 0
    """When a hold that was not converted ends; 0 for none."""
    plans: int = 0
    """How many times others were evicted for it: bounded, so that nobody thrashes."""
    passed: int = 0
    """How many were admitted past it while it was first in line."""
    preempts: bool = True

    @property
    def order(self) -> tuple[int, float, str]:
        """Its place in line: priority, then age."""
        return (-self.charge.priority, self.charge.created, self.charge.uid)


@dataclass(slots=True)
class Totals:
    """What is used (U), held (R) and being given back (E) of one node."""

    used: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    evicting: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Totals:
        return Totals(dict(self.used), dict(self.held), dict(self.evicting))

    def same(self, other: Totals) -> bool:
        """Whether both tell the same; an entry of zero is no entry."""
        return all(
            {k: v for k, v in mine.items() if v} == {k: v for k, v in theirs.items() if v}
            for mine, theirs in (
                (self.used, other.used),
                (self.held, other.held),
                (self.evicting, other.evicting),
            )
        )

    def soft(self, resource: str) -> int:
        """U − E + R: what is taken once everybody leaving has left and everybody expected has come."""
        return self.used.get(resource, 0) - self.evicting.get(resource, 0) + self.held.get(resource, 0)


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget: how many of those it matches may still be disrupted."""

    name: str
    members: frozenset[str]
    """uids."""
    allowed: int


class Line(NamedTuple):
    """One limit that an ask touches: a resource of a quota, of a tenant's borrowing, or of the cohort."""

    node: str
    """``quota/NAME``, ``borrowing/TENANT`` or ``cohort/NAME``."""
    resource: str
    need: int
    limit: int
    used: int
    held: int
    evicting: int
    short_now: int
    """How much is missing as things are; not positive when it fits."""
    short: int
    """How much would be missing once everybody leaving has left and every hold is converted."""
    ahead: int = 0
    """What is kept for the first in line, which was passed often enough."""
    reserved: int = 0
    """What is kept for migrations."""

    @property
    def name(self) -> str:
        return self.node.partition("/")[2]

    @property
    def shared(self) -> bool:
        """Whether other tenants take of it too."""
        return self.node.startswith("cohort/")


@dataclass(frozen=True, slots=True)
class Victim:
    """Who leaves, and by which rule."""

    charge: Charge
    rule: str
    """``in-tenant``, ``reclaim`` or ``priority``."""


@dataclass(frozen=True, slots=True)
class Spared:
    """Who could not be evicted, and why not. ``id`` '' stands for everybody: the request itself may evict nobody."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Admit:
    """It fits: charge it."""

    rule: str
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """It must wait. With ``held``, room is kept for it and ``victims`` leave; otherwise it stands in line."""

    rule: str
    lines: tuple[Line, ...]
    held: bool = False
    victims: tuple[Victim, ...] = ()
    bumped: tuple[str, ...] = ()
    """uids of lower-priority waiters whose hold it takes over."""
    spared: tuple[Spared, ...] = ()


@dataclass(frozen=True, slots=True)
class Deny:
    """It is refused: the lines that are short, or what a quota insists on and the workload leaves open."""

    rule: str
    lines: tuple[Line, ...] = ()
    unspecified: tuple[tuple[str, Mapping[str, tuple[str, ...]]], ...] = ()
    """(quota, ``limits.cpu`` → containers)."""
    spared: tuple[Spared, ...] = ()


Decision = Admit | Wait | Deny
