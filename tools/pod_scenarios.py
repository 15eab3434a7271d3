"""Random Pods, small and nasty: few names, so that items meet; every way in which lists merge."""

from __future__ import annotations

import random
from typing import Any


def some(rng: random.Random, fields: dict[str, Any], share: float = 0.55) -> dict[str, Any]:
    """A random part of the fields."""
    return {name: value for name, value in fields.items() if rng.random() < share}


def container(rng: random.Random, name: str) -> dict[str, Any]:
    environment = [{"name": e, **some(rng, {"value": rng.choice("12")})} for e in "AB" if rng.random() < 0.6]
    ports = [
        {"containerPort": p, **some(rng, {"name": rng.choice(["http", "web"]), "hostPort": p})}
        for p in (80, 81)
        if rng.random() < 0.6
    ]
    fields = {
        "image": rng.choice(["a:1", "a:2"]),
        "args": rng.choice([["x"], ["y", "z"]]),
        "env": environment,
        "ports": ports,
        "resources": {"limits": some(rng, {"cpu": rng.choice(["1", "2"]), "memory": "1Gi"})},
        "securityContext": some(rng, {"runAsUser": rng.choice([1, 2]), "privileged": True}),
    }
    return {"name": name, **{k: v for k, v in some(rng, fields).items() if v != []}}


def pod(rng: random.Random) -> dict[str, Any]:
    meta = {
        "labels": some(rng, {"a": rng.choice("12"), "b": rng.choice("12"), "c": "1"}),
        "annotations": some(rng, {"x": rng.choice("12")}),
        "finalizers": rng.sample(["f/a", "f/b", "f/c"], rng.randint(1, 3)),
    }
    sources = [{"emptyDir": {}}, {"emptyDir": {"medium": "Memory"}}, {"hostPath": {"path": rng.choice(["/a", "/b"])}}]
    spec = {
        "hostname": rng.choice("xy"),
        "terminationGracePeriodSeconds": rng.choice([1, 2]),
        "nodeSelector": some(rng, {"n": rng.choice("12"), "m": "1"}),
        "tolerations": rng.choice([[{"key": "a"}], [{"key": "b"}, {"key": "c"}]]),
        "securityContext": some(
            rng, {"runAsUser": rng.choice([1, 2]), "sysctls": [{"name": "a", "value": rng.choice("12")}]}
        ),
        "imagePullSecrets": [{"name": name} for name in rng.sample("ab", rng.randint(1, 2))],
        "dnsConfig": some(
            rng,
            {"nameservers": rng.choice([["1"], ["2"]]), "options": [{"name": "q", "value": rng.choice("12")}]},
        ),
        "volumes": [{"name": name, **rng.choice(sources)} for name in rng.sample(["v", "w"], rng.randint(1, 2))],
        "containers": [container(rng, name) for name in rng.sample(["c1", "c2", "c3"], rng.randint(1, 3))],
    }
    obj: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    obj["metadata"] |= {k: v for k, v in some(rng, meta).items() if v}
    if chosen := some(rng, spec):
        obj["spec"] = chosen
    return obj
