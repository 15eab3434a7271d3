"""The demos: each runs end to end on this host, says so, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_support import CACHE
from support import HOST_TOOLS, require


def demo(scratch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ISOPLANE_DATA": str(CACHE / "demo"), "TMPDIR": str(scratch)}
    command = [sys.executable, "-m", "isoplane.cli.main", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


@pytest.mark.parametrize("name", ["pod-and-vm", "quota", "network"])
def test_a_demo_runs_simulated_for_anybody(name: str, tmp_path: Path) -> None:
    done = demo(tmp_path, name, "--runtime", "simulated")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done" in done.stdout or "Simulated workloads send no packets" in done.stdout


@pytest.mark.root
@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.xdist_group("host")
@pytest.mark.parametrize("name", ["pod-and-vm", "quota", "network"])
def test_a_demo_runs_for_real_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    require(*HOST_TOOLS, root=True)
    done = demo(tmp_path, name, "--runtime", "real")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Done" in done.stdout
    assert not list(tmp_path.glob("isoplane-demo-*")), "the demo's directory is still there"
