"""Every step of quota's work for one namespace throws, for as long as others write: they go on, and so does it afterwards."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import ApiError
from isoplane.objects.kinds import PODS
from isoplane.server.quota_admission.accounts import RowAccounts
from isoplane.server.quota_admission.plugin import QuotaAdmission
from isoplane.server.quota_admission.repair import repair
from isoplane.server.quota_admission.session import Session
from isoplane.server.quota_admission.telling import Telling
from quota_plane_support import QuotaPlane, quota_plane


def _steps() -> list[tuple[type, str]]:
    """Every method that quota's transactions are made of."""
    found = []
    for owner in (Session, Telling, RowAccounts, QuotaAdmission):
        for name, member in vars(owner).items():
            if inspect.isfunction(member) and not name.startswith("__") and member.__name__ == name:
                found.append((owner, name))
    return found


def _of_a(value: Any) -> bool:
    charge = getattr(value, "charge", value)
    return value == "a" or getattr(charge, "tenant", "") == "a" or getattr(value, "namespace", "") == "a"


class Fault(Exception):
    pass


def _thrower(real: Callable[..., Any]) -> Callable[..., Any]:
    def throw(self: Any, *args: Any, **kwargs: Any) -> Any:
        if any(_of_a(arg) for arg in (getattr(self, "request", None), *args)):
            raise Fault
        return real(self, *args, **kwargs)

    return throw


async def _try(coroutine: Any) -> None:
    try:
        await coroutine
    except (ApiError, Fault):
        pass


async def _write_all(plane: QuotaPlane, tenant: str, serial: str) -> None:
    """Everything that quota looks at: admitted, refused, waiting, changed, deleted, released."""
    await _try(plane.pod(f"one{serial}", tenant, cpu="1"))
    await _try(plane.pod(f"big{serial}", tenant, cpu="100"))
    await _try(plane.pod(f"wait{serial}", tenant, cpu="2", owner="o"))
    await _try(plane.api.patch(PODS, f"one{serial}", tenant, {"metadata": {"labels": {"x": "y"}}}))
    await _try(plane.api.patch(PODS, f"one{serial}", tenant, {"status": {"phase": "Running"}}, subresource="status"))
    await _try(plane.gone(f"one{serial}", tenant))
    await _try(plane.gone(f"wait{serial}", tenant))
    await _try(plane.gone(f"big{serial}", tenant))


@pytest.mark.parametrize(("owner", "name"), _steps(), ids=lambda value: getattr(value, "__name__", value))
async def test_a_fault_at_any_step_stays_in_its_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    async with quota_plane(tmp_path) as plane:
        await plane.node("n1", cpu="20")
        await plane.cohort()
        for tenant in ("a", "b"):
            await plane.tenant(tenant, {"cpu": "2"}, cohort="default", guaranteed={"cpu": "2"})
        await plane.pod("kept", "a", cpu="1")
        await plane.pod("queued", "a", cpu="2", owner="o")
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, _thrower(vars(owner)[name]))
            await _write_all(plane, "a", "1")
            # The other namespace sees nothing of it.
            await plane.pod("first", "b", cpu="1")
            with pytest.raises(ApiError, match="exceeded quota"):
                await plane.pod("second", "b", cpu="2")
            assert await plane.used("b") == {"cpu": "1"}
            await plane.gone("first", "b")
            assert await plane.used("b") == {"cpu": "0"}
        await _write_all(plane, "a", "2")
        for found in (await plane.api.list(PODS, "a")).items:
            await plane.gone(found["metadata"]["name"], "a")
        assert [f for f in await repair(plane.store, plane.plugin, lambda: plane.now) if f.tenant != "a"] == []
        assert await plane.used("a") == {"cpu": "0"}
        await plane.pod("again", "a", cpu="2")
        assert await plane.used("a") == {"cpu": "2"}
        assert await repair(plane.store, plane.plugin, lambda: plane.now) == []
