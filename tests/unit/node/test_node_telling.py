"""What people read in Events about their units is what the kubelet and virt-handler write, at the container it is about."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.node.network.protocol import FabricFailure
from isoplane.node.runtime.protocol import ImageNews, ImageStep, RuntimeFailure, RuntimeReason
from isoplane.node.telling import Teller
from isoplane.node.track import Desired, Track
from isoplane.objects.metadata import Object
from isoplane.workload import delta, wording
from isoplane.workload.adapters import Adapter
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import UnitObserved, UnitState
from isoplane.workload.vmi import MachineAdapter

META = {"name": "w", "namespace": "n", "uid": "u"}
POD: Object = {
    "kind": "Pod",
    "metadata": META,
    "spec": {"initContainers": [{"name": "i", "image": "x:1"}], "containers": [{"name": "c", "image": "x:1"}]},
}
MACHINE: Object = {
    "kind": "VirtualMachineInstance",
    "metadata": META,
    "spec": {
        "domain": {"devices": {"disks": [{"name": "d", "disk": {}}]}, "memory": {"guest": "64Mi"}},
        "volumes": [{"name": "d", "containerDisk": {"image": "y:1"}}],
    },
}


class Heard:
    def __init__(self, adapter: Adapter, obj: Object) -> None:
        self.lines: list[str] = []
        self.teller, self.track = Teller(self._hear), Track()
        self.desired = Desired(adapter, obj, adapter.project(obj))
        self.unit = self.desired.workload.units[-1]

    def _hear(self, obj: Object, type_: str, reason: str, message: str, field_path: str = "") -> None:
        self.lines.append(" ".join(filter(None, (type_, reason, field_path))) + f": {message}")

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


def pod(**spec: Any) -> Heard:
    return Heard(PodAdapter(), {**POD, "spec": {**POD["spec"], **spec}})


C, INIT = "spec.containers{c}", "spec.initContainers{i}"


def test_a_container_comes_and_goes_in_the_kubelets_words() -> None:
    heard = pod()
    listen = heard.teller.images(heard.desired)
    listen(ImageNews(ImageStep.PULLING, "x:1"))
    listen(ImageNews(ImageStep.PULLED, "x:1", 1.2049, 62.5, 1234))
    listen(ImageNews(ImageStep.PRESENT, "x:1"))
    heard.teller.started(heard.desired, heard.unit)
    pulled = 'Successfully pulled image "x:1" in 1.204s (1m2.5s including waiting). Image size: 1234 bytes.'
    present = 'Container image "x:1" already present on machine'
    assert heard.take() == [
        f'Normal Pulling {INIT}: Pulling image "x:1"',
        f"Normal Pulled {INIT}: {pulled}",
        f"Normal Pulled {C}: {present}",
        f"Normal Pulled {INIT}: {present}",
        f"Normal Pulled {C}: {present}",
        f"Normal Created {C}: Container created",
        f"Normal Started {C}: Container started",
    ]


@pytest.mark.parametrize(
    ("rule", "why", "text"),
    [
        ("Always", "deleted", "Stopping container c"),
        ("Always", "active for longer than its deadline", "Stopping container c"),
        ("Always", delta.LIVENESS_FAILED, "Container c failed liveness probe, will be restarted"),
        ("OnFailure", delta.STARTUP_FAILED, "Container c failed startup probe, will be restarted"),
        ("Never", delta.LIVENESS_FAILED, "Container c failed liveness probe"),
        ("Never", delta.IMAGE_CHANGED, "Container c definition changed, will be restarted"),
        ("Always", delta.HOOK_FAILED, "FailedPostStartHook"),
    ],
)
def test_why_a_container_is_stopped_is_told_once_an_attempt(rule: str, why: str, text: str) -> None:
    heard = pod(restartPolicy=rule)
    for killed in (False, False, True, True):
        heard.teller.stopping(heard.desired, "c", why, heard.track, killed=killed)
    assert heard.take() == [f"Normal Killing {C}: {text}"]
    heard.track.forget_unit("c")
    heard.teller.stopping(heard.desired, "c", why, heard.track, killed=True)
    assert len(heard.take()) == 1


def test_what_goes_wrong_is_told_with_its_cause() -> None:
    heard = pod()

    def fail(failure: Exception, reason: str, *, again: bool = False) -> list[str]:
        heard.teller.failed(heard.desired, failure, reason, [heard.unit], again=again)
        return heard.take()

    gone = RuntimeFailure(RuntimeReason.ERR_IMAGE_PULL, "no such host", image="x:1")
    first = [
        f'Warning Failed {INIT}: Failed to pull image "x:1": no such host',
        f"Warning Failed {INIT}: Error: ErrImagePull",
    ]
    assert fail(gone, gone.reason) == first
    later = [f'Normal BackOff {INIT}: Back-off pulling image "x:1"', f"Warning Failed {INIT}: Error: ImagePullBackOff"]
    assert fail(gone, gone.reason, again=True) == [*first, *later]
    never = RuntimeFailure(RuntimeReason.IMAGE_NEVER_PULL, "load it", image="x:1")
    assert fail(never, never.reason, again=True) == [
        f'Warning ErrImageNeverPull {INIT}: Container image "x:1" is not present with pull policy of Never',
        f"Warning Failed {INIT}: Error: ErrImageNeverPull",
    ]
    config = RuntimeFailure(RuntimeReason.CREATE_CONFIG, 'configmap "m" not found')
    assert fail(config, config.reason) == [f'Warning Failed {C}: Error: configmap "m" not found']
    sandbox = fail(FabricFailure("no address is left"), RuntimeReason.SANDBOX)
    assert sandbox == [f"Warning FailedCreatePodSandBox {C}: Failed to create pod sandbox: no address is left"]

    heard.teller.unhealthy(heard.desired, heard.unit, "readiness", "HTTP probe failed with statuscode: 503")
    heard.teller.backing_off(heard.desired, "c", "w_n(u)")
    assert heard.take() == [
        f"Warning Unhealthy {C}: Readiness probe failed: HTTP probe failed with statuscode: 503",
        f"Warning BackOff {C}: Back-off restarting failed container c in pod w_n(u)",
    ]


def test_memory_that_ran_out_is_told_once_by_whoever_started_the_attempt() -> None:
    heard = pod()
    seen = UnitObserved("c", UnitState.EXITED, attempt=1, reason="OOMKilled")
    heard.teller.ended(heard.desired, seen, heard.track)
    assert heard.take() == []
    heard.track.told["c"], heard.track.ended = 1, {}
    heard.teller.ended(heard.desired, seen, heard.track)
    heard.teller.ended(heard.desired, seen, heard.track)
    assert heard.take() == [f"Warning OOMKilled {C}: c used more memory than it may, and was killed"]


def test_a_machine_comes_and_goes_in_virt_handlers_words() -> None:
    heard = Heard(MachineAdapter(), MACHINE)
    heard.teller.images(heard.desired)(ImageNews(ImageStep.PULLING, "z:1"))
    heard.teller.started(heard.desired, heard.unit)
    for killed in (False, False, True, True):
        heard.teller.stopping(heard.desired, heard.unit.name, "deleted", heard.track, killed=killed)
    heard.teller.failed(heard.desired, FabricFailure("no tap"), RuntimeReason.SANDBOX, [], again=False)
    assert heard.take() == [
        'Normal Pulling: Pulling image "z:1"',
        "Normal Created: VirtualMachineInstance defined.",
        "Normal Started: VirtualMachineInstance started.",
        "Normal ShuttingDown: Signaled Graceful Shutdown",
        "Normal Stopped: VirtualMachineInstance stopping",
        "Warning SyncFailed: CreatePodSandboxError: no tap",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (9.6, "10s"), (80, "1m20s"), (300, "5m0s")])
def test_durations_read_as_gos(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text
