"""kubectl exec over WebSocket, with every version that speaks it."""

from __future__ import annotations

from pathlib import Path

import pytest
from client_manifests_support import POD, write
from client_support import Run


def test_exec(kubectl: Run, tmp_path: Path) -> None:
    if kubectl.minor < 29:
        pytest.skip("kubectl before 1.29 speaks SPDY only")
    kubectl.environment["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"] = "true"
    kubectl("create", "-f", write(tmp_path, POD))
    done = kubectl.result("exec", "web", "--", "echo", "a b", "c")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran echo a b c\n", "complained\n")
    done = kubectl.result("exec", "web", "--", "exit", "7")
    assert done.returncode == 7
    assert "exit code 7" in done.stderr
    assert 'pods "nope" not found' in kubectl.fails("exec", "nope", "--", "true")


def test_exec_with_stdin(kubectl: Run, tmp_path: Path) -> None:
    if kubectl.minor < 30:
        pytest.skip("the half-close of stdin came with v5.channel.k8s.io")
    kubectl.environment["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"] = "true"
    kubectl("create", "-f", write(tmp_path, POD))
    done = kubectl.result("exec", "-i", "web", "--", "cat", stdin="some text\n" * 1000)
    assert done.returncode == 0
    assert done.stdout == "ran cat\n" + "some text\n" * 1000


def test_older_kubectls_are_told_what_to_do(kubectl: Run, tmp_path: Path) -> None:
    if kubectl.minor > 28:
        pytest.skip("speaks WebSocket")
    kubectl("create", "-f", write(tmp_path, POD))
    assert kubectl.fails("exec", "web", "--", "true")
