"""What may be changed of a Pod that runs takes effect: another image, a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import samples_support as samples
from isoplane.client.http import HttpApi
from isoplane.objects.kinds import PODS
from plane_support import PlaneProcess


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[HttpApi]:
    plane = PlaneProcess(tmp_path / "data", "--runtime", "simulated").start()
    async with plane.api() as client:
        await client.create(PODS, {**samples.pod("web"), "metadata": {"name": "web"}}, namespace="default")
        await until(client, lambda pod: _state(pod).get("running"))
        yield client
    plane.close()


def _state(pod: Any) -> Any:
    statuses = (pod.get("status") or {}).get("containerStatuses") or [{}]
    return statuses[0].get("state") or {}


async def until(api: HttpApi, holds: Callable[[Any], Any]) -> Any:
    deadline = time.monotonic() + 20
    while True:
        pod = await api.get(PODS, "web", "default")
        if holds(pod):
            return pod
        assert time.monotonic() < deadline, pod["status"]
        await asyncio.sleep(0.05)


async def test_another_image_replaces_the_container(api: HttpApi) -> None:
    pod = await api.get(PODS, "web", "default")
    name = pod["spec"]["containers"][0]["name"]
    await api.patch(
        PODS, "web", "default", {"spec": {"containers": [{"name": name, "image": "other:2"}]}}, kind="strategic"
    )
    pod = await until(api, lambda p: _state(p).get("running") and p["status"]["containerStatuses"][0]["restartCount"])
    [status] = pod["status"]["containerStatuses"]
    assert (status["image"], status["restartCount"]) == ("other:2", 1)
    await asyncio.sleep(0.5)
    assert (await api.get(PODS, "web", "default"))["status"]["containerStatuses"][0]["restartCount"] == 1


async def test_a_deadline_that_is_over_fails_the_pod(api: HttpApi) -> None:
    await api.patch(PODS, "web", "default", {"spec": {"activeDeadlineSeconds": 1}}, kind="merge")
    pod = await until(api, lambda p: p["status"]["phase"] == "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert "terminated" in _state(pod)


async def test_an_unsafe_sysctl_fails_the_pod_that_sets_it(api: HttpApi) -> None:
    await api.delete(PODS, "web", "default", grace_seconds=0)
    pod = {**samples.pod("web"), "metadata": {"name": "web"}}
    pod["spec"] = {**pod["spec"], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "8192"}]}}
    await api.create(PODS, pod, namespace="default")
    pod = await until(api, lambda p: p["status"]["phase"] == "Failed")
    assert pod["status"]["reason"] == "SysctlForbidden"
    assert pod["status"]["message"] == 'forbidden sysctl: "kernel.msgmax" not allowlisted'


async def test_a_pod_that_fills_the_disk_is_evicted_for_good(api: HttpApi) -> None:
    await api.delete(PODS, "web", "default", grace_seconds=0)
    pod = samples.pod("web")
    pod["metadata"] = {"name": "web", "annotations": {"isoplane.io/simulated-storage-bytes": "2000000"}}
    pod["spec"]["containers"][0]["resources"] = {"limits": {"ephemeral-storage": "1Mi"}}
    await api.create(PODS, pod, namespace="default")
    pod = await until(api, lambda p: p["status"]["phase"] == "Failed")
    assert pod["status"]["reason"] == "Evicted"
    assert pod["status"]["message"] == "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
    assert "terminated" in _state(pod), "nothing of it runs when it is told to have failed"
    await asyncio.sleep(0.5)
    pod = await api.get(PODS, "web", "default")
    assert (pod["status"]["phase"], pod["status"]["containerStatuses"][0]["restartCount"]) == ("Failed", 0)
