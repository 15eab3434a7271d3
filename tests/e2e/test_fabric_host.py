"""The fabric on hosts of other kinds: behind a firewall, with an Open vSwitch of its own, without the right to change it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import require

pytestmark = pytest.mark.root


@pytest.mark.parametrize("scenario", ["outside", "without_ipv6", "theirs", "user", "squatter"])
def test_a_host_of_another_kind(tmp_path: Path, scenario: str) -> None:
    require("unshare", "ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "dnsmasq", "nft", "iptables", "busybox", root=True)
    script = Path(__file__).with_name("fabric_private_host_support.py")
    ran = subprocess.run(
        ["unshare", "--net", sys.executable, str(script), scenario, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
