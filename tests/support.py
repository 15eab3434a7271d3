"""What tests share: the gate for real tools, and free ports.

A test that needs root or a tool skips with its reason on a developer's laptop and fails in CI, where nothing may be
missing silently.
"""

from __future__ import annotations

import os
import shutil
import socket

import pytest

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

HOST_TOOLS = ("crun", "conmon", "qemu-system-x86_64", "nft", "ovs-vswitchd", "dnsmasq", "skopeo", "umoci")
"""What a whole plane on a real host needs."""


def require(*tools: str, root: bool = False) -> None:
    """Skip (fail in CI) unless every tool is on the PATH and, with ``root``, the user is root."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    reasons = [f"needs {', '.join(missing)}"] if missing else []
    if root and os.geteuid() != 0:
        reasons.append("needs root")
    if not reasons:
        return
    if IN_CI:
        pytest.fail("; ".join(reasons) + " (in CI nothing is skipped)")
    pytest.skip("; ".join(reasons))


def free_port() -> int:
    """A TCP port on loopback that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
