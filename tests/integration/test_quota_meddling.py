"""Two tenants of a cohort, and people who change everything there is to change: the books stay what the objects add up to."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from test_quota_crash import Life, is_gated

from isoplane.objects.errors import ApiError
from isoplane.objects.kinds import CONFIGMAPS, PODS, QUOTAPOLICIES, RESOURCEQUOTAS
from isoplane.quota.release import RETRY_ANNOTATION
from isoplane.server.quota_admission import repair
from quota_plane_support import QuotaPlane, quota_plane

ACCOUNTING = ("GuestPlusOverhead", "GuestOnly", "Requests")


class Meddler(Life):
    """Everything that a Life does, and changes of quotas, policies, sizes, gates and capacity."""

    async def settle(self) -> None:
        await self.plane.node(cpu="8", memory="16Gi", pods="40")
        await self.plane.cohort(cpu="1.25")
        await super().settle()
        for tenant in ("a", "b"):
            spec = {"cohort": "default", "guaranteed": {"cpu": "4"}, "borrowingLimit": {"cpu": "3"}}
            await self.plane.api.patch(QUOTAPOLICIES, "default", tenant, {"spec": spec})

    async def step(self) -> None:
        if self.rng.random() < 0.6:
            await super().step()
            return
        plane, rng, tenant = self.plane, self.rng, self.rng.choice("ab")
        plane.now += rng.choice([1, 1, 1, 200])
        with contextlib.suppress(ApiError):
            match rng.randrange(9):
                case 0:
                    hard = {"requests.cpu": str(rng.randint(1, 8)), "pods": str(rng.randint(2, 8))}
                    await plane.api.patch(RESOURCEQUOTAS, "q", tenant, {"spec": {"hard": hard}})
                case 1:
                    spec = {"vmAccounting": rng.choice(ACCOUNTING), "minRunSeconds": rng.choice([0, 5])}
                    await plane.api.patch(QUOTAPOLICIES, "default", tenant, {"spec": spec})
                case 2:
                    await plane.api.delete(RESOURCEQUOTAS, "extra", tenant)
                case 3:
                    selector = {"scopeName": "PriorityClass", "operator": "In", "values": ["batch", "critical"]}
                    scoped = rng.choice([{}, {"scopeSelector": {"matchExpressions": [selector]}}])
                    await plane.quota(tenant, {"requests.cpu": str(rng.randint(1, 6)), "pods": "5"}, "extra", **scoped)
                case 4:
                    await self._touch(tenant, {"metadata": {"annotations": {RETRY_ANNOTATION: str(plane.now)}}})
                case 5:
                    await self._ungate(tenant)
                case 6:
                    resources = {"requests": {"cpu": str(rng.randint(1, 4))}}
                    patch = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
                    await self._touch(tenant, patch, kind="strategic", subresource="resize")
                case 7:
                    name = f"c{rng.randrange(3)}"
                    if rng.random() < 0.5:
                        await plane.api.create(CONFIGMAPS, {"metadata": {"name": name, "namespace": tenant}})
                    else:
                        await plane.api.delete(CONFIGMAPS, name, tenant)
                case 8:
                    spec = {
                        "spec": {"guaranteed": {"cpu": str(rng.randint(0, 4))}, "cohort": rng.choice(["default", ""])}
                    }
                    if spec["spec"]["cohort"] == "":
                        spec["spec"] |= {"cohort": None, "borrowingLimit": None}
                    await plane.api.patch(QUOTAPOLICIES, "default", tenant, spec)

    async def _touch(self, tenant: str, patch: Any, **how: Any) -> None:
        if found := self._some(tenant):
            await self.plane.api.patch(found[0], found[1]["metadata"]["name"], tenant, patch, **how)

    async def _ungate(self, tenant: str) -> None:
        found = self._some(tenant)
        if found is None or not is_gated(found[1]):
            return
        resource, obj = found
        if resource is PODS:
            obj["spec"]["schedulingGates"] = []
            await self.plane.api.update(resource, obj)
        else:
            obj["status"]["conditions"] = []
            await self.plane.api.update(resource, obj, subresource="status")


def told(plane: QuotaPlane, tenant: str) -> None:
    """status.used of every quota is what the books say."""
    accounts = plane.accounts()
    for quota in accounts.quotas(tenant):
        record = plane.store.state.get(RESOURCEQUOTAS, tenant, quota.name)
        assert record is not None
        shown = record.object()["status"]["used"]
        assert int(shown["pods"]) == accounts.totals(tenant, quota.name).used.get("pods", 0)


@pytest.mark.parametrize("seed", range(16))
async def test_the_books_balance_whatever_is_changed(tmp_path: Path, seed: int) -> None:
    async with quota_plane(tmp_path / "data") as plane:
        meddler = Meddler(plane, seed)
        await meddler.settle()
        for _ in range(120):
            await meddler.step()
            for tenant in ("a", "b"):
                told(plane, tenant)
            assert await repair(plane.store, plane.plugin, lambda: plane.now) == []
