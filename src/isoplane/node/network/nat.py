"""The way out: workloads reach the outside behind the host's address, as on a usual Kubernetes node.

A table of its own, apart from the policy engine's, so that neither can undo the other.  Forwarding is switched on for the
interfaces of the default routes alone, and switched back by the teardown.
"""

from __future__ import annotations

from pathlib import Path

from isoplane.node.network import sysctl
from isoplane.node.network.engines import nft_guard
from isoplane.node.network.netlink import Netlink
from isoplane.node.network.process import find, run
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import Names, Ranges


def outside_interfaces() -> list[str]:
    """The names of the interfaces that default routes leave by."""
    with Netlink() as host:
        indexes = {route.interface for route in host.routes() if route.destination == "0.0.0.0/0"}
        return [link.name for link in host.links() if link.index in indexes]


def ruleset(names: Names, ranges: Ranges) -> str:
    """One nft transaction that makes the table what it must be, whatever it was."""
    text = ""
    for family, whole in (("ip", ranges.whole), ("ip6", ranges.six.whole if ranges.six else None)):
        if whole is None:
            continue
        table = f"{family} {names.nat_table}"
        text += (
            f"add table {table}\ndelete table {table}\ntable {table} {{\n"
            "  chain postrouting {\n    type nat hook postrouting priority srcnat\n"
            f"    {family} saddr {whole} {family} daddr != {whole} fib daddr type != local masquerade\n  }}\n}}\n"
        )
    return text


async def enable(names: Names, ranges: Ranges, note: Path) -> None:
    await run("nft", "-f", "-", stdin=ruleset(names, ranges).encode())
    sysctl.borrow(note, {f"ipv4/conf/{interface}/forwarding": "1" for interface in outside_interfaces()})


async def exists(names: Names, ranges: Ranges) -> bool:
    """Whether the table of each family is there."""
    wanted = {f"table ip {names.nat_table}", *([f"table ip6 {names.nat_table}"] if ranges.six else [])}
    return wanted <= await _tables()


async def _tables() -> set[str]:
    return set((await run("nft", "list", "tables")).decode().splitlines())


async def remove_tables(names: Names) -> None:
    """Remove these tables and the policy engine's two. A host without nft has none."""
    try:
        find("nft")
    except FabricFailure:
        return
    main = f"inet {names.table}"
    ours = (f"ip {names.nat_table}", f"ip6 {names.nat_table}", main, nft_guard.table(main))
    there = await _tables()
    if text := "".join(f"delete table {one}\n" for one in ours if f"table {one}" in there):
        await run("nft", "-f", "-", stdin=text.encode())
