"""What the workload controller needs of others on its node, as small protocols: telling people, looking up, guarding ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from isoplane.node.network.enforcer import EnforcementStatus
from isoplane.node.track import Desired
from isoplane.objects.metadata import Object
from isoplane.policy.hits import RuleHits


class Events(Protocol):
    """Tells people what happened; deduplicates; never blocks and never fails its caller."""

    def __call__(self, obj: Object, type_: str, reason: str, message: str, field_path: str = "") -> None: ...


class Lookup(Protocol):
    """The workload of this node that has ``uid``; ``newer`` may put what this node wrote since in place of the cached."""

    def __call__(self, uid: str, newer: Callable[[Object], Object] = ...) -> Desired | None: ...


class Enforcement(Protocol):
    """Which policy revision guards a workload's port, if any does."""

    async def start(self) -> None:
        """Begin, with the fabric started and the caches in sync."""
        ...

    async def close(self) -> None:
        """Stop; what is loaded stays and keeps working."""
        ...

    def enforced(self, uid: str) -> str | None: ...

    @property
    def failure(self) -> str:
        """Why the rules that policies ask for are not in force on this node; '' when they are."""
        ...

    @property
    def status(self) -> EnforcementStatus | None:
        """What is loaded and what failed; None before the start."""
        ...

    @property
    def hits(self) -> tuple[list[RuleHits], int]:
        """How often each policy's rule decided here, and how many rules are left out."""
        ...

    def changed(self, uid: str) -> None:
        """A workload was plugged in or out."""
        ...
