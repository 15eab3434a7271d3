"""Which engines a node needs, given how its endpoints are wired and what the operator chose for routed ones."""

from __future__ import annotations

from collections.abc import Sequence

from isoplane.node.network.engines.iptables import IptablesEngine
from isoplane.node.network.engines.nftables import NftablesEngine
from isoplane.node.network.engines.openvswitch import OpenvswitchEngine
from isoplane.node.network.engines.protocol import Engine
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.settings import Wiring


def engines_for(fabric: HostFabric) -> Sequence[Engine]:
    """The engines of a started fabric: the chosen one where endpoints can be routed, Open vSwitch where there is a bridge."""
    found = list[Engine]()
    if Wiring.ROUTED in fabric.wirings:
        names, behind = fabric.names, fabric.names.bridge if fabric.bridge else ""
        if fabric.settings.routed_engine == "iptables":
            found.append(IptablesEngine(names.tag, names.link_prefixes, behind))
        else:
            found.append(NftablesEngine(names.table, names.link_prefixes, behind))
    if (bridge := fabric.bridge) is not None:
        found.append(
            OpenvswitchEngine(
                lambda: bridge.management, lambda: bridge.switch.control(), lambda: bridge.switch.datapath_name
            )
        )
    return found
