"""Real connections are counted for the rules that let them pass, and for no others, by every choice of engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from fabric_support import tcp_reaches
from isoplane.node.hits import HitCounter
from policy_lab_support import MIXES, PolicyLab, labs

pytestmark = pytest.mark.root
PORTS = (8080, *range(9001, 9007))
Start = Callable[[str], Awaitable[PolicyLab]]


def objects(ports: tuple[int, ...]) -> list[dict[str, object]]:
    """One port is asked for; the others are there so that ports go into maps and sets; a last rule is nobody's."""
    selector = {"podSelector": {"matchLabels": {"app": "server"}}}
    rules = [{"ports": [{"port": port}]} for port in ports]
    nobody = {"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}
    kinds = ("Pod", "VirtualMachineInstance")
    return [
        {"kind": "Namespace", "metadata": {"name": "a"}},
        *(
            {"kind": kind, "metadata": {"name": name, "namespace": "a", "labels": {"app": name}}}
            for kind in kinds
            for name in ("client", "server")
        ),
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": "few", "namespace": "a"},
            "spec": {**selector, "ingress": [*rules, nobody]},
        },
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": "all", "namespace": "a"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
        },
    ]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with labs(tmp_path, "iptables", "ipset") as begin:

        async def started(mix: str) -> PolicyLab:
            return await begin(mix, objects(PORTS), (8080,))

        yield started


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_connections_are_counted_where_they_are_judged(start: Start, mix: str) -> None:
    lab = await start(mix)
    counter = HitCounter(lab.engines, lab.rules.counted)
    counter.use(lab.cluster)

    async def hits(rule: str) -> dict[str, int]:
        await counter.read()
        return next(dict(one.hits) for one in counter.told()[0] if one.rule == rule)

    await counter.read()
    assert all(not any(one.hits.values()) for one in counter.told()[0]), "before anybody asked"
    talk = b"x" * 200_000
    for kind in ("pod", "vmi"):
        source, server = lab.places[f"{kind}/a/client"], lab.places[f"{kind}/a/server"]
        for _ in range(3):
            assert await asyncio.to_thread(tcp_reaches, source.path, server.address, 8080, talk)
    # a container's and a machine's connections, which here do not cross from one engine to the other
    everywhere = {engine.name: 6 // len(lab.engines) for engine in lab.engines}

    async def counted(rule: str) -> dict[str, int]:
        """A switch tells of what it forwarded a moment later; what is sent again unanswered counts again."""
        async with asyncio.timeout(20):
            while True:
                found = await hits(rule)
                if all(found.get(engine, 0) >= least for engine, least in everywhere.items()):
                    return found
                await asyncio.sleep(0.1)

    for rule in ("a/few/ingress[0]", "a/all/egress[0]"):
        found = await counted(rule)
        assert found.keys() == everywhere.keys()
        assert all(count < 50 for count in found.values()), "of a connection the first packet is judged alone"
    for one in counter.told()[0]:
        if one.rule not in ("a/few/ingress[0]", "a/all/egress[0]"):
            assert one.never, one
    before = await hits("a/few/ingress[0]")
    await lab.load(objects((8080, 9999)))
    counter.use(lab.cluster)
    assert (await hits("a/few/ingress[0]")) == before, "the sum outlives the counters"
    assert await asyncio.to_thread(tcp_reaches, source.path, server.address, 8080)
    everywhere = {engine: count + 1 for engine, count in before.items() if engine == lab.engines[-1].name}
    await counted("a/few/ingress[0]")
