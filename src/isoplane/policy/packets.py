"""Judge packets by address with the tables: for established connections after a change, and for denied packets' logs.

The engines forward what they know as established without asking again.  After a policy change the fabric asks here,
connection by connection, and cuts those that are no longer allowed; all others are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isoplane.policy.addresses import address
from isoplane.policy.model import Exposed
from isoplane.policy.rules import EGRESS, INGRESS
from isoplane.policy.table import DirectionTable, EndpointTables, Tables


@dataclass(frozen=True, slots=True)
class PacketVerdict:
    """``denied``: Egress or Ingress, empty when allowed. ``rules`` decided; ``policies`` isolate, where it is denied.

    ``exposed`` are the ports that the endpoint's interface lists, where this is none of them.
    """

    allowed: bool
    denied: str = ""
    endpoint: str = ""
    rules: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    exposed: Exposed | None = None


class PacketJudge:
    """Tables indexed by address. ``node_ips``: the node's own addresses, from which its workloads are reachable.

    Raises ValueError when two endpoints share an address.
    """

    def __init__(self, tables: Tables, node_ips: Iterable[str] = ()) -> None:
        self._node = {address(ip) for ip in node_ips}
        self._owners: dict[tuple[int, int], EndpointTables] = {}
        for entry in tables.endpoints.values():
            for ip in entry.ips:
                other = self._owners.setdefault(address(ip), entry)
                if other is not entry:
                    raise ValueError(f"{other.id} and {entry.id} both have the address {ip}")

    def owner(self, ip: str) -> str:
        """The id of the endpoint that has the address; empty for others."""
        entry = self._owners.get(address(ip))
        return entry.id if entry else ""

    def judge(self, source: str, destination: str, protocol: str, port: int) -> PacketVerdict:
        """The connection that began with this packet. ``protocol``: TCP, UDP, SCTP, or OTHER with port 0."""
        ends = address(source), address(destination)
        owners = self._owners.get(ends[0]), self._owners.get(ends[1])
        if owners[0] is not None and owners[0] is owners[1]:
            return PacketVerdict(True)
        decided: list[str] = []
        for direction, subject, peer in ((EGRESS, owners[0], ends[1]), (INGRESS, owners[1], ends[0])):
            if subject is None or (direction == INGRESS and ends[0] in self._node):
                continue
            table: DirectionTable = subject.egress if direction == EGRESS else subject.ingress
            allowed, rules = table.judge(*peer, protocol, port)
            if not allowed and table.exposed is not None and (protocol, port) not in table.exposed:
                return PacketVerdict(False, direction, subject.id, exposed=table.exposed)
            if not allowed:
                return PacketVerdict(False, direction, subject.id, rules, () if rules else table.policies)
            decided += rules
        return PacketVerdict(True, rules=tuple(decided))
