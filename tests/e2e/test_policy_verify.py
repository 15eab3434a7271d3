"""`isoplane policy verify`: real packets on this host, and that it says so when one does what it should not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from isoplane.cli.policy import app
from isoplane.node.network.verify import report
from isoplane.node.network.verify.lab import MIXES, PolicyLab
from support import require

EXAMPLE = Path(__file__).parents[2] / "examples" / "03-tenant-isolation"
FILES = ("-f", str(EXAMPLE / "workloads.yaml"), "-f", str(EXAMPLE / "policy.yaml"))


def verify(*args: str) -> Result:
    return CliRunner().invoke(app, ["verify", *args])


@pytest.mark.root
def test_the_founding_example_on_the_default_engines() -> None:
    require("ovs-vswitchd", "ovsdb-server", "ovs-ofctl", "dnsmasq", "nft", root=True)
    done = verify("--engines", "nftables-and-openvswitch", "-o", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [one["manifests"] for one in found] == ["workloads.yaml", "policy.yaml", "corrected/policy.yaml"]
    assert all(one["good"] and one["packets"] == 7 * 6 * 5 for one in found)


@pytest.mark.root
def test_a_packet_against_the_reference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require("nft", root=True)
    right = PolicyLab.expected
    odd = ("pod/tenant-b/intruder", "pod/tenant-a/web", "TCP", 8080)
    monkeypatch.setattr(PolicyLab, "expected", lambda lab, *asked: right(lab, *asked) ^ (asked == odd))
    done = verify(*FILES, "--engines", "nftables")
    assert done.exit_code == 1
    assert (
        "pod/tenant-b/intruder -> pod/tenant-a/web on 8080/TCP: the packet was lost, the policies allow it"
        in done.stdout
    )
    assert "210 packets, 1 disagreements" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="asks for root before it looks for tools")
def test_missing_tools_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.shutil, "which", lambda tool: None if tool == "nft" else f"/usr/sbin/{tool}")
    done = verify(*FILES, "--engines", "nftables")
    assert done.exit_code == 1
    assert "nftables: not tried: needs nft" in done.stdout


def test_refuses_what_it_cannot_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    unknown = verify("--engines", "ebpf")
    assert unknown.exit_code == 2
    assert all(mix in unknown.stderr for mix in MIXES)
    (tmp_path / "lonely.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n")
    assert "give 2 to" in verify("-f", str(tmp_path)).stderr
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "run it as root" in verify().stderr
