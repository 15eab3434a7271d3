"""The runtimes that the contract suite runs against, each with what it needs to be asked for the same things.

A case says how to make an instance on a data directory and how to declare a workload that behaves in a given way.  To add a
runtime, add a function that returns a :class:`RuntimeCase` and name it in ``CASES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from isoplane.node.runtime.protocol import Materials, NetworkInterface, Runtime
from isoplane.node.runtime.simulated import PREFIX, Pace, SimulatedRuntime
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Workload
from support import require


class Behaviour(StrEnum):
    """What the units of a workload do once started."""

    SERVE = "serve"
    """Run until asked to stop, then end well. Says LINE first."""
    STUBBORN = "stubborn"
    """Run, and ignore a graceful stop."""
    SUCCEED = "succeed"
    """End well by itself after a moment. Says LINE first."""
    FAIL = "fail"
    """End by itself with exit code 3. Says LINE first."""


LINE = "contract says hello"


@dataclass(frozen=True)
class RuntimeCase:
    """One runtime under test. ``patience`` bounds every wait for a change, in seconds."""

    name: str
    make: Callable[[Path], Runtime]
    declare: Callable[[str, Behaviour, int], Workload]
    """(uid, behaviour, number of units) → a workload whose units are named u0, u1…"""
    materials: Materials = field(default_factory=Materials)
    check_host: Callable[[], None] = lambda: None
    """Skips (fails in CI) where the host lacks what the runtime needs."""
    behaviours: frozenset[Behaviour] = frozenset(Behaviour)
    max_units: int = 2
    patience: float = 10.0
    speaks: bool = True
    """Whether LINE comes out of the units' logs."""
    executes: bool = True
    """Whether exec runs a real shell command."""
    executes_anything: bool = True
    """Whether exec is possible at all: a machine without a guest agent refuses it."""
    exit_code_when_killed: int | None = 137
    real: bool = True
    """Whether traces on the host can be looked for; ``traces`` does so."""
    traces: Callable[[Path], list[str]] = lambda _: []
    """What is left on the host of a data directory whose sandboxes are all removed."""


def pod(uid: str, containers: list[dict[str, Any]], annotations: dict[str, str], **spec: Any) -> Workload:
    """A Pod as the shape has it."""
    metadata = {"name": f"pod-{uid}", "namespace": "contract", "uid": uid, "annotations": annotations}
    declared = {"hostNetwork": True, "restartPolicy": "Never", "containers": containers, **spec}
    return PodAdapter().project({"metadata": metadata, "spec": declared})


_SCRIPTS = {
    Behaviour.SERVE: f"trap 'exit 0' TERM; echo {LINE}; while :; do sleep 0.05; done",
    Behaviour.STUBBORN: "trap '' TERM; while :; do sleep 0.05; done",
    Behaviour.SUCCEED: f"echo {LINE}; sleep 0.2",
    Behaviour.FAIL: f"echo {LINE}; sleep 0.2; exit 3",
}


def oci(runtime: str) -> RuntimeCase:
    from isoplane.node.images import ImageStore
    from isoplane.node.runtime.oci import OciRuntime

    def declare(uid: str, behaviour: Behaviour, units: int) -> Workload:
        command = ["/bin/sh", "-c", _SCRIPTS[behaviour]]
        image = "isoplane.io/demo/busybox:1"
        return pod(uid, [{"name": f"u{n}", "image": image, "command": command} for n in range(units)], {})

    def traces(data_dir: Path) -> list[str]:
        from oci_support import traces_of

        return traces_of(data_dir)

    def make(data_dir: Path) -> Runtime:
        from oci_support import demo_images

        return OciRuntime(data_dir, ImageStore(demo_images()), runtime=runtime)

    return RuntimeCase(
        name=f"oci-{runtime}",
        make=make,
        declare=declare,
        materials=Materials(network=NetworkInterface(), node_name="contract"),
        check_host=lambda: require(runtime, "conmon", "skopeo", "umoci", root=True),
        traces=traces,
    )


def simulated() -> RuntimeCase:
    def declare(uid: str, behaviour: Behaviour, units: int) -> Workload:
        steer = {
            Behaviour.SERVE: {},
            Behaviour.STUBBORN: {"stop-seconds": "never"},
            Behaviour.SUCCEED: {"run-seconds": "0.2"},
            Behaviour.FAIL: {"run-seconds": "0.2", "exit-code": "3"},
        }[behaviour]
        annotations = {PREFIX + key: value for key, value in steer.items()}
        return pod(uid, [{"name": f"u{n}", "image": "any"} for n in range(units)], annotations)

    return RuntimeCase(
        name="simulated",
        make=lambda data_dir: SimulatedRuntime(data_dir, "oci", Pace(start=0.02, stop=0.02)),
        declare=declare,
        speaks=False,
        executes=False,
        real=False,
    )


def qemu() -> RuntimeCase:
    """Machines that boot the demo guest without a network."""

    def declare(uid: str, behaviour: Behaviour, units: int) -> Workload:
        from qemu_support import machine_spec, machine_workload

        speak = {"cloudInitNoCloud": {"userData": f"#!/bin/sh\necho {LINE}\n"}, "name": "seed"}
        ends = "isoplane.poweroff_after=0.3" if behaviour is Behaviour.SUCCEED else ""
        workload = machine_workload(machine_spec(ends, volumes=[speak]), f"vm-{uid}", uid)
        return replace(workload, units=tuple(replace(unit, name="u0") for unit in workload.units))

    def traces(data_dir: Path) -> list[str]:
        from qemu_support import traces_of

        return traces_of(data_dir)

    def make(data_dir: Path) -> Runtime:
        from qemu_support import PatientRuntime, guest_store

        return PatientRuntime(data_dir, guest_store())

    return RuntimeCase(
        name="qemu",
        make=make,
        declare=declare,
        check_host=lambda: require("qemu-system-x86_64", "skopeo", "umoci", "apt-get", "dpkg-deb", root=True),
        behaviours=frozenset({Behaviour.SERVE, Behaviour.STUBBORN, Behaviour.SUCCEED}),
        max_units=1,
        patience=60.0,
        executes=False,
        executes_anything=False,
        traces=traces,
    )


CASES: tuple[RuntimeCase, ...] = (simulated(), oci("crun"), oci("runc"), qemu())
