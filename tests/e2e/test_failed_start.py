"""A start that fails leaves no daemon, no link and no table of its own behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabric_support import traces as network_traces
from isoplane.node.agent import NodeAgent
from isoplane.node.network.settings import FabricSettings
from isoplane.node.parts import NodeOptions
from isoplane.plane import Plane, PlaneOptions
from support import HOST_TOOLS, require

pytestmark = [pytest.mark.root]


async def test_a_start_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(*HOST_TOOLS, root=True)

    async def fails(agent: NodeAgent) -> None:
        raise OSError("the host does not let itself be looked at")

    monkeypatch.setattr(NodeAgent, "_adopt", fails)
    data = tmp_path / "data"
    plane = Plane(PlaneOptions(data_dir=data, listen="127.0.0.1:0", node=NodeOptions(images=tmp_path / "images")))
    with pytest.raises(OSError, match="does not let itself"):
        await plane.start()
    assert network_traces(FabricSettings(data).names.tag, data) == []
