"""What must hold around the rules: closed before, put back when meddled with, and no way past them by false addresses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from fabric_support import (
    EchoServer,
    TapGuest,
    closing,
    eventually,
    family_of,
    inside,
    pings,
    tcp_reaches,
    tcp_socket,
    udp_reaches,
    udp_socket,
    workload,
)
from isoplane.node.network import netns
from isoplane.policy.openflow import COMMIT
from isoplane.workload.shape import InterfaceType
from policy_lab_support import MIXES, PolicyLab, labs

pytestmark = pytest.mark.root
Start = Callable[..., Awaitable[PolicyLab]]

LOADS = [
    {"kind": "Namespace", "metadata": {"name": "a"}},
    *(
        {"kind": "Pod", "metadata": {"name": name, "namespace": "a", "labels": {"app": name}}}
        for name in ("one", "two")
    ),
    *(
        {"kind": "VirtualMachineInstance", "metadata": {"name": name, "namespace": "a", "labels": {"app": name}}}
        for name in ("first", "second")
    ),
]
ONLY_ONE = {
    "kind": "NetworkPolicy",
    "metadata": {"name": "only-one", "namespace": "a"},
    "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "one"}}}]}]},
}


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with labs(tmp_path) as begin:

        async def started(*objects: object, mix: str = "nftables-and-openvswitch") -> PolicyLab:
            return await begin(mix, [*LOADS, *objects], (8080,))

        yield started


async def test_a_new_port_is_closed_until_its_rules_are_loaded(start: Start) -> None:
    lab = await start()
    for kind, name in ((InterfaceType.VETH, "pod/a/late"), (InterfaceType.TAP, "vmi/a/late")):
        load = workload("late", kind, uid=name, namespace="a")
        link = await lab.fabric.plug(load)
        if kind is InterfaceType.TAP:
            guest = TapGuest(link.tap, link.mac, "t")
            guest.use(link.address, link.prefix_length, link.gateway, link.address6, link.gateway6)
            path = guest.path
        else:
            guest, path = None, link.netns
        server = EchoServer(path, 8080)
        with closing(server, *([guest] if guest else [])):
            other = lab.places["pod/a/one"]
            assert lab.enforcer.enforced(name) is None
            for own, theirs in zip(link.addresses, other.addresses, strict=True):
                assert not await asyncio.to_thread(tcp_reaches, other.path, own, 8080, timeout=0.3)
                assert not await asyncio.to_thread(tcp_reaches, path, theirs, 8080, timeout=0.3)
            for theirs in lab.places["vmi/a/first"].addresses:
                assert not await asyncio.to_thread(udp_reaches, path, theirs, 8080, 0.3)
            lab._names[name] = name
            lab.cluster = lab.with_addresses(name, link.addresses)
            await lab.enforcer.request()
            assert lab.enforcer.enforced(name)
            for own, theirs in zip(link.addresses, other.addresses, strict=True):
                assert await asyncio.to_thread(tcp_reaches, other.path, own, 8080)
                assert await asyncio.to_thread(tcp_reaches, path, theirs, 8080)
        await lab.fabric.unplug(name)


@pytest.mark.parametrize("mix", ["nftables-and-openvswitch", "iptables"])
async def test_nobody_but_the_host_answers_dhcp_and_its_server_has_no_rights(start: Start, mix: str) -> None:
    lab = await start(mix=mix)
    for source, target in (("pod/a/one", "pod/a/two"), ("vmi/a/first", "vmi/a/second"), ("pod/a/one", "vmi/a/second")):
        one, two = lab.places[source], lab.places[target]
        for own, theirs in zip(one.addresses, two.addresses, strict=True):
            server, client = (547, 546) if ":" in own else (67, 68)
            asked = [(server, client), (server, client + 1000), (server + 1000, client)]
            heard = [await asyncio.to_thread(_arrives, one.path, own, two.path, theirs, *ports) for ports in asked]
            assert heard == [False, True, True], (source, target, own)
    found = [p for p in Path("/proc").glob("[0-9]*") if _serves(p, lab.fabric.settings.directory)]
    assert found
    for process in found:
        uids = next(line for line in (process / "status").read_text().splitlines() if line.startswith("Uid:"))
        assert "0" not in uids.split(), uids
    for interface in Path("/proc/sys/net/ipv4/conf").glob("i[vt]*"):
        if (interface / "forwarding").read_text().strip() == "1":
            assert (interface / "accept_redirects").read_text().strip() == "0", interface


def _arrives(source: str, own: str, target: str, theirs: str, sport: int, dport: int) -> bool:
    family = family_of(own)

    def bound(address: str, port: int) -> Callable[[], socket.socket]:
        def make() -> socket.socket:
            made = socket.socket(family, socket.SOCK_DGRAM)
            made.bind((address, port))
            return made

        return make

    with inside(target, bound(theirs, dport)) as server, inside(source, bound(own, sport)) as client:
        server.settimeout(0.3)
        for _ in range(2):
            client.sendto(b"offer", (theirs, dport))
            try:
                return server.recv(10) == b"offer"
            except TimeoutError:
                continue
    return False


def _serves(process: Path, directory: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return "dnsmasq" in words[0] and any(str(directory) in word for word in words)


@pytest.mark.parametrize("mix", ["nftables-and-openvswitch", "iptables"])
async def test_a_teardown_alone_removes_the_rules_too(start: Start, mix: str) -> None:
    lab = await start(ONLY_ONE, mix=mix)
    await lab.enforcer.close()
    lab.engines.clear()
    lab.enforcing = False  # the plane that ran it was killed; what is left is for the fabric of another process


@pytest.fixture
def late_revalidators(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Calling it leaves the threads that keep the switch's datapath up to date next to no time: their core is busy."""
    busy: list[subprocess.Popen[bytes]] = []

    def starve() -> None:
        pid = int((tmp_path / "network/ovs/ovs-vswitchd.pid").read_text())
        core = min(os.sched_getaffinity(0))
        threads = [
            int(task.name)
            for task in Path(f"/proc/{pid}/task").iterdir()
            if (task / "comm").read_text().startswith("revalidator")
        ]
        assert threads
        for thread in threads:
            os.sched_setaffinity(thread, {core})
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
        busy.append(subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"]))

    yield starve
    for one in busy:
        one.kill()
        one.wait()


async def test_enforced_flows_are_what_packets_go_by(start: Start, late_revalidators: Callable[[], None]) -> None:
    """Open vSwitch takes flows at once, and its datapath goes by the old ones until its revalidators were through."""
    lab = await start(mix="openvswitch")
    late_revalidators()
    ends = [
        (lab.places["pod/a/two"].path, place.address) for place in (lab.places["vmi/a/first"], lab.places["pod/a/one"])
    ]
    for turn in range(4):
        await lab.load([*LOADS, *([ONLY_ONE] if turn % 2 else [])])
        for path, address in ends:
            assert await asyncio.to_thread(pings, path, address, 0.3 if turn % 2 else 2.0) is not bool(turn % 2)


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_nobody_is_a_router_but_the_node(start: Start, mix: str) -> None:
    """A router advertisement of a workload would draw the traffic of its neighbours, and of the node, to itself."""
    lab = await start(mix=mix)
    prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
    option = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 1800, 1800, 0, prefix)
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option

    def ear(path: str) -> socket.socket:
        made = inside(path, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        return made

    def bound(one: socket.socket, address: tuple[str, int, int, int]) -> bool:
        """A link-local address is looked for on the link first, for a second."""
        try:
            one.bind(address)
            return True
        except OSError:
            return False

    def heard(listener: socket.socket) -> bool:
        """One that hosts may believe: from a link-local address, and not routed on the way (RFC 4861)."""
        listener.setblocking(False)
        try:
            while True:
                data, told, _, source = listener.recvmsg(1500, 64)
                if prefix in data and source[0].startswith("fe80:") and struct.unpack("=i", told[0][2]) == (255,):
                    return True
        except BlockingIOError:
            return False

    for liar in ("pod/a/one", "vmi/a/first"):
        ears = {name: ear(place.path) for name, place in lab.places.items()} | {"node": ear("")}
        with closing(*ears.values()), ear(lab.places[liar].path) as sender:
            index = netns.enter(Path(lab.places[liar].path), lambda: socket.if_nametoindex("eth0"))
            show = ["nsenter", f"--net={lab.places[liar].path}", "ip", "-6", "-j", "address", "show", "scope", "link"]
            shown = json.loads(await asyncio.to_thread(subprocess.check_output, show))
            own = next(
                one["local"] for link in shown if link.get("ifname") == "eth0" for one in link["addr_info"] if one
            )
            await eventually(lambda sender=sender, own=own, index=index: bound(sender, (own, 0, 0, index)))  # type: ignore[misc]
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
            for _ in range(3):
                sender.sendto(advertisement, ("ff02::1", 0, 0, index))
                for name, place in lab.places.items():
                    if name != liar:
                        sender.sendto(advertisement, (place.of(6), 0, 0, index))
                await asyncio.sleep(0.2)
            assert [name for name, one in ears.items() if heard(one)] == [liar], "what it says is for itself alone"


async def test_rules_deleted_by_hand_come_back(start: Start) -> None:
    lab = await start(ONLY_ONE)
    assert await lab.disagreements() == []
    table = lab.fabric.names.table
    assert lab.fabric.bridge is not None
    management = lab.fabric.bridge.management
    meddling = [
        ["nft", "delete", "table", "inet", table],
        ["nft", "flush", "chain", "inet", table, "forward"],
        ["nft", "flush", "map", "inet", table, "ingress6"],
        ["ovs-ofctl", "-OOpenFlow14", "del-flows", f"unix:{management}"],
        ["ovs-ofctl", "-OOpenFlow14", "add-flow", f"unix:{management}", "table=0,priority=65000,actions=NORMAL"],
        ["ovs-ofctl", "-OOpenFlow14", "mod-flows", f"unix:{management}", "table=30,actions=resubmit(,40)"],
    ]
    for turn, command in enumerate(meddling, 1):
        await asyncio.sleep(1.2)  # a look at what was loaded
        await asyncio.to_thread(subprocess.run, command, check=True)
        await eventually(lambda turn=turn: lab.enforcer.status.drifts >= turn, timeout=10)  # type: ignore[misc]
        assert await lab.disagreements() == [], command
    assert lab.enforcer.status.failures == {}


@pytest.mark.parametrize("mix", ["nftables-and-openvswitch", "iptables", "openvswitch"])
async def test_what_began_while_rules_were_gone_is_cut(start: Start, mix: str) -> None:
    lab = await start(ONLY_ONE, mix=mix)
    tag, bridge = lab.fabric.names.tag, lab.fabric.bridge
    opening = {
        "nftables-and-openvswitch": ["nft", "delete", "table", "inet", lab.fabric.names.table],
        "iptables": ["iptables", "-F", f"ISP{tag}-FORWARD"],
        "openvswitch": [
            "ovs-ofctl", "-OOpenFlow14", "add-flow", f"unix:{bridge.management if bridge else ''}",
            f"table=20,priority=65000,ip,actions=resubmit(,{COMMIT})",
        ],
    }  # fmt: skip
    source, target = lab.places["pod/a/two"], lab.places["pod/a/one"]
    assert not await asyncio.to_thread(tcp_reaches, source.path, target.address, 8080, timeout=0.3)
    await asyncio.sleep(1.2)  # a look at what was loaded
    await asyncio.to_thread(subprocess.run, opening[mix], check=True)
    with tcp_socket(source.path) as client:
        await asyncio.to_thread(client.connect, (target.address, 8080))
        client.sendall(b"in")
        assert await asyncio.to_thread(client.recv, 10) == b"in"
        await eventually(lambda: lab.enforcer.status.drifts >= 1, timeout=10)
        await eventually(lambda: lab.enforcer.status.cut >= 1, timeout=10)
        client.sendall(b"still in")
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(client.recv, 10)


async def test_rules_of_iptables_deleted_by_hand_come_back(start: Start) -> None:
    lab = await start(ONLY_ONE, mix="iptables")
    tag = lab.fabric.names.tag
    meddling = [
        ["iptables", "-F", f"ISP{tag}-FORWARD"],
        ["iptables", "-D", "FORWARD", "-j", f"ISP{tag}-ENTER-FORWARD"],
        ["ip6tables", "-F", f"ISP{tag}-FORWARD"],
        ["ipset", "flush", f"isp{tag}-workloads6"],
        ["sh", "-c", f"ipset add $(ipset list -n | grep 'isp{tag}-i4.*-w$' | head -n 1) 0.0.0.0/1"],
    ]
    for turn, command in enumerate(meddling, 1):
        await asyncio.sleep(1.2)
        await asyncio.to_thread(subprocess.run, command, check=True)
        await eventually(lambda turn=turn: lab.enforcer.status.drifts >= turn, timeout=10)  # type: ignore[misc]
        assert await lab.disagreements() == [], command
    assert lab.enforcer.status.failures == {}


async def test_a_killed_switch_is_closed_until_its_rules_are_back(start: Start, tmp_path: Path) -> None:
    lab = await start(ONLY_ONE)
    assert lab.fabric.bridge is not None
    resets: list[int] = []
    lab.fabric.on_reset(lambda: resets.append(1))
    os.kill(int((tmp_path / "network/ovs/ovs-vswitchd.pid").read_text()), signal.SIGKILL)
    forbidden = (lab.places["vmi/a/second"].path, lab.places["vmi/a/first"].address, 8080)
    passed = False
    while not resets:
        passed |= await asyncio.to_thread(tcp_reaches, *forbidden, timeout=0.05)
    assert not passed
    await lab.enforcer.request()
    assert await lab.disagreements() == []


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_a_false_source_address_is_dropped(start: Start, mix: str) -> None:
    lab = await start(ONLY_ONE, mix=mix)
    targets = [lab.places["pod/a/two"], lab.places["vmi/a/first"]]
    honest = lab.places["pod/a/one"].addresses
    lies = [*honest, *lab.fabric.node_addresses, "192.0.2.77", "2001:db8::77", "fe80::77"]
    for liar in ("vmi/a/second", "pod/a/two", "vmi/a/first"):
        for target in targets:
            if target.id == liar:
                continue
            with udp_socket(target.path, "::") as listener:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                listener.bind(("::", 9999))
                listener.settimeout(0.3)
                for false in lies:
                    aim = target.addresses[":" in false]
                    await asyncio.to_thread(_send_raw, lab.places[liar].path, false, aim, 9999)
                with pytest.raises(TimeoutError):
                    print(liar, target.id, await asyncio.to_thread(listener.recvfrom, 100))
    # and the rules still work for the honest
    for address in targets[1].addresses:
        assert await asyncio.to_thread(tcp_reaches, lab.places["pod/a/one"].path, address, 8080)
        assert await asyncio.to_thread(pings, "", address)


def _send_raw(path: str, source: str, target: str, port: int) -> None:
    """One UDP packet with a source address of one's choice."""
    payload = b"false"
    family = family_of(target)
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    udp = struct.pack("!HHHH", 40000, port, 8 + len(payload), 0) + payload
    if family == socket.AF_INET6:
        total = sum(struct.unpack(f"!{len(ends) // 2}H", ends)) + 17 + len(udp)  # IPv6 takes no packet without checksum
        total += sum(struct.unpack(f"!{(len(udp) + 1) // 2}H", udp + bytes(len(udp) % 2)))
        total = (total >> 16) + (total & 0xFFFF)
        udp = udp[:6] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + udp[8:]
        header = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + ends
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends

    def inside() -> None:
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            if family == socket.AF_INET:
                raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            raw.sendto(header + udp, (target, 0))

    netns.enter(Path(path), inside)
