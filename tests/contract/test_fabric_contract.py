"""What every Fabric promises, real or simulated: addresses by uid, idempotence, durability, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from fabric_support import spare_range, traces, workload
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.protocol import Fabric, FabricFailure
from isoplane.node.network.settings import FabricSettings
from isoplane.node.network.simulated import SimulatedFabric
from isoplane.workload.shape import InterfaceType
from support import require

RANGE = spare_range(27)
Make = Callable[..., Fabric]


def _host(settings: FabricSettings) -> Fabric:
    return HostFabric(settings)


def _simulated(settings: FabricSettings) -> Fabric:
    return SimulatedFabric(settings)


@pytest_asyncio.fixture(params=["simulated", pytest.param("host", marks=pytest.mark.root)])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes fabrics on one data directory, one after the other as restarts do, and takes the last one down."""
    made: list[Fabric] = []
    build = _simulated
    if request.param == "host":
        require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", root=True)
        build = _host

    def another(**changes: object) -> Fabric:
        settings = FabricSettings(tmp_path, cidr=RANGE, enforced=False, quarantine_seconds=60)
        made.append(build(replace(settings, **changes)))  # type: ignore[arg-type]
        return made[-1]

    yield another
    await made[-1].teardown()
    assert traces(FabricSettings(tmp_path).names.tag, tmp_path) == []
    assert not (tmp_path / "network").exists()


async def test_every_workload_has_an_address_of_its_own(make: Make) -> None:
    fabric = make()
    await fabric.start()
    kinds = [InterfaceType.VETH, InterfaceType.TAP] * 3
    loads = [workload(f"w{i}", kind) for i, kind in enumerate(kinds)]
    links = await asyncio.gather(*(fabric.plug(load) for load in loads))
    addresses = {link.address for link in links}
    assert len(addresses) == len(links)
    assert all(ipaddress.ip_address(one) in ipaddress.ip_network(RANGE) for one in addresses)
    six = [ipaddress.IPv6Address(link.address6) for link in links]
    assert len(set(six)) == len(links)
    assert all(one in ipaddress.ip_network("fd00::/8") for one in six)
    assert all(ipaddress.ip_address(link.gateway6).is_link_local for link in links)
    assert not set(fabric.node_addresses) & (addresses | set(map(str, six)))
    assert len({link.mac for link in links}) == len(links)
    for load, link in zip(loads, links, strict=True):
        assert bool(link.tap) is (load.interface is InterfaceType.TAP)
        assert bool(link.netns) is (load.interface is InterfaceType.VETH)
        assert link.gateway
        assert link.host_interface
        assert len(link.host_interface) <= 15
    plugs = {plug.uid: plug for plug in await fabric.interfaces()}
    assert plugs == {load.uid: link for load, link in zip(loads, links, strict=True)}
    assert [plugs[load.uid].name for load in loads] == [load.name for load in loads]
    bridged = [plug for plug in plugs.values() if plug.tap]
    assert len({plug.ofport for plug in bridged} | {0}) == len(bridged) + 1
    assert len({plug.ofport for plug in bridged} | {0}) == len(bridged) + 1


async def test_plugging_and_unplugging_twice_changes_nothing(make: Make) -> None:
    fabric = make()
    await fabric.start()
    for kind in (InterfaceType.VETH, InterfaceType.TAP):
        load = workload("one", kind)
        first, second = await asyncio.gather(fabric.plug(load), fabric.plug(load))
        assert first == second == await fabric.plug(load)
        await fabric.unplug(load.uid)
        await fabric.unplug(load.uid)
        await fabric.unplug("never heard of")
        assert await fabric.interfaces() == []


async def test_a_host_workload_has_the_nodes_address_and_no_link(make: Make) -> None:
    fabric = make()
    await fabric.start()
    link = await fabric.plug(workload("host", InterfaceType.HOST))
    assert (link.addresses, link.netns, link.tap) == (fabric.node_addresses, "", "")
    assert len(link.addresses) == 2
    assert await fabric.interfaces() == []


