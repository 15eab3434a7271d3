"""How long the API server answers nobody while it takes the most expensive requests that its budgets let pass.

    python bench/api_stalls.py [--out FILE]

One client sends them, one kind after the other; another asks for a small object all the time.  The longest time that one of
its questions took is the longest stall of the event loop, beside what the question takes on an idle server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import uvloop

from isoplane.client import kubeconfig

SPACE = "/api/v1/namespaces/default"
JSON, YAML, JSON_PATCH = "application/json", "application/yaml", "application/json-patch+json"


def requests() -> dict[str, tuple[str, str, str, bytes]]:
    """Name → method, path, media type, body: each near a budget."""
    containers = [
        {"name": f"c{at}", "image": "example/app:1", "env": [{"name": "A", "value": "b"}] * 20} for at in range(250)
    ]
    rules = [
        {"from": [{"ipBlock": {"cidr": f"10.{at >> 8}.{at & 255}.0/24"}}], "ports": [{"port": 80}]}
        for at in range(15_000)
    ]
    many = {"metadata": {"name": "many"}, "data": {f"k{at}": "v" for at in range(60_000)}}
    policy = {"metadata": {"name": "rules"}, "spec": {"podSelector": {}, "ingress": rules}}
    tolerations = [{"key": f"k{at}", "operator": "Exists"} for at in range(1000)]
    env = [{"name": f"A{at}", "value": "b"} for at in range(300)]
    variables = {"containers": [{"name": f"c{at}", "image": "example/app:1", "env": env} for at in range(250)]}
    keys = b"metadata: {name: keys}\ndata:\n" + b"".join(b"  k%d: v\n" % at for at in range(100_000))
    moves = [
        {"op": "move", "from": "/data/k1", "path": "/data/k1x"},
        {"op": "move", "from": "/data/k1x", "path": "/data/k1"},
    ]
    pod = {"metadata": {"name": "wide"}, "spec": {"containers": containers, "tolerations": tolerations}}
    policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    return {
        "pod_of_250_containers": ("POST", f"{SPACE}/pods", JSON, json.dumps(pod).encode()),
        "pod_of_75000_variables": (
            "POST",
            f"{SPACE}/pods",
            JSON,
            json.dumps({"metadata": {"name": "variables"}, "spec": variables}).encode(),
        ),
        "policy_of_15000_rules": ("POST", policies, JSON, json.dumps(policy).encode()),
        "config_map_of_60000_keys": ("POST", f"{SPACE}/configmaps", JSON, json.dumps(many).encode()),
        "yaml_of_100000_keys": ("POST", f"{SPACE}/configmaps", YAML, keys),
        "json_patch_of_10000_moves": (
            "PATCH",
            f"{SPACE}/configmaps/many",
            JSON_PATCH,
            json.dumps(moves * 5000).encode(),
        ),
    }


async def measure(path: Path) -> dict[str, Any]:
    cluster = kubeconfig.load(path, "")
    assert cluster.context is not None
    result: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=cluster.server, verify=cluster.context, timeout=120) as client:

        async def longest(work: asyncio.Future[Any]) -> float:
            most = 0.0
            while not work.done():
                began = time.perf_counter()
                (await client.get("/api/v1/namespaces/default")).raise_for_status()
                most = max(most, time.perf_counter() - began)
            return most * 1e3

        result["idle_ms"] = await longest(asyncio.ensure_future(asyncio.sleep(2)))
        async with httpx.AsyncClient(base_url=cluster.server, verify=cluster.context, timeout=120) as other:
            for name, (method, where, media, body) in requests().items():
                work = asyncio.ensure_future(
                    other.request(method, where, content=body, headers={"content-type": media})
                )
                stall = await longest(work)
                result[name] = {"longest_stall_ms": stall, "bytes": len(body), "code": work.result().status_code}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="isoplane-bench-") as directory:
        serve = str(Path(__file__).with_name("api_serve.py"))
        command = [sys.executable, serve, f"{directory}/data", "127.0.0.1:0", "--admission"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            result = uvloop.run(measure(Path(server.stdout.readline().strip())))
        finally:
            server.terminate()
            server.wait(20)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
