"""What the engine wants done. A shell carries each out, in this order, and chooses nothing.

The books are changed already when an effect is returned; an effect is what the objects must be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isoplane.quota.audit import Entry
from isoplane.quota.model import Amounts, Charge, Victim, Waiting


@dataclass(frozen=True, slots=True)
class Admit:
    """The workload of the event may run: take its gate off, if it bears it (``gated``)."""

    charge: Charge
    gated: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """A workload must wait: set its gate (or keep it), and say in its status what it waits for."""

    pending: Waiting
    message: str
    entry: Entry | None = None
    """To be recorded once it is carried out."""

    @property
    def charge(self) -> Charge:
        return self.pending.charge


@dataclass(frozen=True, slots=True)
class Release:
    """A workload that waits may run: take its gate off, record ``entry``, and notify with ``message``.

    Where its object cannot be written, tell the engine so (:class:`~isoplane.quota.events.NotWritten`).
    """

    pending: Waiting
    message: str
    entry: Entry

    @property
    def charge(self) -> Charge:
        return self.pending.charge


@dataclass(frozen=True, slots=True)
class Refuse:
    """The event must not happen. Nothing else of it may, but what is recorded."""

    message: str
    quota: bool = True
    """Whether a limit refuses it; False: it is forbidden, whatever the limits."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """A victim leaves: mark it (condition DisruptionTarget, with ``message``), notify it, and delete it gracefully.

    Its budgets are spent and its departure is known already; what is new is only if it is gone at once
    (:class:`~isoplane.quota.events.Removed`).
    """

    victim: Victim
    preemptor: Charge
    """For whom; another tenant's is not to be named to the victim's (``message`` does not)."""
    message: str
    grace: int
    """Seconds it has to end."""

    @property
    def charge(self) -> Charge:
        return self.victim.charge


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell people by an Event on the workload's object."""

    charge: Charge
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Warn:
    """Tell whoever makes the request."""

    message: str
    dry_run_only: bool = False


@dataclass(frozen=True, slots=True)
class Audit:
    """An entry of the audit trail."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class SetUsage:
    """A quota's use changed, or is to be published anew: ``used`` by each resource that it limits."""

    tenant: str
    quota: str
    used: Amounts
    hard: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Repaired:
    """The books were not what the objects add up to, and are now. ``tenant`` '' for cohorts."""

    tenant: str
    what: str


Effect = Admit | Gate | Release | Refuse | Preempt | Notify | Warn | Audit | SetUsage | Repaired
