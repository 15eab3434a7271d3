"""Real packets through the fabric without a policy engine: everything reaches everything, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fabric_support import (
    EchoServer,
    TapGuest,
    closing,
    peer_seen_by,
    pings,
    spare_range,
    tcp_reaches,
    traces,
    udp_reaches,
    workload,
)
from isoplane.node.network.fabric import FabricSettings, HostFabric
from isoplane.node.network.settings import Wiring
from isoplane.workload.shape import InterfaceType
from support import require

pytestmark = pytest.mark.root
PORT = 20000 + os.getpid() % 10000
"""Of this run alone: the host is one of the servers, and others may serve on it."""


WIRINGS = [
    (Wiring.ROUTED, Wiring.BRIDGED),
    (Wiring.BRIDGED, Wiring.BRIDGED),
    (Wiring.ROUTED, Wiring.ROUTED),
    (Wiring.BRIDGED, Wiring.ROUTED),
]


@pytest_asyncio.fixture(params=WIRINGS, ids=lambda pair: "-".join(pair))
async def fabric(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[HostFabric]:
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", "busybox", root=True)
    containers, machines = request.param
    settings = FabricSettings(
        tmp_path,
        cidr=spare_range(20),
        container_wiring=containers,
        machine_wiring=machines,
        enforced=False,
        quarantine_seconds=0,
    )
    made = HostFabric(settings)
    await made.start()
    yield made
    await made.teardown()
    assert traces(made.names.tag, tmp_path) == []


async def test_containers_machines_and_the_host_reach_each_other(fabric: HostFabric) -> None:
    one, two = await asyncio.gather(fabric.plug(workload("one")), fabric.plug(workload("two")))
    first, second = await asyncio.gather(
        fabric.plug(workload("first", InterfaceType.TAP)), fabric.plug(workload("second", InterfaceType.TAP))
    )
    guests = [TapGuest(link.tap, link.mac, "t") for link in (first, second)]
    with closing(*guests):
        for guest, link in zip(guests, (first, second), strict=True):
            assert await asyncio.to_thread(guest.slaac) == link.address6
            assert await asyncio.to_thread(guest.dhcp) == link.address
        _served_without_rights(fabric.settings.data_dir)
        for link in (one, two, first, second):
            heard = Path("/proc/sys/net").glob(f"ipv[46]/conf/{link.host_interface}/accept_redirects")
            assert {path.read_text().strip() for path in heard} == {"0"}, link.host_interface
        places = {
            one.address: one.netns,
            two.address: two.netns,
            first.address: guests[0].path,
            second.address: guests[1].path,
            fabric.node_addresses[0]: "",
        }
        six = {
            one.address6: one.netns,
            two.address6: two.netns,
            first.address6: guests[0].path,
            second.address6: guests[1].path,
            fabric.node_addresses[1]: "",
        }
        servers = [EchoServer(path, PORT) for path in places.values()]
        with closing(*servers):
            await asyncio.to_thread(_all_reach_all, places)
            await asyncio.to_thread(_all_reach_all, six)
            # a whole lot of data, so that segmentation and checksum off-loads take part
            big = b"x" * 3_000_000
            for target_address in two.addresses:
                assert await asyncio.to_thread(tcp_reaches, one.netns, target_address, PORT, big, 30)
            # the stand-in for a machine carries frames one by one: less will do
            for path, target in [(one.netns, first), (guests[0].path, second), (guests[0].path, one)]:
                for target_address in target.addresses:
                    assert await asyncio.to_thread(tcp_reaches, path, target_address, PORT, big[:300_000], 30)
            for target in (one, first):
                for target_address, own in zip(target.addresses, fabric.node_addresses, strict=True):
                    assert peer_seen_by("", target_address, PORT) == own
            for target_address, own in zip(first.addresses, one.addresses, strict=True):
                assert peer_seen_by(one.netns, target_address, PORT) == own


def _served_without_rights(data_dir: Path) -> None:
    """dnsmasq keeps what it needs to answer guests without an address, and is nobody else."""
    notes = list(data_dir.rglob("dnsmasq.pid"))
    assert notes
    for note in notes:
        rows = (Path("/proc") / note.read_text().strip() / "status").read_text().splitlines()
        status = dict(row.split(":\t", 1) for row in rows if ":\t" in row)
        assert "0" not in status["Uid"].split() + status["Gid"].split()
        net_bind_service, net_admin, net_raw = 10, 12, 13
        assert int(status["CapEff"], 16) & ~(1 << net_bind_service | 1 << net_admin | 1 << net_raw) == 0


def _all_reach_all(places: dict[str, str]) -> None:
    for source, path in places.items():
        for target in places:
            assert pings(path, target), f"{source} pings {target}"
            assert tcp_reaches(path, target, PORT), f"{source} to {target} by TCP"
            assert udp_reaches(path, target, PORT), f"{source} to {target} by UDP"
