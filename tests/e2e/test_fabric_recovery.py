"""After kill -9: what runs is adopted, what was half done is finished or removed, and dead daemons come back."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fabric_support import EchoServer, TapGuest, closing, spare_range, tcp_reaches, tcp_socket, traces, workload
from isoplane.node.network import netns, sysctl
from isoplane.node.network.fabric import FabricSettings, HostFabric
from isoplane.node.network.netlink import Netlink
from isoplane.node.network.protocol import FabricFailure
from isoplane.workload.shape import InterfaceType
from support import require

pytestmark = pytest.mark.root
RANGE = spare_range(20)


def _settings(data: Path) -> FabricSettings:
    return FabricSettings(data, cidr=RANGE, enforced=False, quarantine_seconds=0)


@pytest_asyncio.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", root=True)
    yield tmp_path
    await HostFabric(_settings(tmp_path)).teardown()
    assert traces(_settings(tmp_path).names.tag, tmp_path) == []


async def test_a_new_plane_adopts_links_and_live_connections(data: Path) -> None:
    first = HostFabric(_settings(data))
    await first.start()
    pod, machine = workload("pod"), workload("machine", InterfaceType.TAP)
    container, tap = await first.plug(pod), await first.plug(machine)
    guest = TapGuest(tap.tap, tap.mac, "t")
    guest.use(tap.address, tap.prefix_length, tap.gateway, tap.address6, tap.gateway6)
    server = EchoServer(guest.path, 7008)
    clients = [tcp_socket(container.netns, address) for address in tap.addresses]
    with closing(guest, server, *clients):
        for client, address in zip(clients, tap.addresses, strict=True):
            await asyncio.to_thread(client.connect, (address, 7008))
            client.sendall(b"before")
            assert client.recv(100) == b"before"
        daemons = [line for line in traces(first.names.tag, data) if line.startswith("process")]
        # nothing is closed: this is what a killed process leaves
        second = HostFabric(_settings(data))
        await second.start()
        assert await second.plug(pod) == container
        assert await second.plug(machine) == tap
        for client in clients:
            client.sendall(b"after")
            assert client.recv(100) == b"after"
        assert [line for line in traces(first.names.tag, data) if line.startswith("process")] == daemons
        assert len(daemons) == 3
        await first.close()
        await second.close()


async def test_a_killed_switch_comes_back_with_its_ports(data: Path) -> None:
    fabric = HostFabric(_settings(data))
    await fabric.start()
    resets: list[int] = []
    fabric.on_reset(lambda: resets.append(1))
    tap = await fabric.plug(workload("machine", InterfaceType.TAP))
    guest = TapGuest(tap.tap, tap.mac, "t")
    guest.use(tap.address, tap.prefix_length, tap.gateway)
    server = EchoServer(guest.path, 7009)
    with closing(guest, server):
        assert await asyncio.to_thread(tcp_reaches, "", tap.address, 7009)
        for daemon in ("ovs-vswitchd", "ovsdb-server"):
            os.kill(int((data / "network/ovs" / f"{daemon}.pid").read_text()), signal.SIGKILL)
        deadline = time.monotonic() + 15
        while not resets and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        assert resets == [1]
        assert await asyncio.to_thread(tcp_reaches, "", tap.address, 7009)
        assert await asyncio.to_thread(guest.dhcp) == tap.address
    await fabric.close()


async def test_a_rebooted_host_gets_the_same_addresses_back(data: Path) -> None:
    before = HostFabric(_settings(data))
    await before.start()
    loads = [workload("pod"), workload("machine", InterfaceType.TAP)]
    links = [await before.plug(load) for load in loads]
    await before.close()
    _forget_all_but_files(before, data)
    after = HostFabric(_settings(data))
    await after.start()
    assert {plug.uid for plug in await after.interfaces()} == {load.uid for load in loads}
    assert [await after.plug(load) for load in loads] == links
    guest = TapGuest(links[1].tap, links[1].mac, "t")
    server = EchoServer(links[0].netns, 7012)
    with closing(guest, server):
        assert await asyncio.to_thread(guest.slaac) == links[1].address6
        assert await asyncio.to_thread(guest.dhcp) == links[1].address
        for address in links[0].addresses:
            assert await asyncio.to_thread(tcp_reaches, guest.path, address, 7012)
    with Netlink() as host:  # and somebody who removes a machine's tap gets it back as well
        host.delete_link(links[1].tap).commit()
    await asyncio.sleep(0.2)
    assert await after.plug(loads[1]) == links[1]
    guest = TapGuest(links[1].tap, links[1].mac, "t")
    with closing(guest):
        assert await asyncio.to_thread(guest.dhcp) == links[1].address
    await after.close()


def _forget_all_but_files(fabric: HostFabric, data: Path) -> None:
    """What a reboot does to a host."""
    for line in traces(fabric.names.tag, data):
        if line.startswith("process"):
            os.kill(int(line.split()[1].rstrip(":")), signal.SIGKILL)
    time.sleep(0.3)
    for space in Path("/run/netns").glob(fabric.names.netns_prefix + "*"):
        netns.delete(space)
    names = (fabric.names.bridge, fabric.names.node_link, fabric.names.datapath_link)
    with Netlink() as host:
        for link in host.links():
            if link.name in names or link.name.startswith(fabric.names.link_prefixes):
                host.delete_link(link.name).commit()
    six = fabric.ranges.six
    assert six is not None
    for network in (*fabric.ranges.by_wiring().values(), six.routed, six.bridged):
        family = f"-{network.version}"
        subprocess.run(["ip", family, "route", "del", "unreachable", str(network), "metric", "4000000"], check=True)
    for family in ("ip", "ip6"):
        subprocess.run(["nft", "delete", "table", family, fabric.names.nat_table], check=True)
    sysctl.give_back(data / "network/sysctl.json")


_VICTIM = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from fabric_support import workload
from isoplane.node.network.fabric import FabricSettings, HostFabric
from isoplane.workload.shape import InterfaceType

async def main():
    fabric = HostFabric(FabricSettings(Path(sys.argv[1]), cidr=sys.argv[3], enforced=False, quarantine_seconds=0))
    await fabric.start()
    print("started", flush=True)
    while True:
        for turn in range(6):
            uid = f"uid-{turn}"
            kind = InterfaceType.TAP if turn % 3 == 0 else InterfaceType.VETH
            await fabric.plug(workload(uid, kind, uid))
        for turn in range(0, 6, 2):
            await fabric.unplug(f"uid-{turn}")

asyncio.run(main())
"""


