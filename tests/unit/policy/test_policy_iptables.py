"""The ipset and iptables text, read back and walked, says what the reference says; and the tools load it."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from ipt_reader_support import Iptables
from nft_reader_support import Packet
from test_policy_nftables import NODE, as_packet, attach

from isoplane.policy.compile import compile_tables
from isoplane.policy.iptables import HOOKS, Steps, render_iptables, ruleset
from isoplane.policy.model import Cluster, Endpoint, cluster
from isoplane.policy.snapshot import from_objects
from isoplane.policy.verdict import judge
from policy_strategies_support import clusters, nasty, packets, scaled
from support import require


@given(nasty())
@settings(max_examples=scaled(25), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_text_equals_reference(cluster: Cluster) -> None:
    interfaces = attach(cluster)
    attached = {a.endpoint: a for a in interfaces}
    rules = Iptables(render_iptables(compile_tables(cluster), interfaces, NODE))
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


def test_ports_of_sctp_are_listed_in_rules_of_fifteen_slots() -> None:
    """A set of ports never matches a packet of SCTP: what it should let pass was lost, what it should deny passed."""
    ports = [{"port": 100 * n, "endPort": 100 * n + n % 2, "protocol": "SCTP"} for n in range(1, 41)]
    spec = {"podSelector": {}, "ingress": [{"ports": ports}]}
    snapshot = from_objects(
        [
            {"kind": "Pod", "metadata": {"name": "one", "namespace": "a"}, "status": {"podIP": "10.0.0.1"}},
            {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "a"}, "spec": spec},
        ]
    )
    steps = render_iptables(compile_tables(snapshot), attach(snapshot), NODE)
    rules = Iptables(steps)

    def passes(port: int) -> bool:
        return rules.passes(Packet("forward", "uplink", "isp-one", "192.0.2.1", "10.0.0.1", "sctp", port))

    assert "bitmap:port" not in steps.before
    assert all(passes(100 * n) and passes(100 * n + 1) is bool(n % 2) for n in range(1, 41))


def test_peers_with_ports_of_their_own_cost_no_rule_each() -> None:
    """Forty peers, each let in on a port that is its own, are one set of pairs, and the walk stays as long as for one."""

    def steps(count: int) -> Steps:
        pods = [
            {
                "kind": "Pod",
                "metadata": {"name": f"p{n}", "namespace": "a", "labels": {"n": f"{n}"}},
                "status": {"podIP": f"10.0.0.{n}"},
            }
            for n in range(count + 1)
        ]
        rules = [
            {"from": [{"podSelector": {"matchLabels": {"n": f"{n}"}}}], "ports": [{"port": 1000 + n}]}
            for n in range(1, count + 1)
        ]
        spec = {"podSelector": {"matchLabels": {"n": "0"}}, "ingress": rules}
        policy = {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "a"}, "spec": spec}
        snapshot = from_objects([*pods, policy])
        return render_iptables(compile_tables(snapshot), attach(snapshot), NODE)

    few, many = steps(1), steps(40)
    assert len(few.v4.splitlines()) == len(many.v4.splitlines())
    rules = Iptables(many)

    def passes(source: int, port: int) -> bool:
        return rules.passes(Packet("forward", f"isp-p{source}", "isp-p0", f"10.0.0.{source}", "10.0.0.0", "tcp", port))

    assert all(passes(n, 1000 + m) is (n == m) for n in range(1, 41) for m in (1, n, 40))


def test_a_set_has_room_for_all_its_members() -> None:
    """The kernel's sets hold 65,536 unless told otherwise."""
    blocks = [{"ipBlock": {"cidr": f"10.{n >> 15}.{n >> 7 & 255}.{n * 2 & 255}/32"}} for n in range(65_540)]
    spec = {"podSelector": {}, "ingress": [{"from": blocks}]}
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "a"}, "spec": spec}
    pod = {"kind": "Pod", "metadata": {"name": "one", "namespace": "a"}, "status": {"podIP": "172.16.0.1"}}
    snapshot = from_objects([pod, policy])
    text = render_iptables(compile_tables(snapshot), attach(snapshot), NODE).before
    assert re.search(r"^create \S+-w hash:net family inet counters maxelem 131072 -exist$", text, re.MULTILINE)


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
