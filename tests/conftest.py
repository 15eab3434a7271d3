"""Settings for the whole suite."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

settings.register_profile("isoplane", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("fast", parent=settings.get_profile("isoplane"), max_examples=15)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "isoplane"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the host itself (links, tables, guests) run one after the other, in one worker."""
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("vm"):
            item.add_marker(pytest.mark.xdist_group("host"))
