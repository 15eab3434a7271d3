"""The launcher Pod's containers beside the guest's: which of them a machine has, and what they add to its amounts.

KubeVirt runs a machine in a Pod with the console log, container disks, shared file systems and hooks in containers of their
own.  A cluster charges them with the guest, so :mod:`~isoplane.workload.machine` does too; the figures and their source are
:mod:`~isoplane.workload.kubevirt`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.objects.effective import add, with_steps
from isoplane.workload import kubevirt
from isoplane.workload.kubevirt import Formula, Helper
from isoplane.workload.overhead import guaranteed

HOOKS = "hooks.kubevirt.io/hookSidecars"
"""The annotation that lists a machine's hooks, as JSON."""


@dataclass(frozen=True, slots=True)
class Step:
    """An init container of the launcher."""

    helper: Helper
    sidecar: bool = False


@dataclass(frozen=True, slots=True)
class Launcher:
    """A launcher's containers, the guest's aside."""

    containers: tuple[Helper, ...]
    steps: tuple[Step, ...]
    guaranteed: bool
    """Whether each requests what it is limited to."""

    def with_requests(self, own: Mapping[str, int]) -> dict[str, int]:
        """What the whole Pod requests, where the guest's container requests ``own``."""
        total = dict(own)
        for helper in self.containers:
            add(total, self._requests(helper))
        with_steps(total, ((step.sidecar, self._requests(step.helper)) for step in self.steps))
        return total

    def with_limits(self, own: Mapping[str, int]) -> dict[str, int]:
        """What the whole Pod is limited to; a resource that the guest's container leaves unlimited stays so."""
        total = dict(own)
        for helper in self.containers:
            add(total, helper.limits)
        with_steps(total, ((step.sidecar, step.helper.limits) for step in self.steps))
        return {name: value for name, value in total.items() if name in own}

    def _requests(self, helper: Helper) -> Mapping[str, int]:
        return {**helper.requests, **helper.limits} if self.guaranteed else helper.requests


def launcher(spec: Mapping[str, Any], annotations: Mapping[str, str], formula: Formula) -> Launcher:
    """The launcher that KubeVirt would make for a machine."""
    domain = spec.get("domain") or {}
    fixed = guaranteed(domain)
    containers: list[Helper] = []
    steps: list[Step] = []
    if _logs_console(domain):
        if formula.console_log_is_sidecar:
            steps.append(Step(kubevirt.CONSOLE_LOG, sidecar=True))
        else:
            containers.append(kubevirt.CONSOLE_LOG)
    disks = [kubevirt.CONTAINER_DISK] * _container_disks(spec)
    if disks and not formula.image_volumes:
        containers += disks
        steps.append(Step(kubevirt.GUARANTEED_DISK_TOOL if fixed else kubevirt.DISK_TOOL))
    steps += map(Step, disks)
    containers += [kubevirt.VIRTIOFS] * _shared(spec)
    containers += [kubevirt.GUARANTEED_HOOK if fixed else kubevirt.HOOK] * _hooks(annotations)
    return Launcher(tuple(containers), tuple(steps), fixed)


def _logs_console(domain: Mapping[str, Any]) -> bool:
    devices = domain.get("devices") or {}
    return devices.get("autoattachSerialConsole") is not False and devices.get("logSerialConsole") is not False


def _container_disks(spec: Mapping[str, Any]) -> int:
    """Volumes from images, and the image that a kernel is booted from."""
    kernel = (((spec.get("domain") or {}).get("firmware") or {}).get("kernelBoot") or {}).get("container") or {}
    volumes = spec.get("volumes") or ()
    return sum(volume.get("containerDisk") is not None for volume in volumes) + bool(kernel.get("image"))


def _shared(spec: Mapping[str, Any]) -> int:
    """Volumes that the guest mounts as file systems; a path inside the container needs no container of its own."""
    shared = {one.get("name") for one in ((spec.get("domain") or {}).get("devices") or {}).get("filesystems") or ()}
    return sum(v.get("name") in shared and v.get("containerPath") is None for v in spec.get("volumes") or ())


def _hooks(annotations: Mapping[str, str]) -> int:
    """How many hooks are listed. KubeVirt makes no launcher for a list that it cannot read; here such a machine runs without."""
    try:
        listed = json.loads(annotations.get(HOOKS) or "[]")
    except ValueError:
        return 0
    return len(listed) if isinstance(listed, list) else 0
