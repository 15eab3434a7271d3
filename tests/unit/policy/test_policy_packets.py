"""Packets judged by address get the reference's verdict, with the policies that decide."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from isoplane.policy.compile import compile_tables
from isoplane.policy.model import Cluster
from isoplane.policy.packets import PacketJudge
from isoplane.policy.table import CLOSED, EndpointTables, Tables
from isoplane.policy.verdict import judge
from policy_strategies_support import NODE_IPS, nasty, packets, scaled


@given(nasty())
@settings(max_examples=scaled(30))
def test_packets_equal_reference(cluster: Cluster) -> None:
    packet_judge = PacketJudge(compile_tables(cluster), NODE_IPS)
    for family in (4, 6):
        for connection in packets(cluster, family):
            found = packet_judge.judge(
                connection.source.ip, connection.destination.ip, connection.protocol, connection.port
            )
            verdict = judge(cluster, connection)
            assert found.allowed == verdict.allowed, connection
            if not found.allowed:
                side = verdict.side(found.denied)
                assert not side.allowed
                assert set(found.rules) == set(side.rules)
                if not found.rules:
                    assert set(found.policies) == set(side.policies)


def test_two_owners_of_an_address_are_refused() -> None:
    entries = {i: EndpointTables(i, ("10.0.0.1",), "", CLOSED["Ingress"], CLOSED["Egress"]) for i in ("one", "two")}
    with pytest.raises(ValueError, match="both have the address"):
        PacketJudge(Tables(entries))