async def test_a_restart_finds_everything_as_it_was(make: Make) -> None:
    fabric = make()
    await fabric.start()
    loads = [workload("pod"), workload("machine", InterfaceType.TAP)]
    links = [await fabric.plug(load) for load in loads]
    before = sorted(await fabric.interfaces(), key=lambda plug: plug.uid)
    await fabric.close()
    fabric = make()
    await fabric.start()
    assert sorted(await fabric.interfaces(), key=lambda plug: plug.uid) == before
    assert [await fabric.plug(load) for load in loads] == links


async def test_a_released_address_rests_even_across_a_restart(make: Make) -> None:
    fabric = make()
    await fabric.start()
    loads = [workload(f"w{i}") for i in range(13)]
    for load in loads:
        await fabric.plug(load)
    with pytest.raises(FabricFailure, match="no free address"):
        await fabric.plug(workload("too many"))
    await fabric.unplug(loads[3].uid)
    with pytest.raises(FabricFailure, match="1 released a moment ago"):
        await fabric.plug(workload("too soon"))
    await fabric.close()
    fabric = make()
    await fabric.start()
    with pytest.raises(FabricFailure, match="no free address"):
        await fabric.plug(workload("still too soon"))


async def test_another_range_is_refused_while_addresses_are_in_use(make: Make) -> None:
    fabric = make()
    await fabric.start()
    await fabric.plug(workload("pod"))
    await fabric.close()
    other = make(cidr=spare_range())
    with pytest.raises(FabricFailure, match="have addresses of"):
        await other.start()
    for wrong in ("100.104.0.0/31", "10.204.0.1/24", "fd00::/64", "nonsense"):
        with pytest.raises(FabricFailure, match="is not usable"):
            await make(cidr=wrong).start()
    await make().start()


async def test_without_ipv6_workloads_keep_or_get_ipv4_alone(make: Make) -> None:
    fabric = make()
    await fabric.start()
    assert fabric.ipv6_missing == ""
    early, late = workload("early"), workload("late", InterfaceType.TAP)
    link = await fabric.plug(early)
    await fabric.close()
    fabric = make(cidr6="none")
    await fabric.start()
    assert "turned off" in fabric.ipv6_missing
    assert len(fabric.node_addresses) == 1
    assert (await fabric.plug(early)).addresses == (await fabric.interfaces())[0].addresses == (link.address,)
    assert (await fabric.plug(late)).address6 == ""
    await fabric.close()
    fabric = make()
    await fabric.start()
    assert (await fabric.plug(early)).address6 == "", "its link was made, and may have been made again, without"
    assert (await fabric.plug(workload("later"))).address6


async def test_an_ipv6_range_of_ones_own(make: Make) -> None:
    fabric = make(cidr6="fd12:3456:789a:40::/58")
    await fabric.start()
    link = await fabric.plug(workload("pod"))
    assert ipaddress.IPv6Address(link.address6) in ipaddress.ip_network("fd12:3456:789a:40::/64")
    await fabric.close()
    with pytest.raises(FabricFailure, match="have addresses of fd12"):
        await make(cidr6="fd12:3456:789b::/48").start()
    for wrong in ("fd12::/64", "10.0.0.0/8", "fd12::1/48", "nonsense"):
        with pytest.raises(FabricFailure, match="is not usable"):
            await make(cidr6=wrong).start()
    fabric = make()
    await fabric.start()
    assert list(await fabric.interfaces()) == [link]


async def test_a_damaged_record_stops_the_start_and_not_the_teardown(make: Make, tmp_path: Path) -> None:
    fabric = make()
    await fabric.start()
    await fabric.plug(workload("pod"))
    await fabric.close()
    for left in (tmp_path / "network").glob("ipam.sqlite*"):
        left.unlink()
    (tmp_path / "network/ipam.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(FabricFailure, match="damaged"):
        await make().start()
