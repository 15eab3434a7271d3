"""Hits: what counters stand for, sums over counters that begin anew, and what tools print, read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from test_policy_nftables import NODE, attach
from test_policy_openflow import NODE as BRIDGE
from test_policy_openflow import attach as on_bridge

from isoplane.cli import policy_hits
from isoplane.node.metrics import hit_families
from isoplane.node.network.engines import counts
from isoplane.objects.exposition import render
from isoplane.policy import iptables, nftables, openflow
from isoplane.policy.addresses import address
from isoplane.policy.compile import compile_tables
from isoplane.policy.hits import Counted, Hits, RuleHits, unloaded
from isoplane.policy.model import Cluster
from isoplane.policy.snapshot import from_objects
from isoplane.policy.table import Tables
from policy_strategies_support import nasty, scaled

SITE, OTHER = ("chain", "0"), ("chain", "1")
RULES = Counted({SITE: ("a/p/ingress[0]",), OTHER: ("a/p/ingress[0]", "a/q/ingress[0]")})


def policies(*names: str) -> Cluster:
    kind = "NetworkPolicy"
    spec = {"podSelector": {}, "ingress": [{}]}
    return from_objects([{"kind": kind, "metadata": {"name": n, "namespace": "a"}, "spec": spec} for n in names])


def of(hits: Hits, cluster: Cluster) -> dict[str, dict[str, int]]:
    return {one.rule: dict(one.hits) for one in hits.told(cluster, 99)[0]}


def test_sums_go_on_over_counters_that_begin_anew() -> None:
    hits, cluster = Hits(), policies("p", "q", "unused")
    hits.add("nft", {SITE: 5, OTHER: 1, ("unknown", "0"): 9}, RULES)
    hits.add("nft", {SITE: 7, OTHER: 1}, RULES)
    hits.add("nft", {SITE: 3, OTHER: 0}, RULES)  # loaded anew
    hits.add("nft", {OTHER: 2}, RULES)  # and gone for a while
    hits.add("nft", {SITE: 1, OTHER: 2}, RULES)
    assert of(hits, cluster) == {
        "a/p/ingress[0]": {"nft": 14},
        "a/q/ingress[0]": {"nft": 3},
        "a/unused/ingress[0]": {"nft": 0},
    }


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=5))
def test_a_sum_is_every_growth_that_was_read(lives: list[list[int]]) -> None:
    """Each list is one life of a counter: growths between readings, begun at zero, seen to fall in between."""
    hits, told = Hits(), 0
    for growths in lives:
        hits.add("nft", {SITE: 0}, RULES)
        value = 0
        for growth in growths:
            value += growth
            told += growth
            hits.add("nft", {SITE: value}, RULES)
    assert of(hits, policies("p")) == {"a/p/ingress[0]": {"nft": told} if lives else {}}


def test_rules_that_are_gone_are_forgotten_and_uncounted_ones_left_out() -> None:
    hits, cluster = Hits(), policies("p", "q")
    hits.add("nft", {OTHER: 4}, RULES)
    hits.add("ipt", {OTHER: 4}, Counted(RULES.sites, frozenset({"a/q/ingress[0]"})))
    assert of(hits, cluster)["a/q/ingress[0]"] == {"nft": 4}
    hits.forget(policies("q"))
    assert of(hits, cluster) == {"a/p/ingress[0]": {"ipt": 0, "nft": 0}, "a/q/ingress[0]": {"nft": 4}}


def deciding(tables: Tables) -> set[str]:
    """Of classes that a workload's peers in one of its own families can be in."""
    found = set()
    for entry in tables.endpoints.values():
        for direction in (entry.ingress, entry.egress):
            for family in {address(ip)[0] for ip in entry.ips} if not direction.open else ():
                for index in {0, *(index for _, _, index in direction.routes(family))}:
                    found |= {rule for e in direction.classes[index].entries for rule in e.rules}
    return found


@given(nasty())
@settings(max_examples=scaled(25))
def test_every_rule_that_can_decide_has_a_counter_that_is_in_the_text(cluster: Cluster) -> None:
    tables = compile_tables(cluster)
    wanted = deciding(tables)
    nft = nftables.ruleset(tables, attach(cluster), NODE)
    for name, key in nft.counted:
        assert key in nft.maps[name][1] if name in nft.maps else "counter" in nft.chains[name][int(key)]
    ipt = iptables.ruleset(tables, attach(cluster), NODE)
    for name, key in ipt.counted:
        if key.isdigit():
            assert any(name in chains["filter"] and chains["filter"][name][int(key)] for chains in ipt.chains.values())
        else:
            assert "counters" in ipt.sets[name].kind
    flows = openflow.counted(tables, on_bridge(cluster))
    text = openflow.render_openflow(tables, on_bridge(cluster), BRIDGE)
    for _, number in flows:
        assert f"load:0x{number}->NXM_NX_REG" in text
    for counted, without in ((nft.counted, frozenset[str]()), (ipt.counted, ipt.uncounted), (flows, frozenset[str]())):
        assert {rule for rules in counted.values() for rule in rules} | without >= wanted


