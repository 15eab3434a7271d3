"""Three manifests are explained without loading what only a running cluster, a plane or a node needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MANIFESTS = """
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a, labels: {app: web}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: fe, namespace: a}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}, spec: {podSelector: {}}}
"""
HEAVY = ("httpx", "asyncio", "ssl", "cryptography", "jsonschema_rs", "rich", "click", "uvicorn", "pyroute2", "jwt")
OWN = (
    "isoplane.client.http",
    "isoplane.server",
    "isoplane.node",
    "isoplane.controllers",
    "isoplane.store",
    "isoplane.plane",
)
PROGRAM = """
import sys
from isoplane.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 1, end.code
print("\\n".join(sys.modules), file=sys.stderr)
"""


def test_explain_imports_by_need(tmp_path: Path) -> None:
    file = tmp_path / "manifests.yaml"
    file.write_text(MANIFESTS)
    args = ["policy", "explain", "-f", str(file), "--from", "a/fe", "--to", "a/web", "--port", "80"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *args], capture_output=True, text=True, check=True)
    assert "blocked" in done.stdout
    loaded = set(done.stderr.split())
    assert "isoplane.policy.explain" in loaded
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)
    assert loaded.isdisjoint(OWN), loaded & set(OWN)
