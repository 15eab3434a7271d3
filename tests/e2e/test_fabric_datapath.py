"""The bridge runs on the kernel's datapath where that can be had, and says so where it cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fabric_support import spare_range, traces
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.ovs import kernel
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import FabricSettings
from support import require

pytestmark = pytest.mark.root


def kernel_ports() -> str:
    """What the kernel's datapaths hold; '' where there are none."""
    return subprocess.run(["ovs-dpctl", "show"], capture_output=True, text=True, check=False).stdout


async def test_the_datapath_is_chosen_by_trying(tmp_path: Path) -> None:
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", root=True)
    refused = await kernel.refusal(0)
    assert "iso-try" not in kernel_ports(), "the trial leaves nothing"
    fabric = HostFabric(FabricSettings(tmp_path, cidr=spare_range()))
    try:
        await fabric.start()
        assert fabric.bridge is not None
        assert fabric.bridge.switch.datapath == (kernel.NETDEV if refused else kernel.SYSTEM)
        assert (fabric.names.bridge in kernel_ports()) is not bool(refused)
    finally:
        await fabric.teardown()
    assert traces(fabric.names.tag, tmp_path) == []
    assert fabric.names.bridge not in kernel_ports()


async def test_a_kernel_datapath_that_cannot_be_had_is_an_error_when_it_was_asked_for(tmp_path: Path) -> None:
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", root=True)
    if not await kernel.refusal(0):
        pytest.skip("this kernel has the datapath")
    fabric = HostFabric(FabricSettings(tmp_path, cidr=spare_range(), datapath=kernel.SYSTEM))
    try:
        with pytest.raises(FabricFailure, match="use netdev or auto"):
            await fabric.start()
    finally:
        await fabric.teardown()
    assert traces(fabric.names.tag, tmp_path) == []
