"""What must hold around the rules: closed before, put back when meddled with, and no way past them by false addresses."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from fabric_support import (
    EchoServer,
    TapGuest,
    closing,
    eventually,
    family_of,
    pings,
    spare_range,
    tcp_reaches,
    traces,
    udp_reaches,
    udp_socket,
    workload,
)
from isoplane.node.network import netns
from isoplane.workload.shape import Attachment
from policy_lab import MIXES, PolicyLab
from support import require

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
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", root=True)
    labs: list[PolicyLab] = []

    async def started(*objects: object, mix: str = "nftables-and-openvswitch") -> PolicyLab:
        lab = PolicyLab(tmp_path, spare_range(), mix, (8080,))
        labs.append(lab)
        await lab.start([*LOADS, *objects])  # type: ignore[list-item]
        return lab

    yield started
    for lab in labs:
        await lab.stop()
        assert traces(lab.fabric.names.tag, tmp_path) == []


async def test_a_new_port_is_closed_until_its_rules_are_loaded(start: Start) -> None:
    lab = await start()
    for kind, name in ((Attachment.VETH, "pod/a/late"), (Attachment.TAP, "vmi/a/late")):
        load = workload("late", kind, uid=name, namespace="a")
        link = await lab.fabric.plug(load)
        if kind is Attachment.TAP:
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
async def test_a_teardown_alone_removes_the_rules_too(start: Start, mix: str) -> None:
    lab = await start(ONLY_ONE, mix=mix)
    await lab.enforcer.close()
    lab.engines.clear()
    del lab.enforcer  # the plane that ran it was killed; what is left is for the fabric of another process


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


async def test_rules_of_iptables_deleted_by_hand_come_back(start: Start) -> None:
    lab = await start(ONLY_ONE, mix="iptables")
    tag = lab.fabric.names.tag
    meddling = [
        ["iptables", "-F", f"ISP{tag}-FORWARD"],
        ["iptables", "-D", "FORWARD", "-j", f"ISP{tag}-FORWARD"],
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
