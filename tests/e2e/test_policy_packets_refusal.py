"""An engine that cannot load what policies ask for keeps its last good rules, says so, and tries again: nothing opens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fabric_support import eventually, tcp_reaches
from isoplane.node.network.enforcer import EngineRules, Rendered
from isoplane.node.network.engines.iptables import join, split
from isoplane.node.network.engines.protocol import EngineFailure
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.policy.table import Tables
from policy_lab_support import MIXES, PolicyLab, labs

pytestmark = pytest.mark.root
Start = Callable[[str], Awaitable[PolicyLab]]
PORT = 8080


def objects(app: str) -> list[dict[str, Any]]:
    """Two clients and a server of each kind; the servers let in whoever has the label."""
    gate = {"podSelector": {"matchLabels": {"role": "server"}}}
    return [
        {"kind": "Namespace", "metadata": {"name": "a"}},
        *(
            {"kind": kind, "metadata": {"name": name, "namespace": "a", "labels": {"app": name, "role": role}}}
            for kind in ("Pod", "VirtualMachineInstance")
            for name, role in (("one", "client"), ("two", "client"), ("server", "server"))
        ),
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": "gate", "namespace": "a"},
            "spec": {**gate, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]},
        },
    ]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with labs(tmp_path, "iptables", "ipset") as begin:

        async def started(mix: str) -> PolicyLab:
            return await begin(mix, objects("one"), (PORT,))

        yield started


def spoiled(engine: str, rules: EngineRules) -> EngineRules:
    """With a last line that the engine's tool refuses, after everything that it would take."""

    def spoil(text: str) -> str:
        if engine == "iptables":
            steps = split(text)
            whole, _, _ = steps.v4.rpartition("COMMIT\n")
            return join(replace(steps, v4=f"{whole}-A ISP-FORWARD -j NOWHERE\nCOMMIT\n"))
        return text + ("table=1,priority=1,nonsense=1,actions=drop\n" if engine == "openvswitch" else "add nonsense\n")

    return EngineRules(spoil(rules.text), None if rules.update is None else spoil(rules.update), rules.base)


Pair = tuple[str, str]
PAIRS: list[Pair] = [
    (f"{one}/a/{name}", f"{two}/a/server")
    for one in ("pod", "vmi")
    for name in ("one", "two")
    for two in ("pod", "vmi")
]


async def reached(lab: PolicyLab, pairs: Sequence[Pair]) -> dict[Pair, bool]:
    async def ask(source: str, target: str) -> bool:
        return await asyncio.to_thread(
            tcp_reaches, lab.places[source].path, lab.places[target].address, PORT, timeout=0.5
        )

    return dict(zip(pairs, await asyncio.gather(*(ask(*pair) for pair in pairs)), strict=True))


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_a_refused_change_opens_nothing(start: Start, mix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = await start(mix)
    assert await lab.disagreements() == []
    right = lab.rules.render
    wanted = Rendered("", {})

    def render(tables: Tables, plugs: Sequence[NetworkInterface]) -> Rendered:
        nonlocal wanted
        wanted = right(tables, plugs)
        return replace(wanted, rules={name: spoiled(name, rules) for name, rules in wanted.rules.items()})

    monkeypatch.setattr(lab.rules, "render", render)
    enforced = dict(lab.enforcer._enforced)
    # nobody may pass any more that could before, and the other one not yet: what is forbidden goes first, what is allowed last
    with pytest.raises(EngineFailure):
        await lab.load(objects("two"))
    failures: Mapping[str, str] = lab.enforcer.status.failures
    assert failures.keys() == {engine.name for engine in lab.engines}
    assert dict(lab.enforcer._enforced) == enforced, "workloads are told of the revision that they have"
    found = await reached(lab, PAIRS)
    assert not any(passed for (source, _), passed in found.items() if source.endswith("two")), "nothing opens"
    monkeypatch.undo()
    lab.enforcer.poke()
    await eventually(lambda: not lab.enforcer.status.failures, timeout=10)
    assert await lab.disagreements() == []


async def test_a_crash_between_the_steps_of_iptables_opens_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sets and rules are not atomic together: whatever step is the last, no more passes than before or after."""
    lab = await start("iptables")
    (engine,) = lab.engines
    steps = type(engine)._run  # type: ignore[attr-defined]
    gone: list[str] = []
    calls: list[str] = []
    left = 0

    async def crash(self: object, tool: str, *arguments: str, stdin: str | None = None) -> str:
        if stdin is not None:
            calls.append(tool)
            if len(calls) > left:
                raise EngineFailure("the plane is gone")
        return str(await steps(self, tool, *arguments, stdin=stdin))

    for left in range(4):
        calls.clear()
        monkeypatch.setattr(type(engine), "_run", crash)
        with pytest.raises(EngineFailure):
            await lab.load(objects("nobody"))
        found = await reached(lab, PAIRS)
        assert not any(passed for (source, _), passed in found.items() if source.endswith("two")), calls
        gone.append(calls[left])
        monkeypatch.undo()
        lab.enforcer.reset()  # as a new plane, which does not know how far the last one came
        await lab.load(objects("one"))
        assert await lab.disagreements() == []
    assert {"ipset", "iptables-restore", "ip6tables-restore"} <= set(gone)


@pytest.mark.parametrize("mix", ["nftables-and-openvswitch", "iptables"])
async def test_ten_thousand_rules_in_one_policy(start: Start, mix: str) -> None:
    lab = await start(mix)
    many = objects("one")
    rules = [
        {"ports": [{"port": port}], "from": [{"podSelector": {"matchLabels": {"app": "one"}}}]}
        for port in range(10_000, 20_000)
    ]
    many[-1]["spec"]["ingress"] = [
        *rules,
        {"from": [{"podSelector": {"matchLabels": {"app": "two"}}}], "ports": [{"port": PORT}]},
    ]
    await lab.load(many)
    assert await lab.disagreements() == []
    found = await reached(lab, PAIRS)
    assert {source.rpartition("/")[2] for (source, _), passed in found.items() if passed} == {"two"}
