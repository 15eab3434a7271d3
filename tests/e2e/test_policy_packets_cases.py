# ruff: noqa: E501 - tables of one-line policies
"""The corner cases of the NetworkPolicy API with real packets, by every engine.

docs/concepts/network-policy-cases.md lists all of them with their tests.  Answers are written down here, not only asked of
the reference: both must say the same.  That engines agree where they meet is the random policies' business.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from fabric_support import TapGuest, pings, spare_range, tcp_reaches, udp_reaches, udp_socket, workload
from isoplane.node.network.process import run
from isoplane.node.network.settings import Wiring
from isoplane.node.network.verify.probes import inside
from policy_lab_support import PolicyLab, labs

pytestmark = pytest.mark.root
Start = Callable[[str], Awaitable[PolicyLab]]
CIDR = spare_range()
HTTP, OTHER_PORT, DNS = 8080, 9090, 53

LOADS = """
{kind: Namespace, metadata: {name: a, labels: {team: red}}}
---
{kind: Namespace, metadata: {name: b, labels: {team: blue}}}
---
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]}
---
{kind: Pod, metadata: {name: client, namespace: a, labels: {app: client}}}
---
kind: VirtualMachineInstance
metadata: {name: machine, namespace: a, labels: {app: web}}
spec: {domain: {devices: {interfaces: [{name: default, bridge: {}, ports: [{name: http, port: 9090}]}]}}}
---
{kind: VirtualMachineInstance, metadata: {name: guest, namespace: b, labels: {app: client}}}
"""
CLIENT, WEB, MACHINE, GUEST = "pod/a/client", "pod/a/web", "vmi/a/machine", "vmi/b/guest"
Asked = tuple[str, str, str, int]


def loads(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    """The workloads; ``changed``: name → fields of its top level to put in place of its own."""
    found = list(yaml.safe_load_all(LOADS))
    return [{**one, **changed.get(one["metadata"]["name"], {})} for one in found]


def policy(spec: str, number: int = 0, namespace: str = "a") -> dict[str, Any]:
    meta = {"name": f"p{number}", "namespace": namespace}
    return {"kind": "NetworkPolicy", "metadata": meta, "spec": {"podSelector": {}, **yaml.safe_load(spec)}}


def tcp(source: str, target: str, port: int = HTTP) -> Asked:
    return source, target, "TCP", port


def icmp(source: str, target: str) -> Asked:
    return source, target, "OTHER", 0


CLIENTS = "podSelector: {matchLabels: {app: client}}"
PLAIN: dict[str, tuple[list[str], dict[Asked, bool]]] = {
    "01 no peers": (["ingress: [{}]"], {tcp(CLIENT, WEB): True, tcp(GUEST, MACHINE): True, tcp(GUEST, WEB): True}),
    "01 empty peers": (["ingress: [{from: []}]"], {tcp(CLIENT, MACHINE): True, tcp(GUEST, WEB): True}),
    "01 no rules": (
        ["ingress: []"],
        {tcp(CLIENT, WEB): False, tcp(GUEST, MACHINE): False, tcp(CLIENT, MACHINE): False, tcp(WEB, GUEST): True, tcp(WEB, WEB): True},
    ),
    "02 an empty podSelector is this namespace": (["ingress: [{from: [{podSelector: {}}]}]"], {tcp(CLIENT, MACHINE): True, tcp(GUEST, WEB): False}),
    "02 an empty namespaceSelector is all": (["ingress: [{from: [{namespaceSelector: {}}]}]"], {tcp(CLIENT, MACHINE): True, tcp(GUEST, WEB): True}),
    "03 both in one peer": (
        [f"ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{team: blue}}}}, {CLIENTS}}}]}}]"],
        {tcp(GUEST, WEB): True, tcp(GUEST, MACHINE): True, tcp(CLIENT, WEB): False},
    ),
    "03 in two peers": (
        [f"ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{team: blue}}}}}}, {{{CLIENTS}}}]}}]"],
        {tcp(GUEST, WEB): True, tcp(CLIENT, MACHINE): True, tcp(MACHINE, WEB): False},
    ),
    "04 only ingress is governed": (["ingress: [{}]"], {tcp(WEB, GUEST): True}),
    "04 egress rules govern egress, and ingress too": (
        ["egress: [{to: [{podSelector: {}}]}]"],
        {tcp(MACHINE, GUEST): False, tcp(WEB, CLIENT): False, tcp(GUEST, WEB): False},
    ),
    "04 egress alone": ([f"{{policyTypes: [Egress], egress: [{{to: [{{{CLIENTS}}}]}}]}}"], {tcp(MACHINE, CLIENT): True, tcp(CLIENT, WEB): False, tcp(GUEST, WEB): True}),
    "05 a block covers workloads": ([f"ingress: [{{from: [{{ipBlock: {{cidr: {CIDR}}}}}]}}]"], {tcp(GUEST, WEB): True, tcp(CLIENT, MACHINE): True}),
    "06 an exception": (
        [f"ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [{CIDR}]}}}}]}}]"],
        {tcp(GUEST, WEB): False, tcp(CLIENT, MACHINE): False},
    ),
    "06 an exception that another policy allows": (
        [f"ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0, except: [{CIDR}]}}}}]}}]", f"ingress: [{{from: [{{{CLIENTS}}}]}}]"],
        {tcp(GUEST, WEB): False, tcp(CLIENT, MACHINE): True},
    ),
    "08 a named port, each destination's own": (
        ["{policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"],
        {tcp(CLIENT, WEB, HTTP): True, tcp(CLIENT, MACHINE, OTHER_PORT): True, tcp(CLIENT, MACHINE, HTTP): False, tcp(MACHINE, GUEST, HTTP): False},
    ),
    "08 of the wrong protocol": (["ingress: [{ports: [{port: dns}]}]"], {tcp(CLIENT, WEB, DNS): False, (CLIENT, WEB, "UDP", DNS): False}),
    "08 that nobody serves": (["ingress: [{ports: [{port: nobody}]}]"], {tcp(CLIENT, WEB): False, tcp(GUEST, MACHINE): False}),
    "09 a range at its bounds": (
        ["ingress: [{ports: [{port: 54, endPort: 8080}, {port: 9091, endPort: 9100}]}]"],
        {tcp(CLIENT, WEB, HTTP): True, tcp(GUEST, MACHINE, HTTP): True, tcp(CLIENT, MACHINE, DNS): False, tcp(GUEST, WEB, OTHER_PORT): False},
    ),
    "09 and at its other ones": (
        ["ingress: [{ports: [{port: 53, endPort: 8079, protocol: SCTP}, {port: 8081, endPort: 9090, protocol: SCTP}]}]"],
        {
            (CLIENT, MACHINE, "SCTP", DNS): True, (GUEST, WEB, "SCTP", OTHER_PORT): True, (GUEST, WEB, "SCTP", HTTP): False,
            (CLIENT, MACHINE, "SCTP", HTTP): False, (CLIENT, WEB, "SCTP", HTTP): False, tcp(CLIENT, WEB, DNS): False,
        },
    ),
    "10 a protocol without a port": (
        ["ingress: [{ports: [{protocol: UDP}]}]"],
        {(CLIENT, WEB, "UDP", HTTP): True, (GUEST, MACHINE, "UDP", DNS): True, tcp(CLIENT, WEB): False, tcp(GUEST, MACHINE): False},
    ),
    "11 ICMP and a rule with ports": (["ingress: [{ports: [{port: 8080}]}]"], {icmp(CLIENT, WEB): False, icmp(GUEST, MACHINE): False, tcp(GUEST, MACHINE): True}),
    "11 ICMP and a rule without": (["ingress: [{from: [{podSelector: {}}]}]"], {icmp(CLIENT, MACHINE): True, icmp(GUEST, WEB): False}),
    "17 egress without a rule for DNS": (
        ["{policyTypes: [Egress], egress: [{ports: [{port: 8080}]}]}"],
        {(CLIENT, WEB, "UDP", DNS): False, (MACHINE, GUEST, "UDP", DNS): False, tcp(CLIENT, WEB): True},
    ),
    "21 the name label of a namespace": (
        ["ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}]}]"],
        {tcp(GUEST, WEB): True, tcp(GUEST, MACHINE): True, tcp(CLIENT, WEB): False, tcp(MACHINE, WEB): False},
    ),
}  # fmt: skip


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with labs(tmp_path, "iptables", "ipset", "busybox") as begin:

        async def started(mix: str) -> PolicyLab:
            return await begin(mix, loads(), (DNS, HTTP, OTHER_PORT), CIDR)

        yield started


async def agree(lab: PolicyLab, case: str, objects: list[dict[str, Any]], wanted: dict[Asked, bool]) -> None:
    await lab.load(objects)
    """As the case says over IPv4, and as the reference says over either: a block of IPv4 says nothing of IPv6."""
    assert {asked: lab.expected(*asked) for asked in wanted} == wanted, case
    both = [(*asked, family) for asked in wanted for family in lab.families]
    assert [str(wrong) for wrong in await lab.disagreements(both)] == [], case


@pytest.mark.parametrize("mix", ["nftables", "iptables", "openvswitch"])
async def test_plain_cases(start: Start, mix: str) -> None:
    lab = await start(mix)
    for case, (specs, wanted) in PLAIN.items():
        await agree(lab, case, [*loads(), *(policy(spec, n) for n, spec in enumerate(specs))], wanted)


@pytest.mark.parametrize("mix", ["nftables-and-openvswitch", "iptables", "openvswitch"])
async def test_cases_with_packets_of_their_own(start: Start, mix: str) -> None:
    """One lab for all, for a lab costs more than a case."""
    lab = await start(mix)
    for case in (
        related_errors_pass,
        dhcp_and_neighbours_survive_a_default_deny,
        a_workload_reaches_itself_and_its_node_it,
        host_network_is_no_peer,
        a_forged_reply_is_denied,
        labels_of_workloads_and_namespaces_change,
        fragments_are_judged_as_their_packets,
        a_repeated_syn_is_denied_again,
        what_begins_in_the_middle_is_dropped,
        a_finished_workload_is_no_peer,
        an_address_is_used_again,
        translated_destinations_are_judged_where_they_go,
    ):
        await case(lab)


SHUT = "{policyTypes: [Ingress, Egress]}"


async def related_errors_pass(lab: PolicyLab) -> None:
    """11: nobody listens on the port that is allowed, and the error that says so comes back."""
    await lab.load(
        [
            *loads(),
            policy(
                "{policyTypes: [Ingress, Egress], egress: [{ports: [{port: 7, protocol: UDP}]}], ingress: [{ports: [{port: 7, protocol: UDP}]}]}"
            ),
        ]
    )

    def refused(source: str, target: str) -> bool:
        with udp_socket(lab.places[source].path) as client:
            client.connect((lab.places[target].address, 7))
            try:
                client.send(b"anybody?")
                client.recv(100)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
        return False

    for pair in ((CLIENT, WEB), (CLIENT, MACHINE), (MACHINE, WEB)):
        assert await asyncio.to_thread(refused, *pair), pair


async def dhcp_and_neighbours_survive_a_default_deny(lab: PolicyLab) -> None:
    """12: a machine that is denied everything still gets its address, and finds who may talk to it."""
    await lab.load([*loads(), policy(SHUT), policy(SHUT, namespace="b")])
    for name in (MACHINE, GUEST):
        guest = lab.places[name].guest
        assert guest is not None
        assert await asyncio.to_thread(TapGuest.slaac, guest) == lab.places[name].of(6)  # type: ignore[arg-type]
        assert await asyncio.to_thread(TapGuest.dhcp, guest) == lab.places[name].address  # type: ignore[arg-type]
        await run("nsenter", f"--net={lab.places[name].path}", "ip", "neigh", "flush", "dev", "eth0")
    for address in lab.places[MACHINE].addresses:
        assert await asyncio.to_thread(tcp_reaches, "", address, HTTP), "the node finds it again"


async def a_workload_reaches_itself_and_its_node_it(lab: PolicyLab) -> None:
    """13 and 14, under the same default deny; the exemption is the node's, not the workload's."""
    for place in lab.places.values():
        assert await asyncio.to_thread(tcp_reaches, place.path, place.address, HTTP), place.id
        assert await asyncio.to_thread(tcp_reaches, "", place.address, HTTP), place.id
        assert await asyncio.to_thread(pings, "", place.address), place.id
        assert not await asyncio.to_thread(pings, place.path, lab.fabric.node_addresses[0], 0.3), place.id


async def host_network_is_no_peer(lab: PolicyLab) -> None:
    """15: the labels of a workload in the host's network open nothing to or from it."""
    host = {"kind": "Pod", "metadata": {"name": "host", "namespace": "a", "labels": {"app": "host"}}}
    host |= {"spec": {"hostNetwork": True, "nodeName": "node"}, "status": {"podIP": lab.fabric.node_addresses[0]}}
    await lab.load(
        [*loads(), host, policy("{policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: host}}}]}]}")]
    )
    for name in (CLIENT, MACHINE):
        assert not await asyncio.to_thread(pings, lab.places[name].path, lab.fabric.node_addresses[0], 0.3), name
    await lab.load(
        [
            *loads(),
            host,
            policy(
                f"{{policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: {lab.fabric.node_addresses[0]}/32}}}}]}}]}}"
            ),
        ]
    )
    for name in (CLIENT, MACHINE):
        assert await asyncio.to_thread(pings, lab.places[name].path, lab.fabric.node_addresses[0]), (
            "5: a block covers the node"
        )


