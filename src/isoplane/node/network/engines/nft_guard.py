"""What keeps a cut connection cut, in a table of the engine's own beside the rendered one.

Forgetting a connection is not enough: its next packet from the other side would be taken for a first one, and where that way
is allowed, the forbidden connection would live on the other way round.  So a TCP connection must begin with a SYN, and for
what has no beginning the replies of a cut connection are dropped until those under way have run dry.

The guard hangs on chains of type nat, which the kernel asks about the first packet of a connection alone: what is established
does not pay for it.

What is promised of UDP and SCTP: nothing of a cut connection arrives in either direction for QUIET_SECONDS, and afterwards as
long as its server does not speak first.  An answer that a server gives later than that is a connection of the server's own, and
judged as one: who must not be reached that way is isolated for ingress.  A connection that is allowed again within QUIET_SECONDS
may have to wait until they are over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isoplane.node.network.engines.protocol import Connection

QUIET_SECONDS = 1
"""Longer than a reply is under way or waits in a busy server's queue; a change of mind within it must wait as well."""
_FAMILIES = (("ip", "ipv4_addr", 4), ("ip6", "ipv6_addr", 6))
_HOOKS = {"postrouting": ("iifname", "oifname"), "input": ("iifname",)}
_BEFORE_NAT = 99
"""The priority just before source translation's."""


def table(main: str) -> str:
    """The guard's table, from the rendered rules' table (family and name)."""
    return f"{main}_guard"


def ruleset(main: str, interfaces: Sequence[str]) -> str:
    """For ``nft -f``: the guard for these interfaces (a star at the end stands for any name that begins so)."""
    name = table(main)
    sets, quiet = "", ""
    for header, kind, version in _FAMILIES:
        sets += (
            f"  set quiet{version} {{\n    type {kind} . {kind} . inet_proto . inet_service . inet_service\n"
            f"    flags timeout\n  }}\n"
        )
        quiet += f"    {header} saddr . {header} daddr . meta l4proto . th sport . th dport @quiet{version} drop\n"
    chains = ""
    for hook, sides in _HOOKS.items():
        jumps = "".join(f'    {side} "{interface}" goto begun\n' for side in sides for interface in interfaces)
        # What the host itself sends is not guarded: the node always reaches its workloads.
        own = "    fib saddr type local accept\n" if hook == "postrouting" else ""
        chains += f"  chain {hook} {{\n    type nat hook {hook} priority {_BEFORE_NAT}\n{own}{jumps}  }}\n"
    begun = (
        "  chain begun {\n    tcp flags & (fin | syn | rst | ack) != syn drop\n"
        f"    meta l4proto tcp accept\n{quiet}  }}\n"
    )
    return f"add table {name}\ndelete table {name}\ntable {name} {{\n{sets}{begun}{chains}}}\n"


def hush(main: str, connections: Iterable[Connection]) -> str:
    """For ``nft -f``: drop the replies of these connections for a while; '' when none needs it."""
    lines = []
    for one in connections:
        if one.protocol not in ("UDP", "SCTP"):
            continue  # TCP must begin with a SYN, and a reply of ICMP begins nothing
        version = 6 if ":" in one.source else 4
        back = one.reversed
        key = f"{back.source} . {back.destination} . {back.protocol.lower()} . {back.source_port} . {back.destination_port}"
        lines.append(f"add element {table(main)} quiet{version} {{ {key} timeout {QUIET_SECONDS}s }}\n")
    return "".join(lines)
