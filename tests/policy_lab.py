"""What the policy suites share: the lab that `isoplane policy verify` runs, and manifests to put into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from isoplane.node.network.verify.lab import MIXES, NODE, Place, PolicyLab

__all__ = ["MIXES", "NODE", "PORTS", "Place", "PolicyLab", "manifests"]

PORTS = {"TCP": 8080, "UDP": 53}


def manifests(*files: Path) -> list[dict[str, Any]]:
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]
