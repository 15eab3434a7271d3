"""What keeps a workload from running is told: in the list of workloads, in its Events, by its log; NULs are refused."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects import metadata, validation
from isoplane.objects.errors import BadRequest, NotFound
from isoplane.objects.kinds import EVENTS, PODS, VIRTUALMACHINEINSTANCES, WORKLOADS
from isoplane.workload.registry import adapter_for
from plane_support import PlaneProcess

STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z simulated .*\n")


def pod(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    body = {"containers": [{"name": "c", "image": "x"}], **spec}
    meta = {"name": name, "annotations": {f"isoplane.io/simulated-{k}": v for k, v in (annotations or {}).items()}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}


def machine(name: str) -> dict[str, Any]:
    disks = [{"name": "root", "disk": {"bus": "virtio"}}]
    domain = {"devices": {"disks": disks}, "resources": {"requests": {"memory": "64Mi"}}}
    spec = {"domain": domain, "volumes": [{"name": "root", "containerDisk": {"image": "x"}}]}
    return {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": name}, "spec": spec}


async def until(ask: Callable[[], Awaitable[Any]], what: str) -> Any:
    deadline = time.monotonic() + 20
    while not (found := await ask()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        await asyncio.sleep(0.05)
    return found


async def test_reasons_events_and_logs(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path / "data", "--runtime", "simulated")
    await asyncio.to_thread(plane.start)
    try:
        async with plane.api() as api:
            for one in (
                pod("web"),
                pod("absent", {"failure": "no such image"}),
                pod("nowhere", nodeSelector={"disk": "golden"}),
                pod("crash", {"run-seconds": "0.1", "exit-code": "3"}),
                pod("both"),
            ):
                await api.create(PODS, one, namespace="default")
            for name in ("guest", "both"):
                await api.create(VIRTUALMACHINEINSTANCES, machine(name), namespace="default")

            async def reason(name: str) -> str:
                found = await api.get(WORKLOADS, name, "default")
                printer = WORKLOADS.printer
                cells = dict(zip((column.name for column in printer.columns), printer.row(found, 0), strict=True))
                return str(cells["Reason"])

            for name, wanted in (
                ("absent", "(ErrImagePull|ImagePullBackOff)"),
                ("nowhere", r"Unschedulable: 0/1 nodes are available.*"),
                ("crash", "CrashLoopBackOff"),
            ):

                async def told(name: str = name, wanted: str = wanted) -> bool:
                    return re.fullmatch(wanted, await reason(name)) is not None

                await until(told, f"{name}: {wanted}")
            assert await reason("web") == await reason("guest") == ""
            with pytest.raises(NotFound, match=r"did you mean pod\.both or vmi\.both"):
                await api.get(WORKLOADS, "both", "default")

            workload = await api.get(WORKLOADS, "crash", "default")
            uid, name = metadata.uid(workload), metadata.name(workload)
            asked = f"involvedObject.kind=Workload,involvedObject.name={name},involvedObject.uid={uid}"
            events = (await api.list(EVENTS, "default", field_selector=asked)).items
            assert {"Started", "BackOff"} <= {event["reason"] for event in events}
            assert {event["involvedObject"]["name"] for event in events} == {"crash"}

            log = "/api/v1/namespaces/default/pods/web/log"
            assert STAMPED.fullmatch(await api.text(f"{log}?timestamps=true"))
            assert (await api.text(log)).startswith("simulated ")
            with pytest.raises(BadRequest, match=r'container "c" in pod "absent" is waiting to start: .*image'):
                await api.text("/api/v1/namespaces/default/pods/absent/log")
            with pytest.raises(BadRequest, match="previous terminated"):
                await api.text("/api/v1/namespaces/default/pods/web/log?previous=true")
    finally:
        plane.stop()


def test_no_nul_reaches_a_command_line_a_file_name_or_an_environment() -> None:
    serial = machine("m")
    serial["spec"]["domain"]["firmware"] = {"serial": "a\0b", "kernelBoot": {"kernelArgs": "quiet\0"}}
    for resource, obj, paths in (
        (PODS, pod("p", containers=[{"name": "c", "image": "x", "command": ["sh", "\0"]}]), ["spec.containers[0].command[1]"]),
        (PODS, pod("p", containers=[{"name": "c", "image": "x", "env": [{"name": "A", "value": "\0"}]}]),
         ["spec.containers[0].env[0].value"]),
        (VIRTUALMACHINEINSTANCES, serial, ["spec.domain.firmware.serial", "spec.domain.firmware.kernelBoot.kernelArgs"]),
        (PODS, pod("p", containers=[{"name": "c", "image": "x", "command": ["\\u0000"]}]), []),
    ):  # fmt: skip
        causes = validation.validate(resource, obj)
        assert [cause.field for cause in causes if "NUL" in cause.message] == paths


def test_a_gated_workload_says_what_it_waits_for_in_either_kind() -> None:
    for resource, obj in ((PODS, pod("p")), (VIRTUALMACHINEINSTANCES, machine("m"))):
        adapter = adapter_for(resource)
        assert adapter is not None
        assert adapter.trouble(obj) is None
        waiting = adapter.trouble(adapter.gate({**obj, "status": {}}, "short of cpu: 1", 1.0))
        assert waiting is not None
        assert (waiting.reason, waiting.message) == ("Gated", "short of cpu: 1")
        stuck = adapter.trouble(adapter.unplaceable({**obj, "status": {}}, "0/3 nodes are available", 1.0))
        assert stuck is not None
        assert (stuck.reason, stuck.message) == ("Unschedulable", "0/3 nodes are available")