def test_rules_that_nobody_needs_to_load_are_not_counted() -> None:
    """An administrator's Accept for who is not isolated: the engines have nothing to judge, and 0 would be a lie."""
    spec = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}}
    spec["ingress"] = [{"action": "Accept", "from": [{"namespaces": {}}]}]
    wide = {"kind": "ClusterNetworkPolicy", "metadata": {"name": "w"}, "spec": spec}
    pod = {"kind": "Pod", "metadata": {"name": "one", "namespace": "a"}, "status": {"podIP": "10.0.0.1"}}
    assert unloaded(compile_tables(from_objects([pod, wide]))) == {"w/ingress[0]"}
    shut = {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "a"}, "spec": {"podSelector": {}}}
    assert not unloaded(compile_tables(from_objects([pod, wide, shut])))


def test_reads_what_nft_prints() -> None:
    listing = b"""{"nftables": [{"metainfo": {}}, {"table": {"name": "t"}},
      {"set": {"name": "s", "elem": ["10.0.0.1"]}},
      {"map": {"name": "plain", "elem": [["10.0.0.1", {"jump": {"target": "c"}}]]}}, {"map": {"name": "empty"}},
      {"map": {"name": "m", "elem": [
        [{"elem": {"val": {"concat": ["tcp", 80]}, "counter": {"packets": 3, "bytes": 9}}}, {"return": null}],
        [{"elem": {"val": {"concat": ["udp", {"range": [7, 9]}]}, "counter": {"packets": 4, "bytes": 9}}}, {"return": null}]]}},
      {"rule": {"chain": "c", "expr": [{"vmap": {"data": "@m"}}]}},
      {"rule": {"chain": "c", "expr": [{"match": {}}, {"counter": {"packets": 5, "bytes": 1}}, {"return": null}]}}]}"""
    assert counts.of_nftables(listing) == {("m", "tcp . 80"): 3, ("m", "udp . 7-9"): 4, ("c", "1"): 5}


def test_reads_what_iptables_save_prints() -> None:
    rules = ["[3:180] -A isp7-ic-ab -p tcp -j RETURN", "[0:0] -A isp7-ic-ab -g DENY", "[9:9] -A FORWARD -j X"]
    saved = ["*filter", ":isp7-ic-ab - [0:0]", *rules, "COMMIT"]
    members = [
        "create isp7-x hash:net,port counters",
        "add isp7-x 10.0.0.1,tcp:80 packets 3 bytes 9",
        "add isp8-x 1 packets 1 bytes 1",
    ]
    assert counts.of_ipset("\n".join(members), "isp7-", "isp-") == {("isp-x", "10.0.0.1,tcp:80"): 3}
    assert counts.of_iptables("\n".join(saved), "isp7-", "isp-") == {("isp-ic-ab", "0"): 3, ("isp-ic-ab", "1"): 0}


def test_reads_what_ovs_prints() -> None:
    head = " cookie=0x0, duration=1.2s, table={}, n_packets={}, n_bytes=9, priority=10,udp,reg1=0x7,tp_dst=53 actions="
    dumped = "\n".join(
        [
            "OFPST_FLOW reply (OF1.4) (xid=0x2):",
            head.format(22, 2) + "load:0x2a->NXM_NX_REG4[],resubmit(,30)",
            head.format(22, 3) + "load:0x2a->NXM_NX_REG4[],resubmit(,30)",
            head.format(32, 4) + "load:0x2a->NXM_NX_REG5[],resubmit(,39)",
            head.format(122, 9) + "load:0x2a->NXM_NX_REG4[],resubmit(,130)",
            head.format(21, 9) + "load:0x2a->NXM_NX_REG1[],resubmit(,22)",
        ]
    )
    assert counts.of_flows(dumped) == {("Egress", "2a"): 5, ("Ingress", "2a"): 4}


def test_what_is_scraped_is_what_is_shown() -> None:
    """Through the exposition and back, whatever a name holds."""
    rules = [
        RuleHits("a/p", "a/p/ingress[0]", "Ingress", {"nftables": 3, "openvswitch": 0}),
        RuleHits('odd "\\', 'odd "\\/egress[0]', "Egress", {"nftables": 0}),
    ]
    rows, left_out = policy_hits.parse(render(hit_families(rules, 7)))
    assert left_out == 7
    assert [(row.policy, row.rule, row.direction, row.hits) for row in rows] == [
        (one.policy, one.rule, one.direction, one.hits) for one in rules
    ]
    assert [row.never for row in rows] == [False, True]
    assert list(policy_hits.table(rows)) == [
        ("RULE", "DIRECTION", "NFTABLES", "OPENVSWITCH"),
        ("a/p/ingress[0]", "Ingress", "3", "0"),
        ('odd "\\/egress[0]', "Egress", "0", "-"),
    ]
    assert policy_hits.parse("") == ([], 0)