async def a_forged_reply_is_denied(lab: PolicyLab) -> None:
    """19: who may send but not be answered is sent a packet that looks like the answer."""
    await lab.load(
        [
            *loads(),
            *(
                policy(f"{{podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Ingress, Egress]}}", n)
                for n, app in enumerate(("web",))
            ),
        ]
    )
    for sender, liar in ((CLIENT, WEB), (GUEST, MACHINE), (CLIENT, MACHINE), (GUEST, WEB)):
        with udp_socket(lab.places[sender].path) as asks, udp_socket(lab.places[liar].path) as lies:
            asks.bind(("0.0.0.0", 40001))
            lies.bind(("0.0.0.0", 40002))
            asks.sendto(b"question", (lab.places[liar].address, 40002))
            await asyncio.sleep(0.1)
            lies.sendto(b"answer", (lab.places[sender].address, 40001))
            asks.settimeout(0.3)
            with pytest.raises(TimeoutError):
                print(sender, liar, await asyncio.to_thread(asks.recv, 100))


async def labels_of_workloads_and_namespaces_change(lab: PolicyLab) -> None:
    """20: what a label opened, its loss closes, and the other way round."""
    gate = policy(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: client}}}]}]"
    )
    both = (tcp(GUEST, WEB), tcp(GUEST, MACHINE))
    other = {"metadata": {"name": "guest", "namespace": "b", "labels": {"app": "other"}}}
    green = {"metadata": {"name": "b", "labels": {"team": "green"}}}
    for case, changed, answer in (
        ("as it was", {}, True),
        ("another label", {"guest": other}, False),
        ("back", {}, True),
        ("another team", {"b": green}, False),
    ):
        await agree(lab, case, [*loads(**changed), gate], dict.fromkeys(both, answer))


