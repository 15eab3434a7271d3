"""What the engines would load for the founding example, compared as text: a change of it must be seen in review.

Write the files anew with ISOPLANE_GOLDEN=write.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isoplane.cli.policy import app

ROOT = Path(__file__).parents[3]
EXAMPLE, GOLDEN = ROOT / "examples" / "03-tenant-isolation", ROOT / "tests" / "golden" / "policy"


@pytest.mark.parametrize("engine", ["nftables", "iptables", "openflow"])
@pytest.mark.parametrize("policy", ["policy.yaml", "corrected/policy.yaml"])
def test_rendered_example(engine: str, policy: str) -> None:
    args = ["render", "-f", str(EXAMPLE / "workloads.yaml"), "-f", str(EXAMPLE / policy), "--engine", engine]
    text = CliRunner().invoke(app, args).stdout
    path = GOLDEN / f"{'corrected' if '/' in policy else 'founding'}.{engine}"
    if os.environ.get("ISOPLANE_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text
