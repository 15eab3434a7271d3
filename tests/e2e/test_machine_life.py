"""The life of machines on a real plane: what public bug reports say of starting paused and of stopping at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from isoplane.client.api import Api
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES, VIRTUALMACHINES
from isoplane.objects.metadata import condition
from plane_support import PlaneProcess
from qemu_support import guest_store
from support import HOST_TOOLS, require

CASES = Path(__file__).parents[1] / "cases"
NAME = "startpaused"

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("host")]


@pytest_asyncio.fixture
async def plane(tmp_path: Path) -> AsyncIterator[PlaneProcess]:
    require(*HOST_TOOLS, root=True)
    process = PlaneProcess(tmp_path / "data", "--images", str(guest_store().root))
    await asyncio.to_thread(process.start)
    try:
        yield process
    finally:
        process.close()
        await asyncio.to_thread(process.down, 1)


async def until(ask: Callable[[], Awaitable[Any]], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (found := await ask()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        await asyncio.sleep(0.1)
    return found


async def instance(api: Api) -> dict[str, Any]:
    try:
        return await api.get(VIRTUALMACHINEINSTANCES, NAME, "default")
    except NotFound:
        return {}


def console(plane: PlaneProcess, uid: str) -> bytes:
    (log,) = (plane.data / "qemu" / "machines" / uid).glob("serial-0*.log")
    return log.read_bytes()


async def test_it_starts_paused_and_is_off_at_once_without_grace(plane: PlaneProcess) -> None:
    async with plane.api() as api:
        await api.create(
            VIRTUALMACHINES, yaml.safe_load((CASES / "start-paused.yaml").read_text()), namespace="default"
        )

        async def paused() -> str:
            found = await instance(api)
            stands = condition(found, "Paused") if found else None
            return str(found["metadata"]["uid"]) if stands and stands["status"] == "True" else ""

        uid = await until(paused, "a paused machine")
        assert condition(await instance(api), "Ready")["status"] == "False"  # type: ignore[index]
        assert console(plane, uid) == b"", "the guest has not run one instruction"
        await api.subresource(VIRTUALMACHINEINSTANCES, NAME, "default", "unpause", {})

        async def speaks() -> bool:
            return bool(console(plane, uid))

        await until(speaks, "a running guest")
        # A day of grace, and a guest that hears no power button while its kernel boots: it is destroyed at once.
        await api.subresource(VIRTUALMACHINES, NAME, "default", "stop", {"gracePeriod": 0})

        async def gone() -> bool:
            return not await instance(api)

        await until(gone, "the end of the machine")
