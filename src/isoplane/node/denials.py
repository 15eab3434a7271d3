"""Denied packets, told to people: which workload's policies dropped what, as log lines and Events at a bearable rate.

The rules log a few of the packets that they drop, the kernel's to a netlink group, Open vSwitch's to the bridge's socket;
here each is judged again by the tables, which know the deciding policies, and told once a minute at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from isoplane.node.network.nflog import LogGroup
from isoplane.node.network.ovs.packetin import PacketIns
from isoplane.node.network.packet import Seen
from isoplane.policy.model import Exposed, unexposed
from isoplane.policy.packets import PacketJudge
from isoplane.policy.rules import EGRESS, OTHER
from isoplane.policy.table import Tables

_log = logging.getLogger(__name__)

REASON = "NetworkPolicyDenied"
AGAIN = 60.0
"""Seconds in which the same denial is told once; what came in between is counted and told with the next."""
REMEMBERED = 1024
BURST, REFILL = 5, 60.0
"""Different denials that one workload may have told at once; afterwards one in REFILL seconds: a scan is no news per port."""


@dataclass(frozen=True, slots=True)
class Denial:
    """``endpoint`` (e.g. ``pod/ns/name``) is whose policies deny, in the ``direction`` as seen from it."""

    endpoint: str
    direction: str
    peer: str
    """The other end's endpoint, or its address when it is none."""
    protocol: str
    port: int
    rules: tuple[str, ...]
    """The rule that denies, when one does (ClusterNetworkPolicy)."""
    policies: tuple[str, ...]
    """Those that isolate the endpoint, when no rule allows."""
    exposed: Exposed | None = None
    """The ports that the endpoint's interface lists, when this is none of them."""

    def __str__(self) -> str:
        what = "ICMP or another protocol" if self.protocol == OTHER else f"{self.port}/{self.protocol}"
        way = "to" if self.direction == EGRESS else "from"
        why = (
            unexposed(self.exposed)
            if self.exposed is not None
            else f"denied by {', '.join(self.rules)}"
            if self.rules
            else f"isolated by {', '.join(self.policies)}, and no rule allows it"
            if self.policies
            else "its rules are not known yet"
        )
        return f"{self.direction} {way} {self.peer} on {what} was dropped: {why}"


def denial(judge: PacketJudge, packet: Seen) -> Denial | None:
    """Who denies this packet; None when nobody does by now."""
    verdict = judge.judge(packet.source, packet.destination, packet.protocol, packet.port)
    if verdict.allowed:
        return None
    other = packet.destination if verdict.denied == EGRESS else packet.source
    return Denial(
        verdict.endpoint,
        verdict.denied,
        judge.owner(other) or other,
        packet.protocol,
        packet.port,
        verdict.rules,
        verdict.policies,
        verdict.exposed,
    )


class Rate:
    """What may be told when. ``now`` in seconds of any steady clock."""

    def __init__(self) -> None:
        self._told: OrderedDict[Denial, tuple[float, int]] = OrderedDict()
        """When it was told last, and how often it was held back since."""
        self._budget: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, found: Denial, now: float) -> int | None:
        """How often it was held back since it was told last; None: hold it back now."""
        last, held = self._told.get(found, (float("-inf"), 0))
        if now - last < AGAIN or not self._affordable(found.endpoint, now):
            self._remember(found, last, held + 1)
            return None
        self._remember(found, now, 0)
        return held

    def _remember(self, found: Denial, last: float, held: int) -> None:
        self._told[found] = (last, held)
        self._told.move_to_end(found)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)

    def _affordable(self, endpoint: str, now: float) -> bool:
        tokens, at = self._budget.pop(endpoint, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - at) / REFILL)
        self._budget[endpoint] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._budget) > REMEMBERED:
            self._budget.popitem(last=False)
        return tokens >= 1


class Denials:
    """Reads a log group, a bridge, or both on the event loop between :meth:`start` and :meth:`close`.

    ``group`` 0 and ``bridge`` None: there is none.  ``tell(endpoint, message)`` makes an Event of it.  A host that does not
    let the group be read is told once; the rules drop all the same.
    """

    def __init__(
        self,
        group: int,
        bridge: Callable[[], Path] | None,
        node_ips: Iterable[str],
        tell: Callable[[str, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._group_number, self._node_ips, self._tell, self._clock = group, tuple(node_ips), tell, clock
        self._rate = Rate()
        self._group: LogGroup | None = None
        self._copies = PacketIns(bridge, self.told) if bridge is not None else None
        self._tables: Tables | None = None
        self._judge: PacketJudge | None = None

    def start(self) -> None:
        """Begin to listen."""
        if self._copies is not None:
            self._copies.start()
        if not self._group_number:
            return
        try:
            self._group = LogGroup(self._group_number)
        except OSError as error:
            _log.warning("denied packets are dropped but not reported: %s", error)
            return
        asyncio.get_running_loop().add_reader(self._group.fileno(), self._read)

    async def close(self) -> None:
        """Stop listening."""
        self._leave()
        if self._copies is not None:
            await self._copies.close()

    def _leave(self) -> None:
        if self._group is not None:
            asyncio.get_running_loop().remove_reader(self._group.fileno())
            self._group.close()
            self._group = None

    def use(self, tables: Tables) -> None:
        """Judge by these tables from now on."""
        self._tables, self._judge = tables, None

    def told(self, packet: Seen) -> None:
        """One packet that was logged and dropped."""
        if self._tables is None:
            return
        if self._judge is None:
            self._judge = PacketJudge(self._tables, self._node_ips)  # Only when asked: tables change far more often.
        found = denial(self._judge, packet)
        if found is None:
            return
        held = self._rate.admit(found, self._clock())
        if held is None:
            return
        _log.warning("%s: %s%s", found.endpoint, found, f" ({held} more like it were not told)" if held else "")
        self._tell(found.endpoint, str(found))

    def _read(self) -> None:
        assert self._group is not None
        try:
            packets = self._group.read()
        except OSError as error:
            _log.warning("denied packets are no longer reported: %s", error)
            self._leave()
            return
        for packet in packets:
            self.told(packet)
