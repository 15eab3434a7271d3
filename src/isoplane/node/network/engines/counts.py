"""How often each counter of an engine was hit, read from what the host's tools print. Pure; keys as the renderers know them.

A counter is a site: (map, key) or (chain, position of the rule) of nftables, (chain, position) or (set, member) of iptables,
(direction, number that stands for the rules) of Open vSwitch.  What a site stands for, ``Ruleset.counted`` and
``openflow.counted`` tell.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson

from isoplane.policy.rules import EGRESS, INGRESS

Site = tuple[str, str]
_SAVED = re.compile(r"^\[(\d+):\d+\] -A (\S+) ")
_MEMBER = re.compile(r"^add (\S+) (\S+) packets (\d+) bytes ")
_FLOW = re.compile(r"table=(\d+), .*?n_packets=(\d+),.* actions=load:0x([0-9a-f]+)->NXM_NX_REG([45])\[\]")
_REGISTERS = {"4": EGRESS, "5": INGRESS}
_FORWARDS = 100
"""Tables below judge first packets; those above, the replies of SCTP."""


def of_nftables(listing: bytes) -> dict[Site, int]:
    """Of ``nft -j list table``."""
    found: dict[Site, int] = {}
    positions: Counter[str] = Counter()
    for item in orjson.loads(listing)["nftables"]:
        if "map" in item:
            found.update(_elements(item["map"]))
        elif "rule" in item:
            chain = item["rule"]["chain"]
            for part in item["rule"]["expr"]:
                if isinstance(part.get("counter"), dict):
                    found[chain, str(positions[chain])] = part["counter"]["packets"]
            positions[chain] += 1
    return found


def _elements(listed: Mapping[str, Any]) -> dict[Site, int]:
    found = {}
    for key, _ in listed.get("elem") or ():
        element = key.get("elem") if isinstance(key, dict) else None
        if element and "counter" in element:
            found[listed["name"], " . ".join(map(_word, element["val"]["concat"]))] = element["counter"]["packets"]
    return found


def _word(value: Any) -> str:
    return "{}-{}".format(*value["range"]) if isinstance(value, dict) else str(value)


def of_iptables(saved: str, own: str, rendered: str) -> dict[Site, int]:
    """Of ``iptables-save -c``; chains that begin with ``own`` are told as beginning with ``rendered``."""
    found: dict[Site, int] = {}
    positions: Counter[str] = Counter()
    for line in saved.splitlines():
        if (match := _SAVED.match(line)) and match[2].startswith(own):
            chain = rendered + match[2].removeprefix(own)
            found[chain, str(positions[chain])] = int(match[1])
            positions[chain] += 1
    return found


def of_ipset(saved: str, own: str, rendered: str) -> dict[Site, int]:
    """Of ``ipset save``: members of sets that count, the sets' names as above."""
    return {
        (rendered + match[1].removeprefix(own), match[2]): int(match[3])
        for line in saved.splitlines()
        if (match := _MEMBER.match(line)) and match[1].startswith(own)
    }


def of_flows(dumped: str) -> dict[Site, int]:
    """Of ``ovs-ofctl dump-flows``: all flows together that let the same rules decide."""
    found: Counter[Site] = Counter()
    for line in dumped.splitlines():
        if (match := _FLOW.search(line)) and int(match[1]) < _FORWARDS:
            found[_REGISTERS[match[4]], match[3]] += int(match[2])
    return dict(found)
