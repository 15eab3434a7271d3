"""What tests on the real host share: a runtime of machines with the demonstration's guest, which leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isoplane.node.images.store import ImageStore
from qemu_support import Harness, guest_store, traces_of


@pytest.fixture(scope="module")
def store() -> ImageStore:
    """The images that machines boot from."""
    return guest_store()


@pytest.fixture
async def plane(tmp_path: Path, store: ImageStore) -> AsyncIterator[Harness]:
    """A runtime of machines; whatever is left at the end of a test is removed, and no trace of it stays."""
    async with Harness(tmp_path, store) as harness:
        yield harness
        for observed in await harness.runtime.observe_all():
            await harness.runtime.remove(observed.uid)
        assert traces_of(tmp_path) == []
