"""Real denied packets, as the engines that log them make them: read, judged, told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from isoplane.node.denials import Denials
from isoplane.node.network.rules import node_network
from isoplane.policy.compile import compile_tables
from policy_lab_support import MIXES, NODE, PolicyLab, labs

pytestmark = pytest.mark.root
Start = Callable[..., Awaitable[PolicyLab]]

LOADS = [
    {"kind": "Namespace", "metadata": {"name": "a"}},
    {"kind": "Pod", "metadata": {"name": "web", "namespace": "a", "labels": {"app": "web"}}},
    {"kind": "Pod", "metadata": {"name": "client", "namespace": "a"}},
    {"kind": "VirtualMachineInstance", "metadata": {"name": "guest", "namespace": "a", "labels": {"app": "web"}}},
    {"kind": "VirtualMachineInstance", "metadata": {"name": "other", "namespace": "a"}},
    {
        "kind": "NetworkPolicy",
        "metadata": {"name": "quiet", "namespace": "a"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]},
    },
    {
        "kind": "NetworkPolicy",
        "metadata": {"name": "only-8080", "namespace": "a"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 8080}]}]},
    },
]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with labs(tmp_path, "iptables", "ipset") as begin:

        async def started(mix: str) -> PolicyLab:
            return await begin(mix, LOADS, (53, 8080), serve=())

        yield started


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_a_denied_packet_is_told_with_its_policy(start: Start, mix: str) -> None:
    """In either direction, whichever engine drops it: between two machines it is the bridge."""
    lab = await start(mix)
    own = node_network(NODE, lab.fabric.settings, lab.fabric.ranges)
    told: list[tuple[str, str]] = []
    bridge = lab.fabric.bridge
    denials = Denials(
        own.log_group if any(engine.name != "openvswitch" for engine in lab.engines) else 0,
        None if bridge is None else lambda: bridge.management,
        own.ips,
        lambda endpoint, text: told.append((endpoint, text)),
    )
    denials.use(compile_tables(lab.cluster))
    denials.start()
    asked = [
        ("pod/a/client", "pod/a/web", "Ingress from"),
        ("pod/a/client", "vmi/a/guest", "Ingress from"),
        ("vmi/a/other", "vmi/a/guest", "Ingress from"),
        ("vmi/a/guest", "vmi/a/other", "Egress to"),
        ("vmi/a/guest", "pod/a/client", "Egress to"),
    ]
    wanted = set()
    for source, target, way in asked:
        ingress = way == "Ingress from"
        policy, peer = ("only-8080", source) if ingress else ("quiet", target)
        why = f"{way} {peer} on 53/UDP was dropped: isolated by a/{policy}, and no rule allows it"
        wanted.add((target if ingress else source, why))
    try:

        def all_told() -> bool:
            # the bridge's socket is listened to a moment after the start, and a copy may be lost: people try again, too
            for source, target, _ in asked:
                lab.reaches(source, target, "UDP", 53, timeout=0.05)
            return set(told) == wanted

        async with asyncio.timeout(20):
            while not await asyncio.to_thread(all_told):
                await asyncio.sleep(0.1)
        assert len(told) == len(wanted), "each is told once a minute"
    finally:
        await denials.close()


async def test_a_group_that_is_taken_is_said_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    groups = [Denials(4711, None, (), lambda endpoint, text: None) for _ in range(2)]
    for one in groups:
        one.start()
    for one in groups:
        await one.close()
    said = [record.getMessage() for record in caplog.records]
    assert said == [text for text in said if "denied packets are dropped but not reported" in text]
    assert len(said) == 1
