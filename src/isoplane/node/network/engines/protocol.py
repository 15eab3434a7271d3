"""CONTRACT: the Engine protocol: load a text atomically, tell whether it is still loaded, cut connections.

What the text says is the renderers' business (``isoplane.policy``); when it is loaded, and on which engine first, the
enforcer's.  An engine adds one thing of its own to what it loads: a marker with the revision, so that anyone who looks at the
host can tell what is enforced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class EngineFailure(Exception):
    """Rules could not be loaded or read; what was loaded before still stands. What, why and what to do about it."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One tracked connection, as its first packet was seen. ``protocol``: TCP, UDP, SCTP, or a number for all others.

    The destination is the one after translation, where the packets really go.  Ports are 0 for protocols without.
    """

    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    zone: int = 0
    handle: object = field(default=None, compare=False, hash=False)
    """How the engine that told it finds it again."""

    @property
    def reversed(self) -> Connection:
        """The connection that a reply begins when it is taken for a first packet."""
        return Connection(
            self.protocol, self.destination, self.destination_port, self.source, self.source_port, self.zone
        )


class Look(Enum):
    """What a look at the host's rules shows."""

    INTACT = "intact"
    CHANGED = "changed"
    UNSURE = "unsure"
    """Somebody changed rules, perhaps others than ours, before ours were looked at for the first time."""


class Engine(Protocol):
    """One way of enforcing rules on one node."""

    name: str
    """nftables, iptables or openvswitch."""

    async def start(self) -> None:
        """Check the tools. When nothing is loaded, load rules that keep every port closed. EngineFailure says what lacks."""
        ...

    async def apply(self, text: str, revision: str, update: str | None = None) -> None:
        """Load the complete ``text`` in one transaction, or ``update``, which leads to it from what was applied last.

        ``revision`` has 16 hexadecimal digits.  Once it returns, every packet is judged by it.  On EngineFailure everything is
        as before, or, where the message says so, it is loaded and not yet known to be in effect.
        """
        ...

    async def revision(self) -> str:
        """The revision that the host's rules are marked with; '' when they are not ours or gone."""
        ...

    async def look(self) -> Look:
        """Whether the host still has what was applied last, to the letter."""
        ...

    async def connections(self, addresses: Set[str]) -> Sequence[Connection]:
        """The tracked connections that have an end among ``addresses``."""
        ...

    async def cut(self, connections: Sequence[Connection]) -> None:
        """Forget these connections, so that their next packet is judged anew. Those that are gone by now are fine."""
        ...

    async def counts(self) -> Mapping[tuple[str, str], int]:
        """How often each counter of the host's rules was hit, by the renderer's name of its place (see ``counts.py``)."""
        ...

    async def clear(self) -> None:
        """Remove every rule of ours."""
        ...
