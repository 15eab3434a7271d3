"""Denied packets: what a log message says, who is told to have denied it, and how often."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.denials import AGAIN, BURST, REFILL, Denials, Rate, denial
from isoplane.node.network.netlink import attribute
from isoplane.node.network.nflog import packet_of
from isoplane.node.network.packet import Seen
from isoplane.policy.compile import compile_tables
from isoplane.policy.packets import PacketJudge
from isoplane.policy.snapshot import from_objects
from isoplane.policy.table import Tables

WEB, CLIENT, VM = "10.0.0.2", "10.0.0.3", "10.0.0.4"


def message(packet: bytes, prefix: str = "isoplane deny ingress ") -> bytes:
    return b"\0" * 4 + attribute(1, b"\0" * 4) + attribute(10, prefix.encode() + b"\0") + attribute(9, packet)


def v4(protocol: int, payload: bytes, fragment: int = 0, options: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45 + options, 0, 0, 0, fragment, 64, protocol, 0)
    ends = socket.inet_aton(CLIENT) + socket.inet_aton(WEB)
    return head + ends + b"\0" * 4 * options + payload


def v6(following: int, payload: bytes) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, "fd00::1") + socket.inet_pton(socket.AF_INET6, "fd00::2")
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + ends + payload


PORTS = struct.pack("!HHI", 40000, 443, 0)


@pytest.mark.parametrize(
    ("packet", "told"),
    [
        (v4(6, PORTS), ("TCP", 443)),
        (v4(17, PORTS, options=2), ("UDP", 443)),
        (v4(132, PORTS), ("SCTP", 443)),
        (v4(1, b"\x08\0"), ("OTHER", 0)),
        (v6(6, PORTS), ("TCP", 443)),
        (v6(58, b"\x80\0"), ("OTHER", 0)),
        (v6(0, bytes([17, 0, 0, 0, 0, 0, 0, 0]) + PORTS), ("UDP", 443)),
        (v6(44, struct.pack("!BBHI", 6, 0, 1, 7) + PORTS), ("TCP", 443)),
    ],
)
def test_reads_packets(packet: bytes, told: tuple[str, int]) -> None:
    logged = packet_of(message(packet))
    assert logged is not None
    assert (logged.protocol, logged.port) == told
    assert (logged.source, logged.destination) in ((CLIENT, WEB), ("fd00::1", "fd00::2"))


@pytest.mark.parametrize("packet", [b"", v4(6, PORTS, fragment=5), v4(6, b"")[:20], v6(44, b""), b"\x00arp"])
def test_passes_over_what_has_no_meaning(packet: bytes) -> None:
    assert packet_of(message(packet)) is None


@given(st.binary(max_size=200))
def test_survives_everything(data: bytes) -> None:
    packet_of(data)
    packet_of(message(data))


def tables() -> Tables:
    def pod(name: str, ip: str) -> dict[str, object]:
        meta = {"name": name, "namespace": "a", "labels": {"app": name}}
        return {"kind": "Pod", "metadata": meta, "status": {"podIP": ip}}

    isolate = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "web-only-80", "namespace": "a"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 80}]}]},
    }
    admin = {
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "no-telnet"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": {"namespaces": {}},
            "egress": [
                {
                    "action": "Deny",
                    "to": [{"namespaces": {}}],
                    "protocols": [{"tcp": {"destinationPort": {"number": 23}}}],
                }
            ],
        },
    }
    return compile_tables(from_objects([pod("web", WEB), pod("client", CLIENT), pod("vm", VM), isolate, admin]))


def test_names_whose_policies_deny() -> None:
    judge = PacketJudge(tables())
    found = denial(judge, Seen(CLIENT, WEB, "TCP", 443))
    assert found is not None
    assert found.endpoint == "pod/a/web"
    assert str(found) == (
        "Ingress from pod/a/client on 443/TCP was dropped: isolated by a/web-only-80, and no rule allows it"
    )
    outside = denial(judge, Seen("192.0.2.7", WEB, "OTHER", 0))
    assert str(outside).startswith("Ingress from 192.0.2.7 on ICMP or another protocol was dropped")
    telnet = denial(judge, Seen(CLIENT, VM, "TCP", 23))
    assert telnet is not None
    assert telnet.endpoint == "pod/a/client"
    assert str(telnet) == "Egress to pod/a/vm on 23/TCP was dropped: denied by no-telnet/egress[0]"
    assert denial(judge, Seen(CLIENT, WEB, "TCP", 80)) is None, "allowed by now"


def test_tells_once_a_minute_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    events: list[tuple[str, str]] = []
    denials = Denials(1, None, (), lambda endpoint, text: events.append((endpoint, text)), clock=lambda: now[0])
    packet = Seen(CLIENT, WEB, "TCP", 443)
    denials.told(packet)
    assert events == [], "nothing is known before there are rules"
    denials.use(tables())
    for _ in range(50):
        denials.told(packet)
    assert len(events) == len(caplog.records) == 1
    assert events[0][0] == "pod/a/web"
    now[0] = AGAIN
    denials.told(packet)
    assert len(events) == 2
    assert events[0] == events[1], "the same words, so that the Event counts up"
    assert "49 more like it" in caplog.records[1].getMessage()


def test_a_scan_of_ports_is_not_told_port_by_port() -> None:
    judge, rate = PacketJudge(tables()), Rate()
    scan = [denial(judge, Seen(CLIENT, WEB, "TCP", port)) for port in range(1000, 9000)]
    told = [found for found in scan if found is not None and rate.admit(found, 0.0) is not None]
    assert len(told) == BURST
    other = denial(judge, Seen(CLIENT, VM, "TCP", 23))
    assert other is not None
    assert rate.admit(other, 0.0) == 0, "others are told all the same"
    assert scan[-1] is not None
    assert rate.admit(scan[-1], REFILL) is not None
