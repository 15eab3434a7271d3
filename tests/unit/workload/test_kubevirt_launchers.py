"""A machine is charged as its launcher Pod would be: held against launchers that KubeVirt's own renderer rendered, by version.

tools/kubevirt_charges.sh regenerates them.
"""

from __future__ import annotations

import gzip
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
import yaml

from isoplane.objects.accounting import KUBEVIRT_VERSIONS
from isoplane.objects.defaults import apply_defaults
from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES
from isoplane.quota.charge import charge_of
from isoplane.workload.accounting import Accounting
from isoplane.workload.machine import machine_asks
from isoplane.workload.registry import adapter_for
from isoplane.workload.requests import pod_asks
from machines_support import random_machine

GOLDEN = Path(__file__).parents[2] / "golden" / "kubevirt"
MACHINES: dict[str, dict[str, Any]] = yaml.safe_load((GOLDEN / "machines.yaml").read_text())
LAUNCHERS: dict[str, dict[str, Any]] = orjson.loads(gzip.decompress((GOLDEN / "launchers.json.gz").read_bytes()))
DEVICES = "devices.kubevirt.io/"
"""What KubeVirt's device plugins give out; no node here has such."""


def instance(name: str) -> dict[str, Any]:
    case = MACHINES[name]
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "a", "uid": name, "annotations": case.get("annotations") or {}},
        "spec": {**case.get("spec", {}), "domain": {"devices": {}, **case["domain"]}},
    }


def bare(amounts: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in amounts.items() if not name.startswith(DEVICES)}


def test_every_version_and_every_machine_was_rendered() -> None:
    assert all(set(rendered) == set(MACHINES) for rendered in LAUNCHERS.values())


@pytest.mark.parametrize("version", LAUNCHERS)
def test_a_machine_is_charged_as_its_launcher_would_be(version: str) -> None:
    wrong = {}
    for name, launcher in LAUNCHERS[version].items():
        machine = instance(name)
        found = machine_asks(machine["spec"], Accounting(kubevirt=version), machine["metadata"]["annotations"])
        pod = pod_asks(launcher)
        # A limit is charged where the guest has one: what is limited around it is no bound of the machine.
        (guest,) = (one for one in launcher["containers"] if one["name"] == "compute")
        limited = guest["resources"].get("limits") or {}
        right = bare(pod.requests), {n: value for n, value in bare(pod.limits).items() if n in limited and n in COUNTED}
        if (found.requests, found.limits) != right:
            wrong[name] = (found.requests, found.limits), right
    assert wrong == {}


COUNTED = ("cpu", "memory", "ephemeral-storage")


@pytest.mark.parametrize("version", KUBEVIRT_VERSIONS)
def test_the_stored_object_is_charged_as_the_manifest(version: str) -> None:
    adapter = adapter_for(VIRTUALMACHINEINSTANCES)
    assert adapter is not None
    rng = Random(version)
    for machine in (*map(instance, MACHINES), *(random_machine(rng, f"m{i}") for i in range(200))):
        stored = deepcopy(machine)
        apply_defaults(VIRTUALMACHINEINSTANCES, stored)
        claims = [adapter.claim(obj, Accounting(kubevirt=version)) for obj in (machine, stored)]
        one, other = (charge_of(claim, created=0) for claim in claims)
        assert one == other, machine
