"""Scenarios that change a whole host, run by test_fabric_host.py in a network namespace that stands for one.

unshare --net python fabric_private_host_support.py SCENARIO DIRECTORY
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fabric_support import EchoServer, TapGuest, peer_seen_by, tcp_reaches, traces, workload
from isoplane.node.network import netns
from isoplane.node.network.engines.choose import engines_for
from isoplane.node.network.fabric import FabricSettings, HostFabric
from isoplane.node.network.protocol import FabricFailure
from isoplane.workload.shape import InterfaceType

OUTSIDE, HOST_OUTSIDE = "198.51.100.2", "198.51.100.1"
OUTSIDE6, HOST_OUTSIDE6 = "2001:db8::2", "2001:db8::1"


def sh(command: str) -> str:
    return subprocess.run(["sh", "-ec", command], check=True, capture_output=True, text=True).stdout


async def refusal(fabric: HostFabric) -> str:
    """Why it does not start."""
    try:
        await fabric.start()
    except FabricFailure as failure:
        return str(failure)
    return "it started"


def forwarding() -> list[str]:
    """Of IPv4; of IPv6 as a whole, on an interface that forwards anyway, and whether routers are listened to."""
    names = (
        "ipv4/conf/wan0/forwarding",
        "ipv6/conf/all/forwarding",
        "ipv6/conf/lo/forwarding",
        "ipv6/conf/wan0/accept_ra",
    )
    return [Path("/proc/sys/net", name).read_text().strip() for name in names]


async def outside(data: Path) -> None:
    """Workloads reach the outside behind the host's address, though the host's firewall forwards nothing by default."""
    path = Path(f"/run/netns/outside-{os.getpid()}")
    netns.prepare(path.parent)
    sh(f"ip link set lo up; ip netns add {path.name}; ip link add wan0 type veth peer name wan0 netns {path.name}")
    sh(f"ip addr add {HOST_OUTSIDE}/24 dev wan0; ip link set wan0 up; ip route add default via {OUTSIDE}")
    sh(f"ip -n {path.name} addr add {OUTSIDE}/24 dev wan0; ip -n {path.name} link set wan0 up")
    sh(f"ip addr add {HOST_OUTSIDE6}/64 dev wan0 nodad; ip -n {path.name} addr add {OUTSIDE6}/64 dev wan0 nodad")
    sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; echo 1 >/proc/sys/net/ipv6/conf/lo/forwarding")
    before = sh("ip -6 route show; ip -6 rule")
    server = EchoServer(str(path), 7)
    fabric = HostFabric(FabricSettings(data, enforced=False, quarantine_seconds=0))
    try:
        assert forwarding() == ["0", "0", "1", "1"]
        await fabric.start()
        assert forwarding() == ["1", "1", "1", "2"]
        pod, other = await fabric.plug(workload("pod")), await fabric.plug(workload("other"))
        tap = await fabric.plug(workload("machine", InterfaceType.TAP))
        guest, inner = TapGuest(tap.tap, tap.mac, "t"), EchoServer(other.netns, 8)
        guest.use(tap.address, tap.prefix_length, tap.gateway, tap.address6, tap.gateway6)
        for source in (pod.netns, guest.path):
            assert await asyncio.to_thread(peer_seen_by, source, OUTSIDE, 7) == HOST_OUTSIDE
            assert await asyncio.to_thread(peer_seen_by, source, OUTSIDE6, 7) == HOST_OUTSIDE6
            for address in other.addresses:
                assert await asyncio.to_thread(tcp_reaches, source, address, 8)
        sh(f"nft delete table ip6 {fabric.names.nat_table}; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
        await asyncio.sleep(3)
        assert await asyncio.to_thread(peer_seen_by, pod.netns, OUTSIDE, 7) == HOST_OUTSIDE
        assert await asyncio.to_thread(peer_seen_by, pod.netns, OUTSIDE6, 7) == HOST_OUTSIDE6
        inner.close()
        guest.close()
    finally:
        await fabric.teardown()
        server.close()
        netns.delete(path)
    assert forwarding() == ["0", "0", "1", "1"]
    assert sh("ip -6 route show; ip -6 rule") == before
    assert "isoplane" not in sh("iptables-save; ip6tables-save; nft list ruleset")
    assert traces(fabric.names.tag, data) == []


async def without_ipv6(data: Path) -> None:
    """A host whose IPv6 is switched off runs IPv4 alone and says so, and refuses a range that is asked for."""
    sh("ip link set lo up; echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")
    asked = HostFabric(FabricSettings(data / "a", cidr6="fd12:3456:789a::/48"))
    assert "net.ipv6.conf.all.disable_ipv6=0 enables it" in await refusal(asked)
    await asked.teardown()
    fabric = HostFabric(FabricSettings(data / "b", enforced=False, quarantine_seconds=0))
    try:
        await fabric.start()
        assert "IPv6 is disabled on this host" in fabric.ipv6_missing
        pod, tap = await fabric.plug(workload("pod")), await fabric.plug(workload("machine", InterfaceType.TAP))
        assert (pod.address6, tap.address6, len(fabric.node_addresses)) == ("", "", 1)
        guest = TapGuest(tap.tap, tap.mac, "t")
        assert await asyncio.to_thread(guest.dhcp) == tap.address
        server = EchoServer(pod.netns, 8)
        assert await asyncio.to_thread(tcp_reaches, guest.path, pod.address, 8)
        server.close()
        guest.close()
        assert sh("ip -6 route show; nft list tables ip6") == ""
        assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == "0\n"
    finally:
        await fabric.teardown()
    assert traces(fabric.names.tag, data) == []


async def theirs(data: Path) -> None:
    """A host with an Open vSwitch of its own: its daemons are used, and stay as they were."""
    run = data / "theirs"
    run.mkdir()
    sh("ip link set lo up")
    environment = f"export OVS_RUNDIR={run} OVS_LOGDIR={run} OVS_DBDIR={run}; cd {run}"
    options = "--pidfile --detach --no-chdir --log-file -vconsole:off"
    sh(f"{environment}; ovsdb-tool create conf.db /usr/share/openvswitch/vswitch.ovsschema")
    sh(f"{environment}; ovsdb-server conf.db --remote=punix:{run}/db.sock {options}")
    sh(f"{environment}; ovs-vsctl --no-wait init -- set Open_vSwitch . other_config:userspace-tso-enable=true")
    sh(f"{environment}; ovs-vswitchd unix:{run}/db.sock {options}")
    sh(f"{environment}; ovs-vsctl add-br theirs -- set bridge theirs datapath_type=netdev")
    pids = {tool: int((run / f"{tool}.pid").read_text()) for tool in ("ovsdb-server", "ovs-vswitchd")}
    settings = FabricSettings(data / "plane", openvswitch_rundir=run, datapath="netdev", quarantine_seconds=0)
    fabric = HostFabric(settings)
    try:
        await fabric.start()
        assert fabric.bridge is not None
        assert not fabric.bridge.switch.owned
        for engine in engines_for(fabric):
            await engine.start()
            if engine.name == "openvswitch":
                await engine.apply("table=0,priority=0,actions=NORMAL\n", "00000000000000aa")
                assert await engine.revision() == "00000000000000aa"
                assert await engine.connections({"10.0.0.1"}) == []
            else:
                await engine.clear()
        tap = await fabric.plug(workload("machine", InterfaceType.TAP))
        guest = TapGuest(tap.tap, tap.mac, "t")
        assert await asyncio.to_thread(guest.dhcp) == tap.address
        guest.close()
    finally:
        await fabric.teardown()
        left = sh(f"{environment}; ovs-vsctl list-br")
        for tool in ("ovs-vswitchd", "ovsdb-server"):
            sh(
                f"{environment}; ovs-appctl -t {run}/{tool}.{pids[tool]}.ctl exit {'--cleanup' if tool[4] == 'v' else ''}"
            )
    assert left.split() == ["theirs"]


async def user(data: Path) -> None:
    """Somebody who may not change the host is told so, and what to do."""
    public = Path(tempfile.mkdtemp(prefix="isoplane-"))
    os.chown(public, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    fabric = HostFabric(FabricSettings(public / "data"))
    assert "run as root, or use --runtime simulated" in await refusal(fabric)
    await fabric.close()
    shutil.rmtree(public)


async def squatter(data: Path) -> None:
    """A range that clashes with the host's routes is refused when asked for, and avoided when not."""
    sh(
        "ip link set lo up; ip link add vpn0 type veth peer name vpn1; ip addr add 10.244.7.1/24 dev vpn0; ip link set vpn0 up"
    )
    asked = HostFabric(FabricSettings(data / "a", cidr="10.244.0.0/16"))
    assert "10.244.7.0/24 on vpn0" in await refusal(asked)
    free = HostFabric(FabricSettings(data / "b"))
    await free.start()
    assert str(free.ranges.whole) == "10.245.0.0/16"
    await free.close()
    again = HostFabric(FabricSettings(data / "b"))
    await again.start()
    assert str(again.ranges.whole) == "10.245.0.0/16"
    await again.teardown()
    await asked.teardown()


if __name__ == "__main__":
    scenarios = {one.__name__: one for one in (outside, without_ipv6, theirs, user, squatter)}
    asyncio.run(scenarios[sys.argv[1]](Path(sys.argv[2])))
