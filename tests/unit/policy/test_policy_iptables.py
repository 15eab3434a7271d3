"""The ipset and iptables text, read back and walked, says what the reference says; and the tools load it."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from ipt_reader import Iptables
from nft_reader import Packet
from policy_strategies import clusters, nasty, packets, scaled
from test_policy_nftables import NODE, as_packet, attach

from isoplane.policy.compile import compile_tables
from isoplane.policy.iptables import HOOKS, Steps, render_iptables, ruleset
from isoplane.policy.model import Cluster, Endpoint, cluster
from isoplane.policy.verdict import judge
from support import require


@given(nasty())
@settings(max_examples=scaled(25), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_text_equals_reference(cluster: Cluster) -> None:
    attachments = attach(cluster)
    attached = {a.endpoint: a for a in attachments}
    rules = Iptables(render_iptables(compile_tables(cluster), attachments, NODE))
    for family in (4, 6):
        for connection in packets(cluster, family):
            packet = as_packet(connection, attached)
            if packet is not None:
                assert rules.passes(packet) == judge(cluster, connection).allowed, connection


def test_source_guard() -> None:
    snapshot = cluster([Endpoint("pod", "a", "one", {}, ("10.0.0.1",)), Endpoint("pod", "a", "two", {}, ("10.0.0.2",))])
    rules = Iptables(render_iptables(compile_tables(snapshot), attach(snapshot), NODE))

    def passes(iif: str, saddr: str, daddr: str = "10.0.0.2", oif: str = "isp-two") -> bool:
        return rules.passes(Packet("forward", iif, oif, saddr, daddr, "tcp", 80))

    assert passes("isp-one", "10.0.0.1")
    assert not passes("isp-one", "192.0.2.1")
    assert not passes("isp-new", "10.0.0.9")
    assert not passes("uplink", "10.0.0.1")
    assert not passes("uplink", "192.0.2.1", "10.0.0.9", "isp-new")
    assert passes("uplink", "192.0.2.1")


@pytest.mark.root
@given(before=clusters(), after=nasty())
@settings(max_examples=scaled(5), phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_tools_load_whole_and_update(before: Cluster, after: Cluster) -> None:
    """Both tools take the steps, and from any rules to any other the update leads to the same listing."""
    require("iptables-restore", "ip6tables-restore", "ipset", "unshare", root=True)
    old, new = (ruleset(compile_tables(c), attach(c), NODE) for c in (before, after))

    def applied(steps: Steps) -> str:
        return "".join(
            f"{tool} <<'END'\n{text}END\n"
            for tool, text in (
                ("ipset restore", steps.before),
                ("iptables-restore --noflush", steps.v4),
                ("ip6tables-restore --noflush", steps.v6),
                ("ipset restore", steps.after),
            )
        )

    hooks = "".join(
        f"{tool} -t {table} -N {ours}; {tool} -t {table} -I {builtin} -j {ours}\n"
        for tool in ("iptables", "ip6tables")
        for table, builtin, ours in HOOKS
    )
    listing = "{ iptables-save; ip6tables-save; ipset save; } | grep -v '^#' | sed 's/ initval .*//; s/hashsize [0-9]*//' | sort"
    whole = subprocess.run(
        ["unshare", "-n", "bash", "-c", f"set -e\n{hooks}{applied(new.steps())}{listing}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    update = subprocess.run(
        ["unshare", "-n", "bash", "-c", f"set -e\n{hooks}{applied(old.steps())}{applied(new.steps(old))}{listing}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert update.returncode == 0, update.stderr
    assert update.stdout == whole.stdout
