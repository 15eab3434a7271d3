"""QuotaPolicy spec.maxPriority: which PriorityClasses the workloads of a namespace may name, whichever way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isoplane.objects.errors import Forbidden
from isoplane.objects.kinds import NAMESPACES, PODS, QUOTAPOLICIES
from quota_plane_support import QuotaPlane, pod, quota_plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path) as made:
        await made.tenant("a", {"pods": "100"}, maxPriority=500)
        await made.priority("low", 500)
        await made.priority("high", 501)
        yield made


async def test_what_is_above_is_refused_in_spec_and_by_annotation(plane: QuotaPlane) -> None:
    await plane.pod("low", priority="low")
    refusal = r"spec\.priorityClassName: high has priority 501; this namespace may use up to 500"
    for asked in (pod("x", priority="high"), pod("x", handle="high")):
        with pytest.raises(Forbidden, match=refusal):
            await plane.api.create(PODS, asked)
    with pytest.raises(Forbidden, match=refusal):
        await plane.vmi("m", priority="high")


async def test_system_classes_are_nobodys_however_high_the_bound(plane: QuotaPlane) -> None:
    await plane.api.patch(QUOTAPOLICIES, "default", "a", {"spec": {"maxPriority": 2**31 - 1}}, kind="merge")
    await plane.pod("high", priority="high")
    with pytest.raises(Forbidden, match="system-node-critical has priority 2000001000"):
        await plane.pod("critical", priority="system-node-critical")
    await plane.api.patch(QUOTAPOLICIES, "default", "a", {"spec": {"maxPriority": None}}, kind="merge")
    await plane.pod("critical", priority="system-node-critical")


async def test_a_default_class_is_bound_as_well_and_other_namespaces_are_not(plane: QuotaPlane) -> None:
    await plane.priority("usual", 600, globalDefault=True)
    with pytest.raises(Forbidden, match="usual has priority 600"):
        await plane.pod("unsaid")
    await plane.api.create(NAMESPACES, {"metadata": {"name": "b"}})
    await plane.pod("unsaid", "b")
