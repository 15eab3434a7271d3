"""Real denied packets, as the engines that log them make them: read, judged, told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from fabric_support import eventually, spare_range, traces
from isoplane.node.denials import Denials
from isoplane.node.network.rules import node_network
from isoplane.policy.compile import compile_tables
from policy_lab import NODE, PolicyLab
from support import require

pytestmark = pytest.mark.root
Start = Callable[..., Awaitable[PolicyLab]]

LOADS = [
    {"kind": "Namespace", "metadata": {"name": "a"}},
    {"kind": "Pod", "metadata": {"name": "web", "namespace": "a", "labels": {"app": "web"}}},
    {"kind": "Pod", "metadata": {"name": "client", "namespace": "a"}},
    {"kind": "VirtualMachineInstance", "metadata": {"name": "guest", "namespace": "a", "labels": {"app": "web"}}},
    {
        "kind": "NetworkPolicy",
        "metadata": {"name": "only-8080", "namespace": "a"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 8080}]}]},
    },
]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", "iptables", "ipset", root=True)
    labs: list[PolicyLab] = []

    async def started(mix: str) -> PolicyLab:
        lab = PolicyLab(tmp_path, spare_range(), mix, (53, 8080), serve=())
        labs.append(lab)
        await lab.start(LOADS)
        return lab

    yield started
    for lab in labs:
        await lab.stop()
        assert traces(lab.fabric.names.tag, tmp_path) == []


@pytest.mark.parametrize("mix", ["nftables-and-openvswitch", "nftables", "iptables"])
async def test_a_denied_packet_is_told_with_its_policy(start: Start, mix: str) -> None:
    lab = await start(mix)
    own = node_network(NODE, lab.fabric.settings, lab.fabric.ranges)
    told: list[tuple[str, str]] = []
    denials = Denials(own.log_group, own.ips, lambda endpoint, text: told.append((endpoint, text)))
    denials.use(compile_tables(lab.cluster))
    denials.start()
    try:
        assert not await asyncio.to_thread(lab.reaches, "pod/a/client", "pod/a/web", "UDP", 53)
        assert not await asyncio.to_thread(lab.reaches, "pod/a/client", "vmi/a/guest", "UDP", 53)
        why = "Ingress from pod/a/client on 53/UDP was dropped: isolated by a/only-8080, and no rule allows it"
        wanted = {("pod/a/web", why), ("vmi/a/guest", why)}
        await eventually(lambda: set(told) == wanted)
        assert len(told) == 2
    finally:
        denials.close()


async def test_a_group_that_is_taken_is_said_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    groups = [Denials(4711, (), lambda endpoint, text: None) for _ in range(2)]
    for one in groups:
        one.start()
    for one in groups:
        one.close()
    said = [record.getMessage() for record in caplog.records]
    assert said == [text for text in said if "denied packets are dropped but not reported" in text]
    assert len(said) == 1
