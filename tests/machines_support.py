"""Random machines, for tests that count them."""

from __future__ import annotations

from random import Random
from typing import Any

_CPUS = ("1", "2", "3", "250m", "0", 2)
_MEMORIES = ("64Mi", "1Gi", "1000M", "0", "128Mi")


def _some(rng: Random, **choices: Any) -> dict[str, Any]:
    """Each of the fields, or not, with one of its values."""
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.5}


def random_machine(rng: Random, name: str) -> dict[str, Any]:
    """A VirtualMachineInstance as somebody would write it: nothing is defaulted."""
    cpu: dict[str, Any] = _some(rng, cores=(1, 2, 3), sockets=(1, 2), threads=(1, 2))
    cpu |= _some(rng, dedicatedCpuPlacement=(True,), isolateEmulatorThread=(True, False), model=("host-model",))
    memory: dict[str, Any] = _some(rng, guest=("64Mi", "1Gi", "256Mi"))
    if rng.random() < 0.2:
        memory["hugepages"] = {"pageSize": rng.choice(("2Mi", "1Gi"))}
    requests = _some(rng, cpu=_CPUS, memory=_MEMORIES, **{"ephemeral-storage": ("1Gi",)})
    limits = _some(rng, cpu=_CPUS, memory=_MEMORIES)
    devices: dict[str, Any] = _some(
        rng, autoattachGraphicsDevice=(True, False), logSerialConsole=(True, False), tpm=({}, {"enabled": False})
    )
    domain: dict[str, Any] = {"devices": devices}
    domain |= {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    resources |= _some(rng, overcommitGuestOverhead=(True,))
    if resources:
        domain["resources"] = resources
    domain |= _some(rng, ioThreads=({"supplementalPoolThreadCount": 3},), ioThreadsPolicy=("supplementalPool",))
    spec: dict[str, Any] = {"domain": domain}
    spec |= _some(rng, volumes=([{"name": "a", "containerDisk": {"image": "x"}}],))
    annotations = _some(rng, **{"alpha.kubevirt.io/EmulatorThreadCompleteToEvenParity": ("",)})
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "a", "annotations": annotations},
        "spec": spec,
    }