async def fragments_are_judged_as_their_packets(lab: PolicyLab) -> None:
    """23: a datagram in pieces passes where it may, and no piece of it where it may not.

    Open vSwitch sees no ports in later pieces: there a connection must begin with a whole packet, and a first one in pieces is lost.
    """
    await lab.load([*loads(), policy(f"ingress: [{{ports: [{{port: {DNS}, protocol: UDP}}]}}]")])

    def echoed(source: str, target: str, port: int, timeout: float, begun: bool = False) -> bool:
        data = bytes(range(250)) * 16
        with udp_socket(lab.places[source].path) as client:
            client.settimeout(timeout)
            client.connect((lab.places[target].address, port))
            try:
                for one in (b"whole", data) if begun else (data,):
                    client.send(one)
                    if client.recv(65536) != one:
                        return False
            except TimeoutError:
                return False
            return True

    for pair in ((CLIENT, WEB), (GUEST, MACHINE), (CLIENT, MACHINE), (GUEST, WEB)):
        bridged = any(lab.places[end].bridged for end in pair)
        assert await asyncio.to_thread(echoed, *pair, DNS, 4, bridged), pair
        for begun in (False, True):
            with _watch(lab.places[pair[1]].path, socket.IPPROTO_UDP) as seen:
                assert not await asyncio.to_thread(echoed, *pair, HTTP, 0.3, begun), pair
                assert _from(seen, lab.places[pair[0]].address) == [], pair


