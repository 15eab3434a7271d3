"""The engines' own text work: what they read from tools, and the differences they send."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.network.engines import nfnetlink, openvswitch
from isoplane.node.network.engines.iptables import IptablesEngine
from isoplane.node.network.engines.nftables import digest_of
from isoplane.node.network.engines.openvswitch import OpenvswitchEngine, difference, parse_connection
from isoplane.node.network.engines.protocol import Connection, EngineFailure
from isoplane.node.network.ovs import revalidation
from isoplane.node.network.protocol import FabricFailure


@pytest.mark.parametrize(
    ("line", "connection", "handle"),
    [
        (
            "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=40000,dport=80),reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=40000),"
            "zone=7,mark=1,labels=0x5,protoinfo=(state=ESTABLISHED)",
            Connection("TCP", "10.0.0.1", 40000, "10.0.0.2", 80, 7),
            "ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=6,ct_tp_src=40000,ct_tp_dst=80",
        ),
        (
            "udp,orig=(src=fd00::1,dst=fd00::2,sport=5353,dport=53),reply=(src=fd00::2,dst=fd00::1,sport=53,dport=5353),zone=3",
            Connection("UDP", "fd00::1", 5353, "fd00::2", 53, 3),
            "ct_ipv6_src=fd00::1,ct_ipv6_dst=fd00::2,ct_nw_proto=17,ct_tp_src=5353,ct_tp_dst=53",
        ),
        (
            "icmp,orig=(src=10.0.0.1,dst=10.0.0.2,id=77,type=8,code=0),reply=(src=10.0.0.2,dst=10.0.0.1,id=77,type=0,code=0),zone=7",
            Connection("1", "10.0.0.1", 0, "10.0.0.2", 0, 7),
            "ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=1,icmp_id=77,icmp_type=8,icmp_code=0",
        ),
        (
            "igmp,orig=(src=10.0.0.1,dst=224.0.0.22,sport=0,dport=0),reply=(src=224.0.0.22,dst=10.0.0.1,sport=0,dport=0),zone=7",
            Connection("2", "10.0.0.1", 0, "224.0.0.22", 0, 7),
            "ct_nw_src=10.0.0.1,ct_nw_dst=224.0.0.22,ct_nw_proto=2",
        ),
    ],
)
def test_a_tracked_connection_is_read(line: str, connection: Connection, handle: str) -> None:
    found = parse_connection(line)
    assert found == connection
    assert found is not None
    assert found.handle == handle


def test_other_lines_are_no_connections() -> None:
    assert parse_connection("") is None
    assert parse_connection("conntrack limits") is None
    host = "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1,dport=80),reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=1)"
    assert parse_connection(host) is None, "in no zone: the kernel tracks it, no flow does"


async def test_connections_of_icmpv6_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open vSwitch 3.1 aborts when it is asked to forget one."""
    ends = "orig=(src=fd00::1,dst=fd00::2,{0}),reply=(src=fd00::2,dst=fd00::1,{1}),zone=3"
    echo = "icmpv6," + ends.format("id=7,type=128,code=0", "id=7,type=129,code=0")
    talk = "udp," + ends.format("sport=5353,dport=53", "sport=53,dport=5353")

    async def tracked(control: Path, method: str, arguments: list[str]) -> str:
        return f"{echo}\n{talk}\n"

    monkeypatch.setattr(openvswitch.jsonrpc, "call", tracked)
    engine = OpenvswitchEngine(lambda: Path("/x"), lambda: Path("/x"), lambda: "netdev@x")
    assert [one.protocol for one in await engine.connections({"fd00::1"})] == ["UDP"]


FLOWS = st.frozensets(
    st.builds(
        lambda table, priority, port, action, cookie: (
            f"table={table},priority={priority},{f'cookie={cookie:#x},' if cookie else ''}in_port={port},actions={action}"
        ),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(1, 3),
        st.sampled_from(["drop", "output:1", "resubmit(,2)"]),
        st.integers(0, 2),
    ),
    max_size=8,
)


def _by_match(flows: frozenset[str]) -> dict[str, str]:
    return {
        ",".join(part for part in flow.split(",actions=")[0].split(",") if "cookie" not in part): flow for flow in flows
    }


@given(FLOWS, FLOWS)
def test_a_difference_leads_from_one_to_the_other(old: frozenset[str], new: frozenset[str]) -> None:
    before, after = _by_match(old), _by_match(new)
    switch = dict(before)
    for line in difference(frozenset(before.values()), frozenset(after.values())).splitlines():
        verb, _, rest = line.partition(" ")
        if verb == "delete_strict":
            del switch[rest]
        else:
            assert verb == "add"
            switch.update(_by_match(frozenset({rest})))
    assert switch == after


