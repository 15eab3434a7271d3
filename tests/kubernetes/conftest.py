"""One control plane for all tests of this folder: it takes some ten seconds to start."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from control_plane_support import ControlPlane, binaries, node

from support import IN_CI, require


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in one worker, so that one control plane serves them."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("kubernetes"))


@pytest.fixture(scope="session")
def programs() -> Path:
    """The directory of the binaries; in CI they are built when missing."""
    found = binaries(build=IN_CI)
    if found is None and IN_CI:
        require("go")
        pytest.fail("the Kubernetes control plane could not be built: run tools/kubernetes.sh")
    if found is None:
        pytest.skip("no Kubernetes control plane: `make test-kubernetes` builds it from Go modules (once, ten minutes)")
    return found


@pytest.fixture(scope="session")
def control_plane(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """API server, controllers, scheduler, and two nodes of kwok's."""
    plane = ControlPlane(tmp_path_factory.mktemp("kubernetes"), programs)
    try:
        plane.start(kwok=True)
        for name in ("node-1", "node-2"):
            plane.kubectl("create", "-f", "-", stdin=json.dumps(node(name)))
        yield plane
    finally:
        plane.stop()
