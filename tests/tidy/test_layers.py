"""Imports go one way, and the pure cores touch no clock, file, socket, log or event loop (contracts in pyproject.toml)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tree_support import ROOT


def test_import_contracts() -> None:
    command = Path(sys.executable).parent / "lint-imports"
    run = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
