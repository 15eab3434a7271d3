"""A command loads what it needs: three manifests are explained without HTTP, a plane or a node; help without any command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MANIFESTS = """
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a, labels: {app: web}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: fe, namespace: a}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}, spec: {podSelector: {}}}
"""
HEAVY = ("httpx", "asyncio", "ssl", "cryptography", "jsonschema_rs", "rich", "uvicorn", "pydantic")
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
    assert end.code == {code}, end.code
print("\\n".join(sys.modules), file=sys.stderr)
"""


def loaded_by(code: int, *arguments: str) -> tuple[str, set[str]]:
    """What a command prints, and the modules it has loaded when it ends."""
    command = [sys.executable, "-c", PROGRAM.format(code=code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, set(done.stderr.split())


def test_explain_imports_by_need(tmp_path: Path) -> None:
    file = tmp_path / "manifests.yaml"
    file.write_text(MANIFESTS)
    shown, loaded = loaded_by(
        1, "policy", "explain", "-f", str(file), "--from", "a/fe", "--to", "a/web", "--port", "80"
    )
    assert "blocked" in shown
    assert "isoplane.policy.explain" in loaded
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)
    assert loaded.isdisjoint(OWN), loaded & set(OWN)


@pytest.mark.parametrize("arguments", [("--version",), ("--help",)])
def test_help_and_version_load_no_command(arguments: tuple[str, ...]) -> None:
    shown, loaded = loaded_by(0, *arguments)
    assert shown.strip()
    own = {name for name in loaded if name.startswith("isoplane")}
    assert own == {"isoplane", "isoplane.cli", "isoplane.cli.main", "isoplane.cli.terminal"}
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def test_help_of_a_command_is_plain_text() -> None:
    shown, loaded = loaded_by(0, "policy", "explain", "--help")
    assert "--from" in shown
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)
