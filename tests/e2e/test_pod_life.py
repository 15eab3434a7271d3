"""The life of Pods on a real plane, all at once: what public bug reports say of hooks, probes, sidecars and crashes."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from isoplane.client.api import Api
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import CONFIGMAPS, EVENTS, PODS
from oci_support import demo_images, traces_of
from plane_support import PlaneProcess
from support import HOST_TOOLS, require

IMAGE = "isoplane.io/demo/busybox:1"
LOOP = "while :; do sleep 0.2; done"
CASES = Path(__file__).parents[1] / "cases"
RESOURCES = {"Pod": PODS, "ConfigMap": CONFIGMAPS}
Pod = dict[str, Any]

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("host")]


class World:
    """A plane, and a directory of this host that its Pods write to."""

    def __init__(self, api: Api, shared: Path) -> None:
        self.api = api
        self.shared = shared

    def container(self, script: str, name: str = "c", **fields: Any) -> Pod:
        mounts = [{"name": "h", "mountPath": "/h"}]
        return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], "volumeMounts": mounts, **fields}

    async def run(self, name: str, *containers: Pod, sidecars: tuple[Pod, ...] = (), **spec: Any) -> None:
        inits = [{**one, "restartPolicy": "Always"} for one in sidecars]
        volumes = [{"name": "h", "hostPath": {"path": str(self.shared)}}]
        body = {"terminationGracePeriodSeconds": 1, "volumes": volumes, **spec}
        obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
        await self.api.create(
            PODS,
            {**obj, "spec": {**body, "initContainers": inits, "containers": list(containers)}},
            namespace="default",
        )

    async def apply(self, name: str) -> None:
        """Make what a file of the cases says."""
        text = (CASES / name).read_text().replace("@SHARED@", str(self.shared))
        for obj in yaml.safe_load_all(text):
            await self.api.create(RESOURCES[obj["kind"]], obj, namespace="default")

    async def pod(self, name: str) -> Pod:
        return await self.api.get(PODS, name, "default")

    async def events(self, name: str) -> dict[str, str]:
        found = (await self.api.list(EVENTS, "default", field_selector=f"involvedObject.name={name}")).items
        return {event["reason"]: event["message"] for event in found}

    async def until(self, ask: Callable[[], Awaitable[Any]], what: str, seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := await ask()):
            assert time.monotonic() < deadline, f"{what} did not come about"
            await asyncio.sleep(0.1)
        return found

    async def phase(self, name: str, wanted: str) -> Pod:
        async def reached() -> Pod | None:
            pod = await self.pod(name)
            return pod if pod["status"].get("phase") == wanted else None

        found: Pod = await self.until(reached, f"{name} {wanted}")
        return found

    async def restarted(self, name: str) -> Pod:
        async def again() -> Pod | None:
            (status,) = (await self.pod(name))["status"].get("containerStatuses") or [{}]
            return status if status.get("restartCount") else None

        found: Pod = await self.until(again, f"a restart of {name}")
        return found

    def written(self, name: str) -> list[str]:
        path = self.shared / name
        return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    require(*HOST_TOOLS, root=True)
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    images = await asyncio.to_thread(demo_images)
    process = PlaneProcess(tmp_path / "data", "--images", str(images))
    await asyncio.to_thread(process.start)
    api = process.api()
    try:
        yield World(api, shared)
    finally:
        await api.close()
        process.close()
        await asyncio.to_thread(process.down, 1)
    assert traces_of(process.data) == []


async def slow_start(world: World) -> None:
    """Startup may take failureThreshold times periodSeconds (12 s), however often it is asked."""
    probe = {"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 3, "failureThreshold": 4}
    await world.run("slow", world.container(f"sleep 5; touch /tmp/up; {LOOP}", startupProbe=probe))

    async def started() -> bool:
        (status,) = (await world.pod("slow"))["status"].get("containerStatuses") or [{}]
        assert not status.get("restartCount")
        return bool(status.get("ready"))

    await world.until(started, "a slow start")


async def sidecar_readiness(world: World) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    side = world.container(LOOP, "side", readinessProbe=probe)
    await world.run("sidecarready", world.container(LOOP), sidecars=(side,))
    pod = await world.phase("sidecarready", "Running")
    assert {c["type"]: c["status"] for c in pod["status"]["conditions"]}["Ready"] == "False"


async def sidecar_after_main(world: World) -> None:
    """It has its network until it ended, and the Pod says Running until then."""
    await world.run("peer", {"name": "web", "image": "isoplane.io/demo/web:1"})
    peer = (await world.phase("peer", "Running"))["status"]["podIP"]
    ask = f"sleep 1; echo | nc -w 3 {peer} 8080 >/dev/null; echo rc=$? >>/h/flush; exit 0"
    side = world.container(f"trap '{ask}' TERM; {LOOP}", "side")
    fields = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 20}
    await world.run("flush", world.container("sleep 1"), sidecars=(side,), **fields)
    await world.phase("flush", "Succeeded")
    assert world.written("flush") == ["rc=0"]


async def sidecar_ignores(world: World) -> None:
    side = world.container(f"trap '' TERM; {LOOP}", "side")
    fields = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2}
    await world.run("ignoring", world.container("sleep 1"), sidecars=(side,), **fields)
    await world.phase("ignoring", "Succeeded")


async def sidecar_order(world: World) -> None:
    def speaker(name: str, rest: str = "") -> Pod:
        said = f"echo {name} term >>/h/order; {rest} exit 0"
        return world.container(f"trap '{said}' TERM; {LOOP}", name)

    sides = tuple(speaker(name, f"sleep 1; echo {name} end >>/h/order;") for name in ("s1", "s2"))
    await world.run("order", speaker("main"), sidecars=sides, terminationGracePeriodSeconds=20)
    await world.phase("order", "Running")
    await world.api.delete(PODS, "order", "default")

    async def gone() -> bool:
        try:
            return not await world.pod("order")
        except NotFound:
            return True

    await world.until(gone, "the end of order")
    assert world.written("order") == ["main term", "s2 term", "s2 end", "s1 term", "s1 end"]


async def hook_holds_back(world: World) -> None:
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "sleep 2; echo hook end >>/h/hook"]}}}
    first = world.container(f"echo a >>/h/hook; {LOOP}", "a", lifecycle=hook)
    await world.run("hook", first, world.container(f"echo b >>/h/hook; {LOOP}", "b"))

    async def begun() -> bool:
        return bool(world.written("hook"))

    await world.until(begun, "the first container")
    assert (await world.pod("hook"))["status"]["phase"] == "Pending"
    await world.phase("hook", "Running")

    async def both() -> bool:
        return len(world.written("hook")) == 3

    await world.until(both, "the second container")
    assert world.written("hook") == ["a", "hook end", "b"]


async def hook_fails(world: World) -> None:
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo no such thing; exit 3"]}}}
    await world.run("hookfails", world.container(LOOP, lifecycle=hook))
    await world.restarted("hookfails")
    told = (await world.events("hookfails"))["FailedPostStartHook"]
    assert told.startswith("PostStartHook failed")
    assert "no such thing" in told


async def probe_grace(world: World) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    container = world.container(f"trap '' TERM; {LOOP}", livenessProbe={**probe, "terminationGracePeriodSeconds": 2})
    await world.run("probegrace", container, terminationGracePeriodSeconds=90)
    await world.restarted("probegrace")


async def nobody_answers_grpc(world: World) -> None:
    """Asked, and killed for the reason that nobody listens."""
    probe = {"grpc": {"port": 2379}, "periodSeconds": 1, "failureThreshold": 2}
    await world.run("grpc", world.container(LOOP, livenessProbe=probe))
    await world.restarted("grpc")
    assert "onnect" in (await world.events("grpc"))["Unhealthy"]


async def crash_loop(world: World) -> None:
    await world.run("crash", world.container("exit 1"))

    async def told() -> str:
        return (await world.events("crash")).get("BackOff", "")

    uid = (await world.pod("crash"))["metadata"]["uid"]
    message = await world.until(told, "BackOff")
    assert message == f"Back-off restarting failed container c in pod crash_default({uid})"
    told_all = await world.events("crash")
    assert (told_all["Created"], told_all["Started"]) == ("Container created", "Container started")
    assert told_all["Pulled"].endswith("already present on machine")


async def out_of_memory(world: World) -> None:
    eater = world.container("sleep 1; tail /dev/zero", resources={"limits": {"memory": "16Mi"}})
    await world.run("oom", eater)
    status = await world.restarted("oom")
    assert status["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert "OOMKilled" in await world.events("oom")
    assert not Path("oom").exists(), "conmon's note belongs to the container, not where the plane was started"


async def sub_paths_have_the_group(world: World) -> None:
    await world.apply("subpath.yaml")
    await world.phase("subpath", "Succeeded")


async def mounted_files_follow(world: World) -> None:
    await world.apply("configmap-update.yaml")

    async def shows(what: str) -> bool:
        return world.written("seen") == [what]

    await world.until(lambda: shows('one l="one"'), "the first content")
    await world.api.patch(CONFIGMAPS, "followed", "default", {"data": {"k": "two"}})
    await world.api.patch(PODS, "follower", "default", {"metadata": {"labels": {"l": "two"}}})
    await world.until(lambda: shows('two l="two"'), "the new content", 90)


async def a_pods_own_limit_holds(world: World) -> None:
    await world.apply("pod-level-limit.yaml")
    (status,) = (await world.phase("podlevel", "Failed"))["status"]["containerStatuses"]
    assert status["state"]["terminated"]["reason"] == "OOMKilled"


async def read_only_goes_down(world: World) -> None:
    below = world.shared / "tree" / "below"
    below.mkdir(parents=True, mode=0o777)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)  # noqa: ASYNC221
    try:
        (below / "there").touch()
        await world.apply("recursive-readonly.yaml")
        await world.phase("readonly", "Succeeded")
        assert sorted(path.name for path in below.iterdir()) == ["there"]
    finally:
        subprocess.run(["umount", "--lazy", str(below)], check=True)  # noqa: ASYNC221


async def test_the_life_of_pods(world: World) -> None:
    cases = (
        slow_start, sidecar_readiness, sidecar_after_main, sidecar_ignores, sidecar_order, hook_holds_back, hook_fails,
        probe_grace, nobody_answers_grpc, crash_loop, out_of_memory, sub_paths_have_the_group, mounted_files_follow,
        a_pods_own_limit_holds, read_only_goes_down,
    )  # fmt: skip
    answers = await asyncio.gather(*(case(world) for case in cases), return_exceptions=True)
    failed = {case.__name__: answer for case, answer in zip(cases, answers, strict=True) if answer is not None}
    assert not failed, failed