@contextmanager
def _watch(path: str, protocol: int) -> Iterator[socket.socket]:
    """Every packet of a protocol that a namespace gets."""
    with inside(path, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)) as raw:
        raw.setblocking(False)
        yield raw


def _from(seen: socket.socket, address: str) -> list[bytes]:
    found = []
    while True:
        try:
            data, sender = seen.recvfrom(65536)
        except BlockingIOError:
            return found
        if sender[0] == address:
            found.append(data)


async def a_repeated_syn_is_denied_again(lab: PolicyLab) -> None:
    """23: the kernel repeats a SYN that nobody answers after a second."""
    await lab.load([*loads(), policy("ingress: []")])
    for pair in ((CLIENT, WEB), (GUEST, MACHINE)):
        with _watch(lab.places[pair[1]].path, socket.IPPROTO_TCP) as seen:
            source, target = lab.places[pair[0]], lab.places[pair[1]]
            assert not await asyncio.to_thread(tcp_reaches, source.path, target.address, HTTP, timeout=1.5), pair
            assert _from(seen, source.address) == [], pair


async def what_begins_in_the_middle_is_dropped(lab: PolicyLab) -> None:
    """23: an ACK without a connection, also where the connection would be allowed, and where the other side's would be."""
    await lab.load([*loads(), policy(f"ingress: [{{ports: [{{port: {HTTP}}}]}}]")])
    for pair in ((CLIENT, WEB), (GUEST, MACHINE), (WEB, GUEST), (CLIENT, MACHINE)):
        source, target = lab.places[pair[0]], lab.places[pair[1]]
        with _watch(target.path, socket.IPPROTO_TCP) as seen:
            for own, port in ((40003, HTTP), (HTTP, 40003)):
                await asyncio.to_thread(_send_ack, source.path, source.address, target.address, own, port)
            await asyncio.sleep(0.2)
            assert _from(seen, source.address) == [], pair


