"""`isoplane policy verify`: real packets on this host, and that it says so when one does what it should not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from isoplane.cli.policy import app
from isoplane.node.network.verify import lab, report
from isoplane.node.network.verify.lab import MIXES, PolicyLab
from isoplane.policy.model import Cluster
from isoplane.policy.rules import Peer, Rule
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
    assert all(one["good"] and one["packets"] == 7 * 6 * 7 * 2 for one in found)


@pytest.mark.root
def test_a_packet_against_the_reference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require("nft", root=True)
    right = PolicyLab.expected
    monkeypatch.setattr(lab, "PATIENCE", 0.2)
    odd = ("pod/tenant-b/intruder", "pod/tenant-a/web", "TCP", 8080, 6)
    monkeypatch.setattr(PolicyLab, "expected", lambda own, *asked: right(own, *asked) ^ (asked == odd))
    done = verify(*FILES, "--engines", "nftables")
    assert done.exit_code == 1
    assert (
        "pod/tenant-b/intruder -> pod/tenant-a/web on 8080/TCP over IPv6: the packet was lost, the policies allow it"
        in done.stdout
    )
    assert "588 packets, 1 disagreements" in done.stdout
    assert "    name: intruder" in done.stdout.partition("the least that shows it")[2]


@pytest.mark.root
def test_an_engine_that_ignores_exceptions_is_found_and_told_in_few_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require("nft", root=True)
    right = lab.compile_tables
    monkeypatch.setattr(lab, "compile_tables", lambda cluster: right(without_exceptions(cluster)))
    metas = [{"name": name, "namespace": "a", "labels": {"app": name}} for name in ("one", "two", "three")]
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": meta} for meta in metas]
    holed = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["192.0.2.0/24", "100.64.0.0/10"]}}
    ingress = [
        {"from": [{"podSelector": {"matchLabels": {"app": "two"}}}]},
        {"from": [holed], "ports": [{"port": 8080}]},
    ]
    rest = [{"podSelector": {"matchLabels": {"app": "three"}}, "ingress": [{}]}] * 3
    specs = [{"podSelector": {"matchLabels": {"app": "one"}}, "ingress": ingress}, *rest]
    kind = "networking.k8s.io/v1"
    policies = [
        {"apiVersion": kind, "kind": "NetworkPolicy", "metadata": {"name": f"p{turn}", "namespace": "a"}, "spec": spec}
        for turn, spec in enumerate(specs)
    ]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([*pods, *policies]))
    done = verify("-f", str(tmp_path), "--engines", "nftables", "-o", "json")
    assert done.exit_code == 1, done.output
    (found,) = json.loads(done.stdout)
    assert found["disagreements"] == ["pod/a/three -> pod/a/one on 8080/TCP: the packet passed, the policies forbid it"]
    assert [one["metadata"]["name"] for one in found["smallest"]] == ["one", "three", "p0"]
    block = {"cidr": "0.0.0.0/0", "except": ["100.64.0.0/10"]}
    assert found["smallest"][-1]["spec"]["ingress"] == [{"from": [{"ipBlock": block}]}]


def without_exceptions(cluster: Cluster) -> Cluster:
    def strip(peer: Peer) -> Peer:
        return replace(peer, block=replace(peer.block, excepts=())) if peer.block else peer

    def rules(given: tuple[Rule, ...] | None) -> tuple[Rule, ...] | None:
        return given and tuple(replace(one, peers=one.peers and tuple(map(strip, one.peers))) for one in given)

    changed = (replace(one, ingress=rules(one.ingress), egress=rules(one.egress)) for one in cluster.policies)
    return replace(cluster, policies=tuple(changed))


@pytest.mark.skipif(os.geteuid() != 0, reason="asks for root before it looks for tools")
def test_missing_tools_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "which", lambda tool: None if tool == "nft" else f"/usr/sbin/{tool}")
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
