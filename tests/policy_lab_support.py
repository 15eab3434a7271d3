"""What the policy suites share: the lab that `isoplane policy verify` runs, and manifests to put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from fabric_support import spare_range, traces
from isoplane.node.network.verify.lab import MIXES, NODE, Place, PolicyLab
from support import require

__all__ = ["MIXES", "NODE", "PORTS", "Begin", "Place", "PolicyLab", "labs", "manifests"]

PORTS = {"TCP": 8080, "UDP": 53}
Begin = Callable[..., Awaitable[PolicyLab]]
"""(mix, objects, ports, cidr="", serve=None) → a running lab."""


def manifests(*files: Path) -> list[dict[str, Any]]:
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]


@asynccontextmanager
async def labs(directory: Path, *tools: str) -> AsyncIterator[Begin]:
    """Gives out running labs; in the end they stop, and nothing of them may be left on the host."""
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", *tools, root=True)
    begun: list[PolicyLab] = []

    async def begin(
        mix: str, objects: Sequence[Any], ports: Sequence[int], cidr: str = "", serve: Sequence[str] | None = None
    ) -> PolicyLab:
        lab = PolicyLab(directory, cidr or spare_range(), mix, ports, serve=serve)
        begun.append(lab)
        await lab.start(objects)
        return lab

    yield begin
    for lab in begun:
        await lab.stop()
        assert traces(lab.fabric.names.tag, directory) == []
