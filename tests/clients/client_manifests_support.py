"""Manifests that the client tests share, and how they are written down."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"containers": [{"name": "main", "image": "busybox", "command": ["sleep", "1000"]}]},
}
VMI: dict[str, Any] = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstance",
    "metadata": {"name": "guest", "labels": {"app": "web"}},
    "spec": {
        "domain": {"devices": {}, "memory": {"guest": "96Mi"}, "cpu": {"cores": 1}, "firmware": {
            "kernelBoot": {"container": {"image": "kernel:1", "kernelPath": "/vmlinuz", "initrdPath": "/initrd"}}}},
    },
}  # fmt: skip
VM: dict[str, Any] = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachine",
    "metadata": {"name": "machine"},
    "spec": {"runStrategy": "Halted", "template": {"metadata": {}, "spec": VMI["spec"]}},
}


def manifest(base: dict[str, Any], name: str = "", **metadata: Any) -> dict[str, Any]:
    """A copy with another name and more metadata."""
    obj = copy.deepcopy(base)
    if name:
        obj["metadata"]["name"] = name
    obj["metadata"].update(metadata)
    return obj


def write(directory: Path, *objects: dict[str, Any]) -> str:
    """A file that kubectl can read with -f."""
    path = directory / "manifest.json"
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    path.write_text(json.dumps(objects[0] if len(objects) == 1 else body))
    return str(path)