async def test_killed_at_random_points_it_leaks_nothing(data: Path) -> None:
    dice = random.Random(20)
    for _ in range(8):
        arguments = [sys.executable, "-c", _VICTIM, str(data), str(Path(__file__).parent.parent), RANGE]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as victim:  # noqa: ASYNC220
            if dice.random() < 0.7:
                assert victim.stdout is not None
                await asyncio.to_thread(victim.stdout.readline)
            await asyncio.sleep(dice.uniform(0.05, 0.4))
            victim.kill()
        fabric = HostFabric(_settings(data))
        await fabric.start()
        for plug in await fabric.interfaces():
            link = await fabric.plug(
                workload(plug.name, InterfaceType.TAP if plug.tap else InterfaceType.VETH, plug.uid)
            )
            assert link == plug
        plugs = await fabric.interfaces()
        with Netlink() as host:
            links = {link.name for link in host.links() if link.name.startswith(fabric.names.link_prefixes)}
        assert links == {plug.host_interface for plug in plugs}
        spaces = {str(entry) for entry in Path("/run/netns").glob(fabric.names.netns_prefix + "*")}
        assert spaces == {plug.netns for plug in plugs if plug.netns}
        assert all(netns.is_namespace(Path(space)) for space in spaces)
        for plug in plugs:
            if plug.netns:
                server = EchoServer(plug.netns, 7010)
                with closing(server):
                    assert await asyncio.to_thread(tcp_reaches, "", plug.address, 7010, timeout=5)
        await fabric.close()


async def test_two_planes_share_a_host(data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    one = HostFabric(_settings(data))
    two = HostFabric(FabricSettings(other, enforced=False, quarantine_seconds=0))
    try:
        async with asyncio.TaskGroup() as together:
            together.create_task(one.start())
            together.create_task(two.start())
        taps = [await plane.plug(workload("machine", InterfaceType.TAP)) for plane in (one, two)]
        guests = [TapGuest(tap.tap, tap.mac, "t") for tap in taps]
        with closing(*guests):
            for tap, guest in zip(taps, guests, strict=True):
                assert await asyncio.to_thread(guest.dhcp) == tap.address
            server = EchoServer(guests[1].path, 7011)
            with closing(server):
                assert await asyncio.to_thread(tcp_reaches, "", taps[1].address, 7011)
        clash = HostFabric(FabricSettings(tmp_path_factory.mktemp("third"), cidr=RANGE))
        with pytest.raises(FabricFailure, match="overlaps a route"):
            await clash.start()
    finally:
        await two.teardown()
    assert traces(two.names.tag, other) == []
    await one.close()


async def test_what_its_records_no_longer_tell_is_removed_by_its_settings(tmp_path: Path) -> None:
    """Somebody deleted the network's records under a running plane: the ranges that were asked for are known all the same."""
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", root=True)
    six = f"fd{random.randrange(1 << 8):02x}:{random.randrange(1 << 16):x}:5::/48"
    settings = FabricSettings(tmp_path, cidr=spare_range(20), cidr6=six, enforced=False)
    fabric = HostFabric(settings)
    await fabric.start()
    await fabric.plug(workload("pod"))
    assert fabric.ranges.six is not None
    networks = [str(network) for network in (fabric.ranges.routed, fabric.ranges.six.routed)]
    await fabric.close()
    for file in settings.directory.iterdir():
        if file.is_file():
            file.unlink()
    await HostFabric(settings).teardown()
    assert traces(settings.names.tag, tmp_path) == []
    with Netlink() as host:
        left = {route.destination for family in (socket.AF_INET, socket.AF_INET6) for route in host.routes(family)}
    assert left.isdisjoint(networks)
