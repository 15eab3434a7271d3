"""A private Open vSwitch loads the flows in one bundle and traces packets to the reference's verdict."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from test_policy_openflow import NODE, as_packet, attach

from isoplane.node.network.engines.openvswitch import OpenvswitchEngine
from isoplane.node.network.ovs.packetin import PacketIns
from isoplane.node.network.packet import Seen
from isoplane.policy.compile import compile_tables
from isoplane.policy.model import Cluster, Endpoint, cluster
from isoplane.policy.openflow import render_openflow
from isoplane.policy.table import CLOSED, EndpointTables, Tables
from isoplane.policy.verdict import Connection, judge
from policy_strategies_support import nasty, packets, scaled
from support import require

_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")


class Switch:
    """ovsdb-server and ovs-vswitchd with the dummy datapath, in a directory of their own: no privileges, no links."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "OVS_RUNDIR": str(home), "OVS_LOGDIR": str(home), "OVS_DBDIR": str(home)}
        self.run("ovsdb-tool", "create", str(home / "conf.db"), str(_SCHEMA))
        database = f"--remote=punix:{home}/db.sock"
        self.run(
            "ovsdb-server",
            str(home / "conf.db"),
            database,
            "--detach",
            f"--pidfile={home}/db.pid",
            f"--unixctl={home}/db.ctl",
        )
        self.vsctl("--no-wait", "init")
        flags = (
            "--enable-dummy=override",
            "--disable-system",
            "--detach",
            f"--pidfile={home}/vs.pid",
            f"--unixctl={home}/vs.ctl",
        )
        self.run("ovs-vswitchd", f"unix:{home}/db.sock", *flags)
        self.vsctl(
            "add-br",
            "br0",
            "--",
            "set",
            "bridge",
            "br0",
            "datapath-type=dummy",
            "fail_mode=secure",
            "protocols=OpenFlow14",
        )
        for number in range(1, 6):
            port = f"p{number}"
            self.vsctl(
                "add-port", "br0", port, "--", "set", "interface", port, "type=dummy", f"ofport_request={number}"
            )

    def vsctl(self, *args: str) -> None:
        self.run("ovs-vsctl", f"--db=unix:{self.home}/db.sock", *args)

    def run(self, *args: str) -> str:
        done = subprocess.run(args, capture_output=True, text=True, check=False, env=self.environment)
        assert done.returncode == 0, f"{args}: {done.stderr}"
        return done.stdout

    def load(self, flows: str) -> None:
        path = self.home / "flows"
        path.write_text(flows)
        self.run("ovs-ofctl", "-O", "OpenFlow14", "--bundle", "replace-flows", f"unix:{self.home}/br0.mgmt", str(path))

    def trace(self, flow: str) -> str:
        return self.run("ovs-appctl", "-t", f"{self.home}/vs.ctl", "ofproto/trace", "br0", flow, "--ct-next", "trk,new")

    def stop(self) -> None:
        self.run("ovs-appctl", "-t", f"{self.home}/vs.ctl", "exit", "--cleanup")
        self.run("ovs-appctl", "-t", f"{self.home}/db.ctl", "exit")


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    require("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")
    running = Switch(tmp_path_factory.mktemp("ovs"))
    yield running
    running.stop()


def written(connection: Connection, packet: dict[str, object]) -> str:
    """The packet in the words of ofproto/trace."""
    six = packet["dl_type"] == "86dd"
    protocol = {"OTHER": "icmp6" if six else "icmp"}.get(connection.protocol, connection.protocol.lower() + "6" * six)
    layer = connection.protocol.lower()
    fields = {k.replace("tp_", f"{layer}_"): v for k, v in packet.items() if k not in ("dl_type", "proto")}
    if protocol == "icmp6":
        fields |= {"icmpv6_type": 128}
    return ",".join([protocol, *(f"{key}={value}" for key, value in fields.items())])


@pytest.mark.root
@given(cluster=nasty())
@settings(max_examples=scaled(12), phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_traces_equal_the_reference(switch: Switch, cluster: Cluster) -> None:
    interfaces = attach(cluster)
    attached = {a.endpoint: a for a in interfaces}
    switch.load(render_openflow(compile_tables(cluster), interfaces, NODE))
    seen = [
        (connection, found)
        for family in (4, 6)
        for connection in packets(cluster, family)
        if (found := as_packet(connection, attached))
    ]
    for connection, (packet, _) in seen[:: max(1, len(seen) // 25)]:
        told = switch.trace(written(connection, packet))
        last = told.rpartition("Datapath actions:")[2].strip()
        passed = "ct(commit" in last and not last.endswith(")")  # committed, and then sent somewhere
        assert passed == judge(cluster, connection).allowed, told


@pytest.mark.root
async def test_what_is_denied_is_copied_within_the_meter(switch: Switch) -> None:
    engine = OpenvswitchEngine(lambda: switch.home / "br0.mgmt", lambda: switch.home / "vs.ctl", lambda: "")
    await engine.start()
    one, two = (Endpoint("vmi", "a", name, {}, (ip,)) for name, ip in (("one", "10.0.0.1"), ("two", "10.0.0.2")))
    tables = Tables({e.id: EndpointTables(e.id, e.ips, "", CLOSED["Ingress"], CLOSED["Egress"]) for e in (one, two)})
    interfaces = attach(cluster([one, two]))
    await engine.apply(render_openflow(tables, interfaces, NODE), "0" * 16)
    packets: list[Seen] = []
    listener = PacketIns(lambda: switch.home / "br0.mgmt", packets.append, again=0.05)
    listener.start()
    sender = interfaces[0]
    flow = (
        f"in_port({sender.ofport}),eth(src={sender.mac},dst=02:00:00:00:00:01),eth_type(0x0800),"
        "ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=40000,dst=53)"
    )
    try:
        async with asyncio.timeout(20):
            while not packets:
                switch.run(
                    "ovs-appctl", "-t", f"{switch.home}/vs.ctl", "netdev-dummy/receive", f"p{sender.ofport}", flow
                )
                await asyncio.sleep(0.05)
        sent = [flow] * 100  # as many as the dummy holds
        switch.run("ovs-appctl", "-t", f"{switch.home}/vs.ctl", "netdev-dummy/receive", f"p{sender.ofport}", *sent)
        await asyncio.sleep(0.2)
    finally:
        await listener.close()
    assert set(packets) == {Seen("10.0.0.1", "10.0.0.2", "UDP", 53)}
    told = switch.run("ovs-ofctl", "-OOpenFlow14", "meter-stats", f"unix:{switch.home}/br0.mgmt")
    asked, dropped = (int(re.findall(rf"{name}:(\d+)", told)[-1]) for name in ("packet_in_count", "packet_count"))
    assert asked > 80
    assert dropped > 40, "what is beyond the meter costs nobody anything"
