"""Random policies, real packets, every engine: whatever the reference says, the packet does. Prints the smallest disagreement."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fabric_support import spare_range
from policy_lab_support import MIXES, PolicyLab, labs

pytestmark = [pytest.mark.root, pytest.mark.slow]
Start = Callable[[str, list[Any]], Awaitable[PolicyLab]]
PORTS = (7, 8, 9)
SPACES = ("a", "b")
APPS = ("x", "y")
QUESTIONS = 1800
"""At least; three draws of policies on every choice of engines."""
CIDR = spare_range()
WIDE = ("0.0.0.0/0", "::/0", "fd00::/8")
BASE = CIDR.removesuffix(".0/24")


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with labs(tmp_path, "iptables-restore", "ipset") as begin:

        async def started(mix: str, objects: list[Any]) -> PolicyLab:
            return await begin(mix, objects, PORTS, CIDR)

        yield started


def loads() -> list[dict[str, Any]]:
    """Six endpoints of both kinds in two namespaces, with named ports that differ."""
    found: list[dict[str, Any]] = [
        {"kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}} for name in SPACES
    ]
    for space in SPACES:
        for turn, kind in enumerate(("Pod", "Pod", "VirtualMachineInstance")):
            spec: dict[str, Any] = {"containers": [{"ports": [{"name": "web", "containerPort": PORTS[turn % 2]}]}]}
            if kind != "Pod":
                # One of them lets in the port that it lists and no other, whatever policies say.
                binding = "masquerade" if space == "a" else "bridge"
                card = {"name": "default", binding: {}, "ports": [{"name": "web", "port": 9}]}
                spec = {"domain": {"devices": {"interfaces": [card]}}}
            labels = {"app": APPS[turn % 2]}
            found.append(
                {"kind": kind, "metadata": {"name": f"w{turn}", "namespace": space, "labels": labels}, "spec": spec}
            )
    return found


def policies(dice: random.Random) -> list[dict[str, Any]]:
    """One to three policies, nasty rather than likely."""

    def selector() -> dict[str, Any]:
        return dice.choice([{}, {"matchLabels": {"app": dice.choice(APPS)}}])

    def space() -> dict[str, Any]:
        return dice.choice([{}, {"matchLabels": {"team": dice.choice(SPACES)}}])

    def peer() -> dict[str, Any]:
        block = {"cidr": CIDR, "except": [f"{BASE}.{dice.choice((0, 2, 4, 128, 130))}/31"]}
        return dice.choice(
            [
                {"podSelector": selector()},
                {"namespaceSelector": space()},
                {"namespaceSelector": space(), "podSelector": selector()},
                {"ipBlock": dice.choice([*({"cidr": one} for one in WIDE), {"cidr": f"{BASE}.0/25"}, block])},
            ]
        )

    def port() -> dict[str, Any]:
        number = dice.choice(PORTS)
        made: dict[str, Any] = dice.choice(
            [
                {},
                {"port": number},
                {"port": "web"},
                {"port": number, "endPort": dice.choice([n for n in PORTS if n >= number])},
            ]
        )
        return {**made, "protocol": dice.choice(("TCP", "UDP", "SCTP"))}

    def rule(key: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if dice.random() < 0.8:
            made[key] = [peer() for _ in range(dice.randint(0, 2))]
        if dice.random() < 0.6:
            made["ports"] = [port() for _ in range(dice.randint(1, 2))]
        return made

    found = []
    for turn in range(dice.randint(1, 3)):
        spec: dict[str, Any] = {"podSelector": selector(), "policyTypes": []}
        for kind, field, key in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
            if dice.random() < 0.6:
                spec["policyTypes"].append(kind)
                spec[field] = [rule(key) for _ in range(dice.randint(0, 2))]
        if not spec["policyTypes"]:
            spec["policyTypes"] = ["Ingress"]
        found.append(
            {"kind": "NetworkPolicy", "metadata": {"name": f"p{turn}", "namespace": dice.choice(SPACES)}, "spec": spec}
        )
    return found


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_packets_do_what_the_reference_says(start: Start, mix: str) -> None:
    dice = random.Random(f"isoplane {mix}")
    lab = await start(mix, loads())
    asked = 0
    while asked < QUESTIONS:
        chosen = policies(dice)
        await lab.load([*loads(), *chosen])
        wrong = await lab.disagreements()
        if wrong:
            least = await lab.smallest([*loads(), *chosen], wrong[0])
            pytest.fail("\n".join([str(wrong[0]), *map(json.dumps, least)]))
        asked += len(lab.questions())
