"""Reads OpenFlow text back and walks a packet through it: priorities, masks, registers, resubmit, tracking state."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_PREREQUISITES = {
    "ip": ("0800", None), "ipv6": ("86dd", None), "arp": ("0806", None),
    "tcp": ("0800", "tcp"), "udp": ("0800", "udp"), "sctp": ("0800", "sctp"), "icmp": ("0800", "icmp"),
    "tcp6": ("86dd", "tcp"), "udp6": ("86dd", "udp"), "sctp6": ("86dd", "sctp"), "icmp6": ("86dd", "icmp"),
}  # fmt: skip
_ADDRESSES = ("nw_src", "nw_dst", "ipv6_src", "ipv6_dst", "arp_spa", "arp_tpa", "nd_target")
_REGISTER = re.compile(r"load:(0x[0-9a-f]+)->NXM_NX_REG(\d)\[\]")


@dataclass(frozen=True)
class Flow:
    table: int
    priority: int
    match: tuple[tuple[str, str], ...]
    actions: str


@dataclass
class Walk:
    """What happened: the outputs, whether the connection was committed, and where it was dropped."""

    outputs: list[str] = field(default_factory=list)
    committed: bool = False
    mac: str = ""


class Flows:
    def __init__(self, text: str) -> None:
        self.tables: dict[int, list[Flow]] = {}
        for line in text.splitlines():
            head, actions = line.split(",actions=")
            words = head.split(",")
            fields = dict(w.split("=", 1) if "=" in w else (w, "") for w in words)
            assert len(fields) == len(words), line
            table, priority = int(fields.pop("table")), int(fields.pop("priority"))
            self.tables.setdefault(table, []).append(Flow(table, priority, tuple(fields.items()), actions))

    def walk(self, packet: Mapping[str, Any], state: frozenset[str] = frozenset({"trk", "new"}), mark: int = 0) -> Walk:
        """``packet``: in_port, dl_type, proto, the addresses and ports by their field names; the rest is absent."""
        walk = Walk()
        self._table(0, dict(packet), {}, state, mark, walk, 0)
        return walk

    def _table(
        self,
        number: int,
        packet: dict[str, Any],
        regs: dict[int, int],
        state: frozenset[str],
        mark: int,
        walk: Walk,
        depth: int,
    ) -> None:
        assert depth < 20, "loops"
        found = [
            f for f in self.tables.get(number, ()) if all(_matches(k, v, packet, regs, state, mark) for k, v in f.match)
        ]
        if not found:
            return
        best = max(f.priority for f in found)
        chosen = [f for f in found if f.priority == best]
        assert len({f.actions for f in chosen}) == 1, f"ambiguous: {chosen}"
        for action in _split(chosen[0].actions):
            if action == "drop" or action.startswith("controller("):
                continue
            if action == "LOCAL" or action.startswith("output:"):
                out = action.removeprefix("output:")
                if out != str(packet["in_port"]):
                    walk.outputs.append(out)
            elif action.startswith("resubmit(,"):
                self._table(int(action[10:-1]), packet, regs, state, mark, walk, depth + 1)
            elif action.startswith("ct(commit"):
                walk.committed = True
            elif action.startswith("ct("):
                following = int(re.search(r"table=(\d+)", action)[1])  # type: ignore[index]
                packet = {**packet, "ct": True}
                self._table(following, packet, regs, state, mark, walk, depth + 1)
            elif action.startswith("mod_dl_dst:"):
                walk.mac = action.removeprefix("mod_dl_dst:")
            elif loaded := _REGISTER.fullmatch(action):
                regs[int(loaded[2])] = int(loaded[1], 16)
            else:
                raise AssertionError(f"unknown action {action}")


def _split(actions: str) -> list[str]:
    """At commas outside of parentheses."""
    return re.findall(r"[^,(]+(?:\((?:[^()]|\([^()]*\))*\))?", actions)


def _matches(
    key: str, wanted: str, packet: Mapping[str, Any], regs: Mapping[int, int], state: frozenset[str], mark: int
) -> bool:
    if key in _PREREQUISITES:
        dl_type, protocol = _PREREQUISITES[key]
        return packet["dl_type"] == dl_type and protocol in (None, packet.get("proto"))
    if key.startswith("reg"):
        return regs.get(int(key[3:]), 0) == int(wanted, 16)
    if key == "ct_state":
        parts = re.findall(r"([+-])(\w+)", wanted)
        assert "ct" in packet
        return all((name in state) is (sign == "+") for sign, name in parts)
    if key == "ct_mark":
        return mark == int(wanted, 16)
    if key == "vlan_tci":
        return bool(packet.get("vlan"))
    value = packet.get(key)
    if key in _ADDRESSES:
        return value is not None and ipaddress.ip_address(value) in ipaddress.ip_network(wanted)
    if key in ("tp_src", "tp_dst") and "/" in wanted:
        expected, mask = (int(part, 0) for part in wanted.split("/"))
        return value is not None and value & mask == expected
    return value is not None and str(value) == wanted
