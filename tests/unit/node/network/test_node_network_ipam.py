"""The address record under random use: nothing is given out twice, whatever is released, restarted or short."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.network.ipam import Ipam, choose, mac_of
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.ranges import clash, pick
from isoplane.node.network.settings import DEFAULT_RANGES, FabricSettings, Ranges, Wiring
from isoplane.workload.shape import InterfaceType

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lease"), st.integers(0, 12)),
        st.tuples(st.just("release"), st.integers(0, 12)),
        st.tuples(st.just("wait"), st.integers(1, 50)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_address_has_two_owners_or_comes_back_too_soon(steps: list[tuple[str, int]]) -> None:
    now = [0.0]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "ipam.sqlite"

        def opened() -> Ipam:
            made = Ipam(path, 60, lambda: now[0])
            made.open()
            made.settle(Ranges.of("10.9.0.0/28"))
            return made

        ipam, owners, rests = opened(), dict[str, str](), dict[str, float]()
        for verb, number in steps:
            uid = f"uid-{number}"
            if verb == "lease":
                try:
                    address = ipam.lease(uid, "ns", uid, InterfaceType.VETH, Wiring.ROUTED).address
                except FabricFailure:
                    resting = [one for one, until in rests.items() if until > now[0]]
                    assert uid not in owners
                    assert len(owners) + len(resting) == 5
                    continue
                assert owners.get(uid, address) == address
                assert all(other == uid for other, taken in owners.items() if taken == address)
                assert uid in owners or rests.get(address, 0) <= now[0]
                owners[uid] = address
            elif verb == "release":
                ipam.release(uid)
                if uid in owners:
                    rests[owners.pop(uid)] = now[0] + 60
            elif verb == "wait":
                now[0] += number
            else:
                ipam.close()
                ipam = opened()
                assert {lease.uid: lease.address for lease in ipam.leases()} == owners
        ipam.close()


def test_the_choice_goes_round() -> None:
    assert choose(2, 5, lambda n: False, 0) == 2
    assert choose(2, 5, lambda n: False, 3) == 4
    assert choose(2, 5, lambda n: n == 4, 3) == 5
    assert choose(2, 5, lambda n: False, 5) == 2
    assert choose(2, 5, lambda n: True, 3) is None


def test_a_mac_names_its_address() -> None:
    assert mac_of("10.244.128.1") == "0a:58:0a:f4:80:01"


def test_a_range_that_the_host_routes_is_not_used() -> None:
    assert pick("", "", []).whole == Ranges.of(DEFAULT_RANGES[0]).whole
    taken = [("0.0.0.0/0", "eth0"), ("10.244.3.0/24", "tun0"), ("10.245.0.0/16", "tun0")]
    assert str(pick("", "", taken).whole) == "10.246.0.0/16"
    assert str(pick("", "10.236.0.0/16", taken).whole) == "10.236.0.0/16"
    with pytest.raises(FabricFailure, match=r"10\.244\.3\.0/24 on tun0"):
        pick("10.244.0.0/16", "", taken)
    with pytest.raises(FabricFailure, match="now overlaps"):
        pick("", "10.244.0.0/16", taken)
    with pytest.raises(FabricFailure, match="every candidate"):
        pick("", "", [("10.128.0.0/9", "tun0")])
    assert clash(Ranges.of("10.1.0.0/16").whole, [("0.0.0.0/0", "eth0")]) == ""


def test_a_damaged_record_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ipam.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(FabricFailure, match="cannot be opened"):
        Ipam(path).open()


def test_names_fit_the_kernel_and_differ_between_planes(tmp_path: Path) -> None:
    one, two = FabricSettings(tmp_path / "a").names, FabricSettings(tmp_path / "b").names
    assert one != two
    for names in (one, two):
        for name in (names.veth("u"), names.tap("u"), names.bridge, names.node_link, names.datapath_link):
            assert len(name) <= 15
            assert names.tag in name
