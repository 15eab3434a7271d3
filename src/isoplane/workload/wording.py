"""What is told of a workload's units in Events: the kubelet's words for containers, virt-handler's for machines. Pure.

An adapter names the wording of its kind; the node says when.  Nothing here decides anything.
Sources: Kubernetes pkg/kubelet (events, kuberuntime, images, prober); KubeVirt pkg/virt-handler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from isoplane.workload import delta
from isoplane.workload.shape import RestartRule, Unit, UnitRole

NORMAL = "Normal"
WARNING = "Warning"
FAILED = "Failed"
ERR_IMAGE_PULL = "ErrImagePull"
IMAGE_BACK_OFF = "ImagePullBackOff"


@dataclass(frozen=True, slots=True)
class Told:
    """One Event's type, reason and message."""

    type: str
    reason: str
    message: str


class Wording(Protocol):
    """How one kind tells what happens to its units."""

    def path(self, unit: Unit) -> str:
        """The field of the object that declares a unit; '' where the object is the unit."""
        ...

    def started(self, unit: Unit) -> tuple[Told, ...]:
        """A unit was made and started."""
        ...

    def asked_to_stop(self, unit: Unit, why: str) -> Told:
        """It was asked to end; ``why`` is one of ``workload.delta``'s."""
        ...

    def killed(self, unit: Unit, why: str) -> Told:
        """It was ended without being asked, or although it was."""
        ...

    def failed(self, reason: str, message: str) -> Told:
        """A step of its node failed; ``reason`` is what the status shows."""
        ...


class ContainerWording:
    """The kubelet's words. The container is named by the Event's field path, and where the kubelet does in the message."""

    def path(self, unit: Unit) -> str:
        field = "containers" if unit.role is UnitRole.MAIN else "initContainers"
        return f"spec.{field}{{{unit.name}}}"

    def started(self, unit: Unit) -> tuple[Told, ...]:
        return Told(NORMAL, "Created", "Container created"), Told(NORMAL, "Started", "Container started")

    def asked_to_stop(self, unit: Unit, why: str) -> Told:
        return Told(NORMAL, "Killing", _reason_to_stop(unit, why))

    killed = asked_to_stop

    def failed(self, reason: str, message: str) -> Told:
        if reason == "CreatePodSandboxError":
            return Told(WARNING, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {message}")
        return Told(WARNING, FAILED, f"Error: {message}")


def _reason_to_stop(unit: Unit, why: str) -> str:
    if why == delta.HOOK_FAILED:
        return "FailedPostStartHook"
    kept = {
        delta.IMAGE_CHANGED: f"Container {unit.name} definition changed, will be restarted",
        delta.LIVENESS_FAILED: f"Container {unit.name} failed liveness probe",
        delta.STARTUP_FAILED: f"Container {unit.name} failed startup probe",
    }.get(why)
    if kept is None:
        return f"Stopping container {unit.name}"
    unhealthy = why != delta.IMAGE_CHANGED
    return f"{kept}, will be restarted" if unhealthy and unit.restart is not RestartRule.NEVER else kept


class MachineWording:
    """virt-handler's words."""

    def path(self, unit: Unit) -> str:
        return ""

    def started(self, unit: Unit) -> tuple[Told, ...]:
        return (
            Told(NORMAL, "Created", "VirtualMachineInstance defined."),
            Told(NORMAL, "Started", "VirtualMachineInstance started."),
        )

    def asked_to_stop(self, unit: Unit, why: str) -> Told:
        return Told(NORMAL, "ShuttingDown", "Signaled Graceful Shutdown")

    def killed(self, unit: Unit, why: str) -> Told:
        return Told(NORMAL, "Stopped", "VirtualMachineInstance stopping")

    def failed(self, reason: str, message: str) -> Told:
        return Told(WARNING, "SyncFailed", f"{reason}: {message}")


def pulling(image: str) -> Told:
    return Told(NORMAL, "Pulling", f'Pulling image "{image}"')


def present(image: str) -> Told:
    return Told(NORMAL, "Pulled", f'Container image "{image}" already present on machine')


def pulled(image: str, seconds: float, waited: float, size: int) -> Told:
    """``waited``: ``seconds`` and the time before the pull began."""
    times = f"{_milliseconds(seconds)} ({_milliseconds(waited)} including waiting)"
    return Told(NORMAL, "Pulled", f'Successfully pulled image "{image}" in {times}. Image size: {size} bytes.')


def not_pulled(image: str, reason: str, message: str, *, again: bool) -> Iterable[Told]:
    """An image cannot be had; ``again``: and could not be had before, so that the next try waits."""
    match reason:
        case "ErrImagePull":
            yield Told(WARNING, FAILED, f'Failed to pull image "{image}": {message}')
        case "ErrImageNeverPull":
            text = f'Container image "{image}" is not present with pull policy of Never'
            yield Told(WARNING, "ErrImageNeverPull", text)
        case _:
            yield Told(WARNING, "InspectFailed", message)
    yield Told(WARNING, FAILED, f"Error: {reason}")
    if again and reason == ERR_IMAGE_PULL:
        yield Told(NORMAL, "BackOff", f'Back-off pulling image "{image}"')
        yield Told(WARNING, FAILED, f"Error: {IMAGE_BACK_OFF}")


def unhealthy(kind: str, message: str) -> Told:
    """A probe of ``kind`` was answered badly."""
    return Told(WARNING, "Unhealthy", f"{kind.capitalize()} probe failed: {message}")


def backing_off(unit: str, kind: str, where: str) -> Told:
    """A unit that failed waits before it is started again; ``where`` names its workload of ``kind``."""
    return Told(WARNING, "BackOff", f"Back-off restarting failed container {unit} in {kind} {where}")


def duration(seconds: float) -> str:
    """As Go prints whole seconds: ``40s``, ``1m20s``, ``5m0s``."""
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes}m{left}s" if minutes else f"{left}s"


def _milliseconds(seconds: float) -> str:
    """As Go prints a duration cut to milliseconds: ``12ms``, ``1.204s``, ``1m2.5s``."""
    whole = int(seconds * 1000)
    if whole < 1000:
        return f"{whole}ms" if whole else "0s"
    minutes, left = divmod(whole, 60_000)
    text = f"{left / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{text}" if minutes else text
