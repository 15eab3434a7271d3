"""The founding example with real packets: containers and machines under one NetworkPolicy, on every choice of engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from fabric_support import pings, tcp_reaches, tcp_socket
from policy_lab_support import MIXES, PolicyLab, labs, manifests

pytestmark = pytest.mark.root
EXAMPLE = Path(__file__).parents[2] / "examples/03-tenant-isolation"
Start = Callable[..., Awaitable[PolicyLab]]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with labs(tmp_path) as begin:

        async def started(mix: str, policy: str) -> PolicyLab:
            return await begin(mix, _objects(policy), (53, 8080))

        yield started


def _objects(policy: str) -> list[dict[str, object]]:
    return manifests(EXAMPLE / "workloads.yaml", *([EXAMPLE / policy] if policy else []))


def _id(lab: PolicyLab, short: str) -> str:
    return next(place for place in lab.places if place.partition("/")[2] == short)


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_packets_agree_with_the_table_of_the_example(start: Start, mix: str) -> None:
    lab = await start(mix, "")
    assert await lab.disagreements() == []
    for policy, rows in yaml.safe_load((EXAMPLE / "expected/outcome.yaml").read_text()).items():
        await lab.load(_objects(policy))
        wanted = {}
        for row in rows:
            if not row["to"].startswith("ip:"):
                port, _, protocol = row["port"].partition("/")
                for family in lab.families:
                    wanted[_id(lab, row["from"]), _id(lab, row["to"]), protocol, int(port), family] = row["allowed"]
        assert {question: lab.expected(*question) for question in wanted} == wanted
        assert await lab.disagreements(wanted) == []
        # and every other pair, as the reference says
        assert await lab.disagreements() == []
        for place in lab.places.values():
            for address in place.addresses:
                assert await asyncio.to_thread(tcp_reaches, "", address, 8080), "the node reaches its own workloads"
                assert await asyncio.to_thread(pings, "", address)


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_a_change_cuts_what_it_forbids_and_nothing_else(start: Start, mix: str) -> None:
    lab = await start(mix, "corrected/policy.yaml")
    inside = (_id(lab, "tenant-a/client"), _id(lab, "tenant-a/web"))
    machine = (_id(lab, "tenant-a/client"), _id(lab, "tenant-a/database"))
    shared = (_id(lab, "shared/backup"), _id(lab, "tenant-b/workstation"))
    streams = {}
    for pair in (inside, machine, shared):
        for address in lab.places[pair[1]].addresses:
            streams[pair, address] = tcp_socket(lab.places[pair[0]].path, address)
            await asyncio.to_thread(streams[pair, address].connect, (address, 8080))
            assert await _echo(streams[pair, address])
    await lab.load(_objects("policy.yaml"))  # nothing but DNS leaves tenant-a from now on
    echoes = await asyncio.gather(*map(_echo, streams.values()))
    assert dict(zip(streams, echoes, strict=True)) == {key: key[0] == shared for key in streams}
    assert lab.enforcer.status.cut >= 4
    for stream in streams.values():
        stream.close()


async def _echo(stream: object) -> bool:
    def ask() -> bool:
        stream.settimeout(1.0)  # type: ignore[attr-defined]
        try:
            stream.sendall(b"still there")  # type: ignore[attr-defined]
            return bool(stream.recv(100) == b"still there")  # type: ignore[attr-defined]
        except OSError:
            return False

    return await asyncio.to_thread(ask)
