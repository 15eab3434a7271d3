"""Everybody who may talk: workloads, and the kinds of outside addresses that policies tell apart.

Positions 0…n-1 are the endpoints that policies govern, in the compiler's order; then workloads on the host's network;
then, if asked for, one address for each prefix that an ipBlock mentions and one that nobody mentions.  A set of
parties is an integer with one bit for each, which makes all-pairs questions cheap.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from isoplane.policy import addresses
from isoplane.policy.addresses import BITS, Prefix, address
from isoplane.policy.directory import Directory
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.rules import Block, Peer, PortMatch, Rule
from isoplane.policy.selection import node_prefixes, serves
from isoplane.policy.verdict import Party


@dataclass(frozen=True, slots=True)
class Someone:
    """One party with the name it is shown by. ``address`` is None for a workload whose address is unknown."""

    name: str
    party: Party
    address: tuple[int, int] | None

    @property
    def endpoint(self) -> Endpoint | None:
        return self.party.endpoint


class Universe:
    """All parties of a cluster and, as bit sets, which of them a rule's peers are."""

    def __init__(
        self, cluster: Cluster, directory: Directory, outside: bool = False, blocks: Iterable[Block] = ()
    ) -> None:
        self.cluster = cluster
        self.directory = directory
        hosts = [e for e in cluster.endpoints if e.host_network and not e.finished]
        names = short_names([*directory.endpoints, *hosts])
        self.parties = [_endpoint(e, names[e.id]) for e in (*directory.endpoints, *hosts)]
        if outside:
            self.parties += _outsiders(cluster, [*blocks_of(cluster), *blocks])
        self.everyone = (1 << len(self.parties)) - 1
        self._by_address: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for position, someone in enumerate(self.parties):
            if someone.address:
                self._by_address[someone.address[0]].append((someone.address[1], position))
        for listed in self._by_address.values():
            listed.sort()
        self._peers: dict[Peer, int] = {}
        self._serving: dict[tuple[PortMatch, str, int], int] = {}

    def peers(self, rule: Rule) -> int:
        """Who a rule's peers are."""
        if rule.peers is None:
            return self.everyone
        found = 0
        for peer in rule.peers:
            bits = self._peers.get(peer)
            if bits is None:
                bits = self._peers[peer] = self._peer(peer)
            found |= bits
        return found

    def serving(self, port: PortMatch, protocol: str, number: int) -> int:
        """Who declares the named port as this protocol and number."""
        key = (port, protocol, number)
        found = self._serving.get(key)
        if found is None:
            found = self._serving[key] = bits_of(
                position
                for position, endpoint in enumerate(self.directory.endpoints)
                if any(serves(p, port) and (p.protocol, p.number) == (protocol, number) for p in endpoint.ports)
            )
        return found

    def _peer(self, peer: Peer) -> int:
        if peer.block is not None:
            return self._inside(peer.block)
        if peer.nodes is not None:
            found = 0
            for prefix in node_prefixes(self.directory, peer.nodes):
                found |= self._inside(Block(prefix))
            return found
        return bits_of(self.directory.peer(peer))

    def _inside(self, block: Block) -> int:
        family = block.cidr.family
        host, listed = BITS[family], self._by_address[family]
        first, last = bisect_left(listed, (block.cidr.network, -1)), bisect_left(listed, (block.cidr.last + 1, -1))
        return bits_of(
            position for number, position in listed[first:last] if block.covers(Prefix(family, number, host))
        )


def bits_of(positions: Iterable[int]) -> int:
    """The set of these positions as one integer."""
    listed = positions if isinstance(positions, tuple | list) else list(positions)
    if not listed:
        return 0
    buffer = bytearray(max(listed) // 8 + 1)
    for position in listed:
        buffer[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(buffer, "little")


def positions_of(bits: int) -> Iterator[int]:
    """The positions in a set, ascending."""
    text = bin(bits)[:1:-1]
    at = text.find("1")
    while at >= 0:
        yield at
        at = text.find("1", at + 1)


def short_names(endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """Id → ``namespace/name``, or the id itself where that would be ambiguous."""
    listed = list(endpoints)
    seen: dict[str, int] = {}
    for endpoint in listed:
        short = f"{endpoint.namespace}/{endpoint.name}"
        seen[short] = seen.get(short, 0) + 1
    return {e.id: f"{e.namespace}/{e.name}" if seen[f"{e.namespace}/{e.name}"] == 1 else e.id for e in listed}


def primary(endpoint: Endpoint) -> Party:
    """The endpoint at its first address; without one, it matches selectors and never an ipBlock."""
    return Party(endpoint, endpoint.ips[0] if endpoint.ips else "")


def blocks_of(cluster: Cluster) -> list[Block]:
    """Every ipBlock (network) that a policy mentions."""
    return [peer.block for rule in cluster.rules() for peer in rule.peers or () if peer.block is not None]


def _endpoint(endpoint: Endpoint, name: str) -> Someone:
    party = primary(endpoint)
    return Someone(name, party, address(party.ip) if party.ip else None)


def _outsiders(cluster: Cluster, blocks: list[Block]) -> list[Someone]:
    """One address for each prefix mentioned that is in no smaller one and no workload's, and one in none at all."""
    mentioned = sorted({prefix for block in blocks for prefix in (block.cidr, *block.excepts)})
    taken = {address(ip) for e in cluster.endpoints for ip in e.ips}
    taken |= {address(ip) for node in cluster.nodes for ip in node.ips}
    found = []
    for index, prefix in enumerate(mentioned):
        number = _free(prefix, mentioned, index + 1, taken)
        if number is not None:
            found.append(_outsider(f"ip:{prefix}", prefix.family, number))
    for family, name in ((4, "ip:anywhere"), (6, "ip:anywhere-v6")):
        whole = Prefix(family, 0, 0)
        number = _free(whole, mentioned, bisect_left(mentioned, whole), taken)
        if number is not None:
            found.append(_outsider(name, family, number))
    return found


def _outsider(name: str, family: int, number: int) -> Someone:
    return Someone(name, Party(None, addresses.text(family, number)), (family, number))


def _free(prefix: Prefix, mentioned: list[Prefix], following: int, taken: set[tuple[int, int]]) -> int | None:
    """The first address of a prefix that is in no smaller one and not taken; None when there is none.

    ``mentioned`` is sorted, so the smaller ones inside follow from position ``following``, by their first address.
    """
    number = prefix.network + (1 if prefix.length < BITS[prefix.family] - 1 else 0)
    while number <= prefix.last:
        if following < len(mentioned) and mentioned[following].family == prefix.family:
            inner = mentioned[following]
            if inner.network <= number:
                number = max(number, inner.last + 1)
                following += 1
                continue
        if (prefix.family, number) not in taken:
            return number
        number += 1
    return None
