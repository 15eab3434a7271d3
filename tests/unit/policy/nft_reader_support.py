"""Reads nftables text back and walks a packet through it: the few statements that the renderer uses, nothing assumed."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

_BLOCK = re.compile(r"^\t(set|map|chain) (\S+) \{\n(.*?)^\t\}\n", re.M | re.S)


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection as one hook sees it."""

    hook: str
    iif: str
    oif: str
    saddr: str
    daddr: str
    protocol: str  # tcp, udp, sctp, or icmp for everything without ports
    dport: int
    state: str = "new"

    @property
    def family(self) -> str:
        return "ip6" if ":" in self.saddr else "ip"


@dataclass
class Nft:
    sets: dict[str, list[str]] = field(default_factory=dict)
    maps: dict[str, dict[str, str]] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Nft:
        found = cls()
        head, _, body = text.partition("table inet isoplane {\n")
        assert head == "add table inet isoplane\ndelete table inet isoplane\n"
        for kind, name, content in _BLOCK.findall(body):
            if kind == "chain":
                found.chains[name] = [line.strip() for line in content.splitlines()]
                continue
            listed = re.search(r"elements = \{(.*)\}", content, re.S)
            elements = [e.strip() for e in listed[1].split(",\n")] if listed else []
            if kind == "set":
                found.sets[name] = elements
            else:
                found.maps[name] = dict(e.rsplit(" : ", 1) for e in elements)
                assert len(found.maps[name]) == len(elements), f"{name} repeats a key"
        return found

    def passes(self, packet: Packet) -> bool:
        """Whether all base chains of the hooks that the packet crosses let it pass."""
        for hook in ("prerouting", packet.hook):
            for name, rules in self.chains.items():
                is_base = rules and rules[0].startswith(f"type filter hook {hook} ")
                if is_base and self._chain(name, packet, 0) == "drop":
                    return False
        return True

    def _chain(self, name: str, packet: Packet, depth: int) -> str:
        """accept, drop or return (also at the end)."""
        assert depth < 10, "too deep"
        for rule in self.chains[name]:
            if rule.startswith("type filter hook"):
                continue
            verdict = self._rule(rule.split(" "), packet)
            if verdict is None:
                continue
            if verdict in ("accept", "drop", "return"):
                return verdict
            action, _, target = verdict.partition(" ")
            outcome = self._chain(target, packet, depth + 1)
            if outcome != "return" or action == "goto":
                return outcome
        return "return"

    def _rule(self, words: list[str], packet: Packet) -> str | None:
        """The verdict where every match holds, else None."""
        while words:
            if words[0] in ("accept", "drop", "return"):
                return words[0]
            if words[0] in ("jump", "goto"):
                return " ".join(words)
            if words[0] == "counter":
                words = words[1:]
                continue
            if words[0] == "limit":
                return None
            values, words = self._key(words, packet)
            if values is None:
                return None
            if words[0] == "vmap":
                table, words = self._map(words[1:])
                found = [v for k, v in table.items() if _matches(k, values)]
                assert len(found) <= 1, f"{values} matches {found}"
                return found[0] if found else None
            wanted = words[0] != "!="
            words = words if wanted else words[1:]
            elements, words = self._elements(words)
            if any(_matches(e, values) for e in elements) is not wanted:
                return None
        return None

    def _key(self, words: list[str], packet: Packet) -> tuple[list[Any] | None, list[str]]:
        """The packet's values for a (concatenated) key; None when the packet has no such header."""
        values: list[Any] = []
        missing = False
        while True:
            length, value = self._one(words, packet)
            missing |= value is None
            values.append(value)
            words = words[length:]
            if words[0] != ".":
                return (None if missing else values), words
            words = words[1:]

    def _one(self, words: list[str], packet: Packet) -> tuple[int, Any]:
        pair = tuple(words[:2])
        if words[0] in ("iifname", "oifname"):
            return 1, packet.iif if words[0] == "iifname" else packet.oif
        if words[0] in ("ip", "ip6"):
            value = packet.saddr if words[1] == "saddr" else packet.daddr
            return 2, ipaddress.ip_address(value) if packet.family == words[0] else None
        if pair == ("ct", "state"):
            return 2, packet.state
        if pair == ("ct", "status"):
            return 2, "confirmed" if packet.state == "established" else ""
        if pair == ("meta", "l4proto"):
            return 2, packet.protocol
        if pair == ("meta", "nfproto"):
            return 2, "ipv6" if packet.family == "ip6" else "ipv4"
        if pair == ("th", "dport"):
            return 2, packet.dport
        if words[0] == "icmpv6":
            return 2, None
        if words[0] in ("tcp", "udp", "sctp"):
            port = packet.dport if words[1] == "dport" else 40000
            return 2, port if packet.protocol == words[0] else None
        raise AssertionError(f"unknown match {words}")

    def _map(self, words: list[str]) -> tuple[dict[str, str], list[str]]:
        if words[0].startswith("@"):
            return self.maps[words[0][1:]], words[1:]
        end = words.index("}")
        listed = " ".join(words[1:end]).split(", ")
        return dict(e.split(" : ") for e in listed), words[end + 1 :]

    def _elements(self, words: list[str]) -> tuple[list[str], list[str]]:
        if words[0].startswith("@"):
            return self.sets[words[0][1:]], words[1:]
        if words[0] == "{":
            end = words.index("}")
            return " ".join(words[1:end]).split(", "), words[end + 1 :]
        return words[0].split(","), words[1:]


def _matches(element: str, values: list[Any]) -> bool:
    parts = element.split(" . ")
    assert len(parts) == len(values), (element, values)
    return all(_part(part, value) for part, value in zip(parts, values, strict=True))


def _part(part: str, value: Any) -> bool:
    if isinstance(value, str):
        text = part.strip('"')
        return value.startswith(text[:-1]) if text.endswith("*") else value == text
    if isinstance(value, int):
        low, _, high = part.partition("-")
        return int(low) <= value <= int(high or low)
    if "/" in part:
        return value in ipaddress.ip_network(part)
    low, _, high = part.partition("-")
    return ipaddress.ip_address(low) <= value <= ipaddress.ip_address(high or low)
