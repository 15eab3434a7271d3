"""Whether the kernel's datapath can serve this plane's bridge: found out by making one, not by a module's name.

The kernel's is faster, but every switch of a host shares the one that is called ovs-system: whoever starts second would take
the first one's ports away.  So it is ours only while no other ovs-vswitchd holds it.
"""

from __future__ import annotations

import os
from pathlib import Path

from isoplane.node.network.netlink import Netlink
from isoplane.node.network.process import run
from isoplane.node.network.protocol import FabricFailure

SYSTEM, NETDEV = "system", "netdev"
"""The kernel's datapath and the userspace's, as Open vSwitch names them."""
LINK = "ovs-system"
"""The device of the datapath that all kernel bridges of a network namespace share."""


async def refusal(own_switch: int) -> str:
    """Why this plane cannot have a kernel datapath; '' when it can. ``own_switch``: the pid of our ovs-vswitchd, or 0."""
    if _exists(LINK) and (others := _switches() - {own_switch}):
        return f"{LINK} is held by another ovs-vswitchd (pid {', '.join(map(str, sorted(others)))})"
    trial = f"iso-try{os.getpid()}"
    try:
        await run("ovs-dpctl", "add-dp", trial)
        await run("ovs-dpctl", "del-dp", trial)
    except FabricFailure as failure:
        return str(failure)
    return ""


async def remove() -> None:
    """The kernel datapath that a killed switch left behind, with every port in it. Fine when there is none or it is in use."""
    if _exists(LINK) and not _switches():
        await run("ovs-dpctl", "del-dp", LINK)


def _exists(name: str) -> bool:
    with Netlink() as host:
        return bool(host.index(name))


def _switches() -> set[int]:
    """Every ovs-vswitchd that runs and can hold a device of this network namespace."""
    here = os.readlink("/proc/self/ns/net")
    found = set[int]()
    for entry in Path("/proc").iterdir():
        try:
            switch = entry.name.isdecimal() and (entry / "comm").read_text() == "ovs-vswitchd\n"
            if switch and os.readlink(entry / "ns" / "net") == here:
                found.add(int(entry.name))
        except OSError:
            continue  # gone meanwhile
    return found
