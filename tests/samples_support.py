"""Small objects of both kinds for the tests of the shape."""

from __future__ import annotations

from typing import Any


def pod(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(name),
        "spec": {
            "containers": [{"name": "main", "image": "web:1", "ports": [{"name": "http", "containerPort": 8080}]}],
            **spec,
        },
    }


def vmi(name: str = "guest", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": _metadata(name),
        "spec": {
            "domain": {
                "cpu": {"cores": 1},
                "memory": {"guest": "96Mi"},
                "firmware": {"kernelBoot": {"container": {"image": "guest:1", "kernelPath": "/boot/vmlinuz"}}},
                "devices": {
                    "interfaces": [{"name": "default", "masquerade": {}, "ports": [{"name": "http", "port": 80}]}]
                },
            },
            "networks": [{"name": "default", "pod": {}}],
            **spec,
        },
    }


def _metadata(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "tenant-a",
        "uid": f"uid-{name}",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app": name},
    }
