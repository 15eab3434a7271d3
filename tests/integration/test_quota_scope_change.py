"""A running workload that a change moves into another quota's scope is judged by that quota in full, as upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isoplane.objects.errors import QuotaExceeded
from isoplane.objects.kinds import PODS
from quota_plane_support import QuotaPlane, quota_plane

DEADLINE = {"spec": {"activeDeadlineSeconds": 3600}}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path) as made:
        yield made


async def test_into_a_full_scope_it_may_not_go(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"pods": "5"})
    await plane.quota("a", {"pods": "0", "requests.cpu": "0"}, "term", scopes=["Terminating"])
    await plane.pod("r", cpu="2")
    with pytest.raises(QuotaExceeded, match=r"exceeded quota: term, requested: pods=1,requests.cpu=2"):
        await plane.api.patch(PODS, "r", "a", DEADLINE)
    assert await plane.used("a", "term") == {"pods": "0", "requests.cpu": "0"}


async def test_into_one_with_room_it_goes_and_is_charged_there(plane: QuotaPlane) -> None:
    await plane.tenant("a", {"pods": "5"})
    await plane.quota("a", {"pods": "1", "requests.cpu": "2"}, "term", scopes=["Terminating"])
    await plane.quota("a", {"pods": "1", "requests.cpu": "2"}, "long", scopes=["NotTerminating"])
    await plane.pod("r", cpu="2")
    await plane.api.patch(PODS, "r", "a", DEADLINE)
    assert await plane.used("a", "term") == {"pods": "1", "requests.cpu": "2"}
    assert await plane.used("a", "long") == {"pods": "0", "requests.cpu": "0"}
    await plane.pod("next", cpu="2")
    with pytest.raises(QuotaExceeded, match="exceeded quota: term"):
        await plane.api.patch(PODS, "next", "a", DEADLINE)