def _send_ack(path: str, source: str, target: str, own: int, port: int) -> None:
    bare = struct.pack("!HHIIBBHHH", own, port, 1000, 2000, 5 << 4, 0x10, 64240, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(bare))
    total = sum(struct.unpack(f"!{len(pseudo + bare) // 2}H", pseudo + bare))
    total = (total >> 16) + (total & 0xFFFF)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    with inside(path, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)) as raw:
        raw.sendto(bare[:16] + struct.pack("!H", checksum) + bare[18:], (target, 0))


async def a_finished_workload_is_no_peer(lab: PolicyLab) -> None:
    """26: its address may be somebody else's by tomorrow."""
    gate = policy(f"ingress: [{{from: [{{{CLIENTS}}}]}}]")
    both = (tcp(CLIENT, WEB), tcp(CLIENT, MACHINE))
    await agree(lab, "running", [*loads(), gate], dict.fromkeys(both, True))
    await agree(lab, "finished", [*loads(client={"status": {"phase": "Succeeded"}}), gate], dict.fromkeys(both, False))


async def an_address_is_used_again(lab: PolicyLab) -> None:
    """20: a connection to a workload that is gone is none to the next one with its address."""
    await lab.load([*loads(), policy("ingress: []", namespace="b")])
    before, source = lab.cluster, lab.places[CLIENT]
    cursor = lab.fabric._ipam._cursor
    round_ago = dict(cursor)
    with udp_socket(source.path) as client:
        client.bind(("0.0.0.0", 40004))
        client.settimeout(4)
        addresses = []
        for name in ("pod/a/late", "pod/b/later"):
            cursor.update(round_ago)  # as when all the others were leased in between
            link = await lab.fabric.plug(workload(name.rpartition("/")[2], uid=name, namespace=name.split("/")[1]))
            addresses.append(link.address)
            lab._names[name], lab.cluster = name, before
            lab.cluster = lab.with_addresses(name, link.addresses)
            await lab.enforcer.request()
            with udp_socket(link.netns) as server:
                server.bind(("0.0.0.0", 40005))
                server.settimeout(4 if name == "pod/a/late" else 0.5)
                client.sendto(b"to whom?", (link.address, 40005))
                if name == "pod/a/late":
                    server.sendto(b"me", (await asyncio.to_thread(server.recvfrom, 100))[1])
                    assert await asyncio.to_thread(client.recv, 100) == b"me"
                else:
                    with pytest.raises(TimeoutError):
                        await asyncio.to_thread(server.recv, 100)
            await lab.fabric.unplug(name)
        assert addresses[0] == addresses[1]
    lab.cluster = before
    await lab.enforcer.request()


async def translated_destinations_are_judged_where_they_go(lab: PolicyLab) -> None:
    """16: the host's translation comes before the judgement of what is routed. There are no Services; a rule stands for one."""
    if lab.fabric.settings.container_wiring is not Wiring.ROUTED:
        return
    only_web = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]}"
    nowhere = "{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}"
    table = f"isoplane_test_{lab.fabric.names.tag}"
    rule = f"ip saddr {lab.places[CLIENT].address} ip daddr 192.0.2.10 udp dport 5353 dnat to {lab.places[WEB].address}:{DNS}"
    text = f"table ip {table} {{\n chain translate {{\n type nat hook prerouting priority dstnat\n {rule}\n }}\n}}\n"
    await run("nft", "-f", "-", stdin=text.encode())
    try:
        for spec, answer in ((only_web, True), (nowhere, False)):
            await lab.load([*loads(), policy(spec)])
            reached = await asyncio.to_thread(
                udp_reaches, lab.places[CLIENT].path, "192.0.2.10", 5353, 4 if answer else 0.3
            )
            assert reached is answer, spec
    finally:
        await run("nft", "delete", "table", "ip", table)
