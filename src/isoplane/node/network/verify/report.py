"""What `isoplane policy verify` finds: for every choice of engines, whether each packet did what the reference says."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoplane.node.network.engines.protocol import EngineFailure
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import Wiring
from isoplane.node.network.verify.lab import MIXES, PolicyLab, spare_range
from isoplane.node.programs import which
from isoplane.policy.model import Cluster
from isoplane.policy.reach import ports_of
from isoplane.policy.rules import OTHER

Objects = Sequence[Mapping[str, Any]]
MOST_ENDPOINTS = 40
"""Every pair of endpoints is tried on every port."""
MOST_PORTS = 8
USUAL_PORT = 8080
"""Tried when no workload declares a port and no policy names one."""
_TOOLS = {"nftables": ("nft",), "iptables": ("iptables", "iptables-restore", "ipset")}
_BRIDGE = ("ovs-vswitchd", "ovsdb-server", "ovs-ofctl")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One set of manifests on one choice of engines. ``error``: it could not be tried; ``lacks``: which tools it needs."""

    engines: str
    manifests: str
    packets: int = 0
    disagreements: tuple[str, ...] = ()
    smallest: tuple[Mapping[str, Any], ...] = ()
    """The least of the manifests that still makes the first of the disagreements."""
    seconds: float = 0.0
    error: str = ""
    lacks: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return not self.disagreements and not self.error

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


def lacking(mix: str) -> tuple[str, ...]:
    """The tools that a choice of engines needs and this host does not have."""
    routed, containers, machines = MIXES[mix]
    needed = set(_TOOLS[routed])
    if Wiring.BRIDGED in (containers, machines):
        needed |= set(_BRIDGE)
    return tuple(sorted(tool for tool in needed if which(tool) is None))


def ports(clusters: Iterable[Cluster]) -> list[int]:
    """The numbers to try on TCP, UDP and SCTP: those that are declared or named, at most MOST_PORTS."""
    numbers = {number for one in clusters for protocol, number in ports_of(one) if protocol != OTHER}
    return sorted(numbers)[:MOST_PORTS] or [USUAL_PORT]


async def verify(mix: str, stages: Sequence[tuple[str, Objects]], tried: Sequence[int]) -> list[Outcome]:
    """Load each stage's policies in turn and try every pair on the ports ``tried``; shrink what disagrees.

    All stages have the same workloads.  Needs root; leaves nothing on the host.
    """
    if lacks := lacking(mix):
        return [Outcome(mix, stages[0][0], error=f"needs {', '.join(lacks)}", lacks=lacks)]
    directory = Path(tempfile.mkdtemp(prefix="isoplane-verify-"))
    lab = PolicyLab(directory, spare_range(), mix, tried)
    found: list[Outcome] = []
    try:
        for number, (name, objects) in enumerate(stages):
            began = time.monotonic()
            try:
                await (lab.load(objects) if number else lab.start(objects))
            except (EngineFailure, FabricFailure) as failure:
                found.append(Outcome(mix, name, error=str(failure)))
                break
            wrong = await lab.disagreements()
            took = time.monotonic() - began
            least = await lab.smallest(objects, wrong[0]) if wrong else []
            found.append(Outcome(mix, name, len(lab.questions()), tuple(map(str, wrong)), tuple(least), took))
    finally:
        await lab.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return found
