"""Addresses that name a MAC, ranges that are remembered, hosts without IPv6, and records from before there was any."""

from __future__ import annotations

import ipaddress
import sqlite3
from pathlib import Path

import pytest

from isoplane.node.network.dhcp import Dhcp
from isoplane.node.network.ipam import Ipam
from isoplane.node.network.ipv6 import Ranges6, derived, interface_address, link_local, missing
from isoplane.node.network.nat import ruleset
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.ranges import pick6
from isoplane.node.network.settings import Names, Ranges, Wiring
from isoplane.workload.shape import InterfaceType

SIX = Ranges6.of("fd12:3456:789a::/48")


def test_an_address_names_its_mac() -> None:
    # RFC 4291, appendix A: the universal bit is turned round and ff:fe put in the middle
    assert interface_address(SIX.routed, "0a:58:0a:f4:80:01") == "fd12:3456:789a:0:858:aff:fef4:8001"
    assert link_local("ee:ee:ee:ee:ee:ee") == "fe80::ecee:eeff:feee:eeee"


def test_a_derived_range_is_unique_local_and_the_same_again() -> None:
    assert derived("a") == derived("a") != derived("b")
    whole = ipaddress.IPv6Network(derived("a"))
    assert whole.prefixlen == 48
    assert whole.subnet_of(ipaddress.IPv6Network("fd00::/8"))


def test_a_range_has_two_networks_or_is_refused() -> None:
    assert (str(SIX.routed), str(SIX.bridged)) == ("fd12:3456:789a::/64", "fd12:3456:789a:1::/64")
    with pytest.raises(ValueError, match="a /63 or larger"):
        Ranges6.of("fd12::/64")


def test_a_range_that_the_host_routes_is_not_used() -> None:
    taken = [("::/0", "eth0"), ("10.0.0.0/8", "tun0"), ("fd12:3456:789a:7::/64", "tun0")]
    assert (
        pick6("", ["fd12:3456:789a::/48", "fd12:3456:789b::/48"], taken).whole.network_address.exploded[12:14] == "9b"
    )
    with pytest.raises(FabricFailure, match=r"fd12:3456:789a:7::/64 on tun0: configure another range, or none"):
        pick6("fd12:3456:789a::/48", [], taken)


@pytest.mark.parametrize(
    ("content", "told"), [("0\n", ""), ("1\n", "disable_ipv6=0 enables it"), (None, "without IPv6")]
)
def test_a_host_without_ipv6_is_told_why(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "conf/all").mkdir(parents=True)
        (tmp_path / "conf/all/disable_ipv6").write_text(content)
    why = missing(tmp_path)
    assert told in why
    assert bool(why) is bool(told)


def test_workloads_from_before_keep_ipv4_alone(tmp_path: Path) -> None:
    path = tmp_path / "ipam.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(
            "CREATE TABLE lease (uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,"
            " wiring TEXT NOT NULL, number INTEGER NOT NULL, UNIQUE (wiring, number)) WITHOUT ROWID;"
            "INSERT INTO lease VALUES ('old', 'ns', 'old', 'veth', 'routed', 2);"
        )
    old.close()
    ipam = Ipam(path)
    ipam.open()
    ipam.settle(Ranges.of("10.9.0.0/24", SIX))
    fresh = ipam.lease("new", "ns", "new", InterfaceType.VETH, Wiring.ROUTED)
    assert {lease.uid: bool(lease.address6) for lease in ipam.leases()} == {"old": False, "new": True}
    assert fresh.address6 == interface_address(SIX.routed, fresh.mac)
    ipam.close()


def test_dhcp_and_masquerade_speak_both_families_or_one(tmp_path: Path) -> None:
    with_six, without = Ranges.of("10.9.0.0/24", SIX), Ranges.of("10.9.0.0/24")
    dual = Dhcp(tmp_path, "br0", with_six.bridged, SIX.bridged)._arguments(1500)
    single = Dhcp(tmp_path, "br0", with_six.bridged)._arguments(1500)
    assert [one for one in dual if one not in single] == [
        "--enable-ra",
        "--dhcp-range=fd12:3456:789a:1::,static,slaac,off-link,64,infinite",
    ]
    names = Names("0123")
    assert "table ip6 " in ruleset(names, with_six)
    assert "ip6" not in ruleset(names, without)
