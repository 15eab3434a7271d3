"""A whole plane on this host: both kinds through kubectl, kill -9 and adoption, and no trace after ``isoplane down``."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver_support import kubectls
from fabric_support import traces as network_traces
from isoplane.node import mounting
from isoplane.node.network.settings import FabricSettings
from oci_support import holding, traces_of
from plane_support import PlaneProcess, wait_until
from qemu_support import guest_store
from support import HOST_TOOLS, require

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-pod-and-vm"
KILLS = 10
SEED = 20260102
PASSWORD = "correct-horse-battery-staple"
SECRETIVE = """
apiVersion: v1
kind: Pod
metadata: {name: secretive, namespace: shop}
spec:
  containers:
    - name: c
      image: isoplane.io/demo/web:1
      env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}]
"""

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow, pytest.mark.xdist_group("host")]


class Kubectl:
    """The newest kubectl of this host on one plane."""

    def __init__(self, kubeconfig: Path) -> None:
        self._path = max(kubectls(), key=lambda k: k.minor).path
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [self._path, *arguments], capture_output=True, text=True, timeout=120, env=self._environment
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self(*arguments, "-o", "json"))
        return found


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    require(*HOST_TOOLS, root=True)
    from isoplane.node.images.demo import build_demo

    store = guest_store()
    if store.lookup("isoplane.io/demo/web:1") is None:
        import asyncio

        asyncio.run(build_demo(store))
    process = PlaneProcess(tmp_path / "data", "--images", str(store.root))
    yield process
    process.close()
    process.down()
    assert traces_of(process.data) == []
    assert mounting.mounts_below(process.data) == []
    assert network_traces(FabricSettings(process.data).names.tag, process.data) == []


def page(address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:8080/", timeout=3) as answer:
        return str(answer.read().decode())


def answers(address: str) -> bool:
    try:
        return bool(page(address))
    except OSError:
        return False


def test_both_kinds_from_apply_to_down(plane: PlaneProcess) -> None:
    kubectl = Kubectl(plane.start().kubeconfig)
    for name in ("00-namespace", "10-pod", "20-vmi", "30-vm"):
        kubectl("apply", "-f", str(EXAMPLE / f"{name}.yaml"))
    kubectl("wait", "-n", "shop", "--for=condition=Ready", "pod/web", "vmi/guest", "vm/keeper", "--timeout=90s")
    rows = kubectl("get", "workloads", "-A", "--no-headers").splitlines()
    assert [row.split()[2:5] for row in rows] == [
        ["Pod", "Running", "True"],
        ["VirtualMachineInstance", "Running", "True"],
        ["VirtualMachineInstance", "Running", "True"],
    ]
    for address in kubectl("get", "pod", "web", "-n", "shop", "-o", "jsonpath={.status.podIPs[*].ip}").split():
        assert "container" in page(address)
    ask = ("get", "vmi", "guest", "-n", "shop", "-o", "jsonpath={.status.interfaces[0].ipAddresses[*]}")
    four, six = kubectl(*ask).split()
    assert "virtual machine" in page(four)
    wait_until(lambda: answers(six), 20, "the guest to take its IPv6 address from the router's advertisement")
    assert "virtual machine" in page(six)
    assert "serving" in kubectl("logs", "-n", "shop", "web")
    kubectl("delete", "pod", "web", "-n", "shop", "--timeout=30s")
    kubectl("delete", "vm", "keeper", "-n", "shop", "--timeout=60s")
    kubectl("delete", "namespace", "shop", "--timeout=60s")
    assert "No resources" in kubectl("get", "workloads", "-A") or not kubectl("get", "workloads", "-A")
    assert plane.stop() == 0


def test_what_runs_is_adopted_after_kill_9_and_nothing_starts_twice(plane: PlaneProcess, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    kubectl = Kubectl(plane.start().kubeconfig)
    kubectl("apply", "-f", str(EXAMPLE / "00-namespace.yaml"))
    for name in ("10-pod", "20-vmi"):
        kubectl("apply", "-f", str(EXAMPLE / f"{name}.yaml"))
    kubectl("create", "secret", "generic", "keys", "-n", "shop", f"--from-literal=password={PASSWORD}")
    secretive = tmp_path / "secretive.yaml"
    secretive.write_text(SECRETIVE)
    kubectl("apply", "-f", str(secretive))
    for _ in range(KILLS):
        # The first kills hit half-started workloads, the later ones running ones.
        time.sleep(rng.random() * 0.4)
        plane.kill()
        kubectl = Kubectl(plane.start().kubeconfig)
    kubectl("wait", "-n", "shop", "--for=condition=Ready", "pod/web", "pod/secretive", "vmi/guest", "--timeout=120s")
    status = kubectl.json("get", "pod", "web", "-n", "shop")["status"]
    assert isinstance(status, dict)
    identity = status["containerStatuses"][0]["containerID"]
    assert status["containerStatuses"][0]["restartCount"] == 0
    plane.kill()
    kubectl = Kubectl(plane.start().kubeconfig)
    status = kubectl.json("get", "pod", "web", "-n", "shop")["status"]
    assert isinstance(status, dict)
    assert status["containerStatuses"][0]["containerID"] == identity
    assert "container" in page(str(status["podIP"]))
    running = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and _runs_guest_of(entry, plane.data)]
    assert len(running) == 1, "one QEMU for one guest"
    assert kubectl("exec", "-n", "shop", "secretive", "--", "sh", "-c", "echo $PASSWORD").strip() == PASSWORD
    assert holding(PASSWORD, plane.data, on_disk=True) == []
    assert holding(PASSWORD, plane.data / "oci" / "memory", on_disk=True) != []
    kubectl("delete", "pod", "secretive", "-n", "shop", "--timeout=60s")
    kubectl("delete", "vmi", "guest", "-n", "shop", "--timeout=60s")
    kubectl("delete", "pod", "web", "-n", "shop", "--timeout=60s")
    wait_until(lambda: traces_of(plane.data) == [], 20, "the sandbox to leave no trace")
    assert plane.stop() == 0


def _runs_guest_of(process: Path, data: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return "qemu-system" in command[0] and any(str(data) in part for part in command)


def test_workloads_go_on_when_the_plane_stops_and_end_when_told_to(plane: PlaneProcess) -> None:
    kubectl = Kubectl(plane.start().kubeconfig)
    kubectl("apply", "-f", str(EXAMPLE / "00-namespace.yaml"))
    kubectl("apply", "-f", str(EXAMPLE / "10-pod.yaml"))
    kubectl("wait", "-n", "shop", "--for=condition=Ready", "pod/web", "--timeout=60s")
    address = kubectl("get", "pod", "web", "-n", "shop", "-o", "jsonpath={.status.podIP}")
    assert plane.stop() == 0
    assert "container" in page(address), "it serves without a plane"
    assert "removed 1 workload " in plane.down()
    with pytest.raises(OSError):
        page(address)
