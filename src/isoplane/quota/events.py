"""What the engine is told. Values only: what happened, or what somebody asks for, as a shell sees it.

A shell projects its objects (:class:`~isoplane.workload.shape.Claim`, with the accounting mode that ``Engine.accounting`` names)
and says what it knows; what follows from it is the engine's to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoplane.quota.model import Amounts, Cohort, Limits, Waiting
from isoplane.workload.shape import Claim


@dataclass(frozen=True, slots=True)
class Requested:
    """A workload wants in: it is being created, or exists gated and was not seen before."""

    demand: Claim
    queues: bool = False
    """Whether it waits where it does not fit, rather than being refused: somebody made it for the tenant."""
    owner: str = ""
    """uid of the controller that made it, where its place may be kept for a successor; '' for none."""
    created: float = 0
    """Its age in the queue; 0: now."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A workload was written: its size, its stage, its gate, or it asks again."""

    demand: Claim
    began: bool = False
    """Whether it began to run with this write."""
    asks_again: bool = False
    """Whether a new decision is asked for (the retry annotation has a new value)."""
    trusted: bool = True
    """Whether the writer may say that a workload has ended: a node, or the plane itself."""
    successor_of: str = ""
    """uid of the owner that stops it only to start it again; '' for any other."""


@dataclass(frozen=True, slots=True)
class Terminating:
    """A workload was marked for deletion, by somebody other than this engine."""

    tenant: str
    uid: str
    successor_of: str = ""
    """As in :class:`Changed`."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A workload's object is gone."""

    tenant: str
    uid: str
    successor_of: str = ""
    """As in :class:`Changed`: what it takes is kept for the next instance."""


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """An object that is no workload is being created; quotas on the number of its kind count it."""

    tenant: str
    id: str
    """``configmap/ns/name``."""
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class ObjectRemoved:
    """An object that is no workload is gone."""

    tenant: str
    amounts: Amounts


@dataclass(frozen=True, slots=True)
class LimitsChanged:
    """The quotas or the policy of a tenant were written. ``limits``: what they say now; None: there are none any more."""

    tenant: str
    limits: Limits | None
    verify: bool = False
    """At a start: compare the books with the objects even if nothing changed, and report what was wrong as ``Repaired``."""


@dataclass(frozen=True, slots=True)
class CohortsChanged:
    """A cohort, or a node that gives it capacity, changed. ``cohorts``: all that there are."""

    cohorts: tuple[Cohort, ...]
    verify: bool = False
    """As in :class:`LimitsChanged`."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened in a tenant but time: reservations may have ended, minimum run times may be over."""

    tenant: str


@dataclass(frozen=True, slots=True)
class NotWritten:
    """A shell could not carry out a release or a reservation: the object could not be written. It keeps its place."""

    pending: Waiting
    """The place it had before."""


Event = (
    Requested
    | Changed
    | Terminating
    | Removed
    | ObjectCreated
    | ObjectRemoved
    | LimitsChanged
    | CohortsChanged
    | TimePassed
    | NotWritten
)