def test_a_listing_is_the_same_in_whatever_order_its_elements_come() -> None:
    one = "table inet t {\n set a {\n elements = { 10.0.0.1, 10.0.0.2,\n 10.0.0.3 }\n }\n chain c { x; y }\n}"
    two = "table inet t {\n set a {\n elements = { 10.0.0.3, 10.0.0.1,\n 10.0.0.2 }\n }\n chain c { x; y }\n}"
    less = two.replace("10.0.0.3, ", "")
    assert digest_of(one) == digest_of(two) != digest_of(less)
    assert digest_of(one) != digest_of(one.replace("x; y", "y; x"))


class BusySets(IptablesEngine):
    """Whose sets somebody lists just when they are changed: ipset stops at that line, and has done those before."""

    def __init__(self, times: int, complaint: str) -> None:
        super().__init__("t123", ("iv", "it"))
        self.times, self.complaint = times, complaint
        self.done: list[str] = []

    async def _run(self, tool: str, *arguments: str, stdin: str | None = None) -> str:
        lines = (stdin or "").splitlines()
        if self.times:
            self.times -= 1
            self.done += lines[:1]
            raise EngineFailure(
                f"iptables: ipset restore failed with 1: ipset v7.17: Error in line 2: {self.complaint}"
            )
        self.done += lines
        return ""


@pytest.mark.parametrize(
    "complaint",
    [
        "Kernel error received: Device or resource busy",
        "Set cannot be destroyed: it is in use by a kernel component",
    ],
)
async def test_a_set_that_is_being_listed_is_changed_a_moment_later(complaint: str) -> None:
    engine = BusySets(2, complaint)
    await engine._change_sets("create a hash:ip\nswap a b\ndestroy a\n")
    assert engine.done == ["create a hash:ip", "swap a b", "destroy a"], "every line once, in order"


async def test_what_ipset_refuses_for_another_reason_is_told_at_once() -> None:
    engine = BusySets(1, "The set with the given name does not exist")
    with pytest.raises(EngineFailure, match="does not exist"):
        await engine._change_sets("create a hash:ip\nswap a b\n")
    assert engine.done == ["create a hash:ip"]


async def test_a_switch_that_cannot_be_asked_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def answers(control: Path, method: str, arguments: Sequence[str], **more: Any) -> str:
        asked.append(method)
        if "meanwhile" in more:
            await more["meanwhile"]()
        raise FabricFailure("can't wait on multiple udpifs." if method == "revalidator/wait" else "no such command")

    monkeypatch.setattr(revalidation.jsonrpc, "call", answers)
    monkeypatch.setattr(revalidation, "PAUSE", 0.001)
    await revalidation.followed(Path("/x"), "br0")
    assert asked == ["revalidator/wait", "fdb/add", "revalidator/wait", "fdb/del"]


async def test_flows_that_the_datapath_does_not_follow_are_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(control: Path, method: str, arguments: Sequence[str], **more: Any) -> str:
        raise FabricFailure(f"no answer from {control} to {method} within 10 s")

    async def taken(self: OpenvswitchEngine, *arguments: str, stdin: str | None = None) -> str:
        return ""

    monkeypatch.setattr(revalidation.jsonrpc, "call", silent)
    monkeypatch.setattr(OpenvswitchEngine, "_ofctl", taken)
    engine = OpenvswitchEngine(lambda: Path("/x/br0.mgmt"), lambda: Path("/x/vs.ctl"), lambda: "netdev@x")
    with pytest.raises(EngineFailure, match="its datapath does not follow"):
        await engine.apply("table=0,actions=drop\n", "0" * 16)


async def test_on_the_kernels_datapath_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open vSwitch 3.1 cannot have it forget one of SCTP. What is in no zone is the host's."""
    ours, host = Connection("SCTP", "10.0.0.1", 1, "10.0.0.2", 2, 7), Connection("TCP", "10.0.0.1", 1, "10.0.0.2", 2)
    gone: list[Connection] = []

    def cut(connections: Sequence[Connection]) -> None:
        if gone:
            raise PermissionError(1, "Operation not permitted")
        gone.extend(connections)

    async def taken(self: OpenvswitchEngine, *arguments: str) -> None:
        pass

    monkeypatch.setattr(nfnetlink, "connections", lambda addresses: [ours, host])
    monkeypatch.setattr(nfnetlink, "cut", cut)
    monkeypatch.setattr(OpenvswitchEngine, "_bundle", taken)
    engine = OpenvswitchEngine(lambda: Path("/x"), lambda: Path("/x"), lambda: "system@ovs-system")
    found = await engine.connections({"10.0.0.1"})
    assert found == [ours]
    await engine.cut(found)
    assert gone == [ours]
    with pytest.raises(EngineFailure, match="not permitted"):
        await engine.cut(found)
