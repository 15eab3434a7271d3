"""What a policy says, as typed values: rules, peers and port matches of NetworkPolicy and ClusterNetworkPolicy.

``parse.py`` makes them out of objects and has checked them; ``verdict.py`` and ``compile.py`` both read them, each in
its own way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from isoplane.objects.selectors import Selector
from isoplane.policy.addresses import Prefix

INGRESS, EGRESS = "Ingress", "Egress"
DIRECTIONS = (INGRESS, EGRESS)
ACCEPT, DENY, PASS = "Accept", "Deny", "Pass"
ADMIN, BASELINE = "Admin", "Baseline"
PORT_PROTOCOLS = ("TCP", "UDP", "SCTP")
OTHER = "OTHER"
"""Everything without ports: ICMP, ICMPv6 and all other protocols are judged alike."""
PROTOCOLS = (*PORT_PROTOCOLS, OTHER)
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class PortMatch:
    """A protocol and ports ``low``..``high``, or the named port ``name``. An empty protocol (named only) is any."""

    protocol: str
    low: int = 0
    high: int = MAX_PORT
    name: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """An ipBlock: the prefix without its exceptions."""

    cidr: Prefix
    excepts: tuple[Prefix, ...] = ()

    def covers(self, other: Prefix) -> bool:
        """Whether all of ``other`` is inside; false when it is cut by neither an exception nor the block itself."""
        return self.cidr.covers(other) and not any(hole.covers(other) for hole in self.excepts)


@dataclass(frozen=True, slots=True)
class Peer:
    """One list item of from/to: a block, a selection of nodes, or pods selected in selected namespaces.

    ``namespace`` names the policy's own namespace where the item has no namespaceSelector.
    """

    namespace: str | None = None
    namespaces: Selector | None = None
    pods: Selector | None = None
    block: Block | None = None
    nodes: Selector | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """``peers`` None: every peer. ``ports`` None: every protocol and port. ``id`` is policy/direction[index]."""

    id: str
    peers: tuple[Peer, ...] | None
    ports: tuple[PortMatch, ...] | None
    action: str = ACCEPT
    name: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy. A direction that is None is not governed; an empty tuple lets nothing pass."""

    namespace: str
    name: str
    subjects: Selector
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    ignored: tuple[Rule, ...] = ()
    """Rules of a direction that policyTypes leaves out: they have no effect."""
    types_written: bool = True
    """Whether policyTypes is there: without it Ingress counts always, Egress where there are egress rules."""
    empty_egress: bool = False
    """Whether egress is written as an empty list."""

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}"

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        return self.ingress if direction == INGRESS else self.egress

    def with_rules(self, direction: str, rules: tuple[Rule, ...]) -> Policy:
        return replace(self, ingress=rules) if direction == INGRESS else replace(self, egress=rules)


@dataclass(frozen=True, slots=True)
class ClusterPolicy:
    """A ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2): ordered rules of one tier and priority."""

    name: str
    tier: str
    priority: int
    namespaces: Selector
    pods: Selector
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]

    @property
    def id(self) -> str:
        return self.name

    def rules(self, direction: str) -> tuple[Rule, ...]:
        return self.ingress if direction == INGRESS else self.egress

    def with_rules(self, direction: str, rules: tuple[Rule, ...]) -> ClusterPolicy:
        return replace(self, ingress=rules) if direction == INGRESS else replace(self, egress=rules)


def policy_of(rule_id: str) -> str:
    """The id of the policy that a rule id belongs to."""
    return rule_id.rpartition("/")[0]
