"""Open vSwitch: flows by bundles, which the switch takes or refuses as one.

The difference to what was applied last is sent when it is known, and the switch compares for itself otherwise.  Flows count as
loaded when the datapath follows them.  A flow that no packet reaches, in the last table, carries the revision as its cookie.
What flows copy to the controller is metered.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path

from isoplane.node.network.engines import counts, tracked
from isoplane.node.network.engines.nft_guard import QUIET_SECONDS
from isoplane.node.network.engines.protocol import Connection, EngineFailure, Look
from isoplane.node.network.ovs import jsonrpc, revalidation
from isoplane.node.network.ovs.kernel import SYSTEM
from isoplane.node.network.process import find, run
from isoplane.node.network.protocol import FabricFailure

_MARKER_TABLE = 253
COPIES = 10
"""Denied packets that are copied to the controller in a second; the datapath drops what is beyond, whatever is sent."""
_MARKER = re.compile(r"cookie=0x([0-9a-f]+)")
_HUSHED = "cookie=0x68757368"
"""Marks flows that pass by themselves, which nobody misses."""
_METER = f"meter=controller,pktps,burst,bands=type=drop,rate={COPIES},burst_size={2 * COPIES}"
_CLOSED = "table=0,priority=0,actions=drop\n"
_ICMPV6 = "58"
_NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}
_WORDS = {
    "tcp": "TCP", "udp": "UDP", "sctp": "SCTP", "icmp": "1", "igmp": "2", "dccp": "33", "icmpv6": "58", "udplite": "136",
}  # fmt: skip
"""How connections name their protocol; others come as numbers."""
_TRACKED = re.compile(
    r"^(?P<protocol>[a-z0-9]+),orig=\(src=(?P<source>[^,)]+),dst=(?P<original>[^,)]+)(?P<from>[^)]*)\),"
    r"reply=\(src=(?P<destination>[^,)]+),dst=[^,)]+(?P<to>[^)]*)\)(?P<rest>.*)$"
)


class OpenvswitchEngine:
    """Implements ``Engine`` for bridge ports. ``management`` and ``control`` give the sockets of the switch of the moment."""

    name = "openvswitch"

    def __init__(
        self, management: Callable[[], Path], control: Callable[[], Path], datapath: Callable[[], str]
    ) -> None:
        self._management, self._control, self._datapath = management, control, datapath
        self._flows: frozenset[str] = frozenset()
        """What was applied last, line by line; nothing while that is not known."""
        self._digest = ""

    async def start(self) -> None:
        try:
            find("ovs-ofctl")
            await self._meter()
            if not await self.revision():
                await self._bundle("replace-flows", _CLOSED)
        except FabricFailure as failure:
            raise EngineFailure(f"Open vSwitch: {failure}") from failure

    async def _meter(self) -> None:
        """Bound what is copied, before any flow copies. A switch that was started anew has no meters."""
        verb = "mod-meter" if "controller" in await self._ofctl("dump-meters", self._socket()) else "add-meter"
        await self._ofctl(verb, self._socket(), _METER)

    def _socket(self) -> str:
        return f"unix:{self._management()}"

    async def _ofctl(self, *arguments: str, stdin: str | None = None) -> str:
        try:
            # Without names: flows use none, and asking the switch for those of its ports takes longer than all the rest.
            options = ("-OOpenFlow14", "--no-names")
            answer = await run("ovs-ofctl", *options, *arguments, stdin=None if stdin is None else stdin.encode())
        except FabricFailure as failure:
            raise EngineFailure(f"Open vSwitch refuses: {failure}") from failure
        return answer.decode()

    async def _bundle(self, verb: str, changes: str) -> None:
        """All of the changes or none, and back when packets go by them."""
        await self._ofctl("--bundle", verb, self._socket(), "-", stdin=changes)
        try:
            await revalidation.followed(self._control(), self._management().stem)
        except FabricFailure as failure:
            raise EngineFailure(
                f"Open vSwitch took the flows, but its datapath does not follow: {failure}"
            ) from failure

    async def apply(self, text: str, revision: str, update: str | None = None) -> None:
        marked = f"{text}table={_MARKER_TABLE},priority=0,cookie=0x{revision},actions=drop\n"
        flows = frozenset(line for line in marked.splitlines() if line and not line.startswith("#"))
        try:
            if update is not None and self._flows:
                await self._bundle("add-flows", difference(self._flows, flows))
            else:
                await self._meter()
                await self._bundle("replace-flows", marked)
        except EngineFailure:
            self._flows = frozenset()  # the next attempt lets the switch compare
            raise
        self._flows, self._digest = flows, ""

    async def revision(self) -> str:
        answer = await self._ofctl("dump-flows", self._socket(), f"table={_MARKER_TABLE}")
        marker = _MARKER.search(answer)
        return marker[1].zfill(16) if marker else ""

    async def look(self) -> Look:
        if not self._flows:
            return Look.UNSURE
        answer = await self._ofctl("--no-stats", "dump-flows", self._socket())
        flows = sorted(line.strip() for line in answer.splitlines() if "actions=" in line and _HUSHED not in line)
        digest = hashlib.sha256("\n".join(flows).encode()).hexdigest()
        if not self._digest and len(flows) == len({_match(flow) for flow in self._flows}):
            # The switch writes flows in words of its own: how it writes ours is learnt at the first look.
            self._digest = digest
        return Look.INTACT if digest == self._digest else Look.CHANGED

    async def _appctl(self, method: str, *arguments: str) -> str:
        try:
            return str(await jsonrpc.call(self._control(), method, list(arguments)))
        except FabricFailure as failure:
            raise EngineFailure(f"Open vSwitch's connections: {failure}") from failure

    @property
    def _tracked_by_kernel(self) -> bool:
        """On the kernel's datapath, whose connections the switch does not know how to forget one by one when they are SCTP's."""
        return self._datapath().startswith(f"{SYSTEM}@")

    async def connections(self, addresses: Set[str]) -> Sequence[Connection]:
        if self._tracked_by_kernel:
            # What is in no zone is the host's.
            return [one for one in await tracked.connections(addresses) if one.zone]
        answer = await self._appctl("dpctl/dump-conntrack", self._datapath())
        found = [one for line in answer.splitlines() if (one := parse_connection(line)) is not None]
        # Asked to forget one of ICMPv6, Open vSwitch 3.1 aborts (it turns the type round as if it were ICMP's).  The flows
        # judge each of its requests instead, so that there is nothing to cut.
        found = [one for one in found if one.protocol != _ICMPV6]
        return [one for one in found if one.source in addresses or one.destination in addresses]

    async def cut(self, connections: Sequence[Connection]) -> None:
        if quiet := hush(connections):
            await self._bundle("add-flows", quiet)
        if self._tracked_by_kernel:
            await tracked.cut(connections)
            return
        failures = []
        for one in connections:
            try:
                # Open vSwitch 3.1 does not take a datapath's name here, though it says so; there is but one.
                await self._appctl("dpctl/flush-conntrack", f"zone={one.zone}", str(one.handle))
            except EngineFailure as failure:
                if "No such file or directory" not in str(failure):
                    failures.append(failure)
        if failures:
            raise failures[0]

    async def counts(self) -> Mapping[tuple[str, str], int]:
        return await asyncio.to_thread(counts.of_flows, await self._ofctl("dump-flows", self._socket()))

    async def clear(self) -> None:
        await self._ofctl("del-flows", self._socket())
        self._flows, self._digest = frozenset(), ""


def hush(connections: Iterable[Connection]) -> str:
    """Flows that drop the replies of cut connections until those under way have run dry; see nft_guard for why."""
    lines = []
    for one in connections:
        if one.protocol not in ("UDP", "SCTP"):
            continue
        back, six = one.reversed, ":" in one.source
        ends = (
            f"ipv6_src={back.source},ipv6_dst={back.destination}"
            if six
            else f"nw_src={back.source},nw_dst={back.destination}"
        )
        lines.append(
            f"{_HUSHED}, table=0,priority=65000,hard_timeout={QUIET_SECONDS},{one.protocol.lower()}{'6' if six else ''},{ends},"
            f"tp_src={back.source_port},tp_dst={back.destination_port},actions=drop\n"
        )
    return "".join(lines)


def difference(old: frozenset[str], new: frozenset[str]) -> str:
    """The flow changes that lead from one set of flow lines to another, removals first."""
    added = sorted(new - old)
    kept = {_match(line) for line in added}  # what is in both has a match of its own
    removed = [f"delete_strict {_match(line)}" for line in sorted(old - new) if _match(line) not in kept]
    return "".join(f"{line}\n" for line in [*removed, *(f"add {line}" for line in added)])


def _match(flow: str) -> str:
    return re.sub(r"cookie=[^,]*,", "", flow.partition(",actions=")[0] + ",")[:-1]


def parse_connection(line: str) -> Connection | None:
    """One line of ``dpctl/dump-conntrack``; None for lines of another kind, and for what no flow tracks: that is in no zone."""
    found = _TRACKED.match(line.strip())
    if found is None or not _field(found["rest"], "zone"):
        return None
    protocol = _WORDS.get(found["protocol"], found["protocol"])
    source_port, original_port = _field(found["from"], "sport"), _field(found["from"], "dport")
    number = _NUMBERS.get(protocol) or int(protocol)
    family = "ipv6" if ":" in found["source"] else "nw"
    handle = f"ct_{family}_src={found['source']},ct_{family}_dst={found['original']},ct_nw_proto={number}"
    if protocol in _NUMBERS:
        handle += f",ct_tp_src={source_port},ct_tp_dst={original_port}"
    elif protocol in (_WORDS["icmp"], _WORDS["icmpv6"]):
        icmp = {name: _field(found["from"], name) for name in ("id", "type", "code")}
        handle += "".join(f",icmp_{name}={value}" for name, value in icmp.items())
    return Connection(
        protocol,
        found["source"],
        source_port,
        found["destination"],
        _field(found["to"], "sport"),
        _field(found["rest"], "zone"),
        handle,
    )


def _field(text: str, name: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", text)
    return int(found[1]) if found else 0
