"""Reads ipset and iptables-restore text back and walks a packet through it."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from nft_reader_support import Packet

from isoplane.policy.iptables import HOOKS, Steps

_FLAGS = {
    "-i": 1,
    "-o": 1,
    "-s": 1,
    "-p": 1,
    "--sport": 1,
    "--dport": 1,
    "--dports": 1,
    "--icmpv6-type": 1,
    "--ctstate": 1,
    "--ctstatus": 1,
}


class Iptables:
    def __init__(self, steps: Steps) -> None:
        self.sets: dict[str, list[Any]] = {}
        self.kinds: dict[str, str] = {}
        for line in steps.before.splitlines():
            words = line.split(" ")
            if words[0] == "create":
                self.sets[words[1]], self.kinds[words[1]] = [], words[2]
            else:
                self.sets[words[1]].append(_member(words[2], self.kinds[words[1]]))
        self.chains = {4: _chains(steps.v4), 6: _chains(steps.v6)}

    def passes(self, packet: Packet) -> bool:
        family = 6 if packet.family == "ip6" else 4
        hooks = {"PREROUTING", packet.hook.upper()}
        return all(
            self._chain(self.chains[family], chain, packet) != "DROP" for _, builtin, chain in HOOKS if builtin in hooks
        )

    def _chain(self, chains: dict[str, list[str]], name: str, packet: Packet) -> str:
        for rule in chains[name]:
            words = rule.split(" ")
            if "NFLOG" in words or not self._matches(words, packet):
                continue
            flag, target = next((f, words[words.index(f) + 1]) for f in ("-j", "-g") if f in words)
            if target in ("DROP", "RETURN"):
                return target
            outcome = self._chain(chains, target, packet)
            if outcome == "DROP" or flag == "-g":
                return outcome
        return "RETURN"

    def _matches(self, words: list[str], packet: Packet) -> bool:
        at = 0
        while at < len(words):
            word, value = words[at], words[at + 1] if at + 1 < len(words) else ""
            if word in ("-j", "-g"):
                return True
            if word == "!":
                assert value == "--match-set"
                if self._in(words[at + 2], words[at + 3], packet):
                    return False
                at += 4
                continue
            if word == "--match-set":
                if not self._in(value, words[at + 2], packet):
                    return False
                at += 3
                continue
            if word in _FLAGS and not _single(word, value, packet):
                return False
            assert word in _FLAGS or word == "-m", f"unknown match {word}"
            at += 2
        return True

    def _in(self, name: str, fields: str, packet: Packet) -> bool:
        kind = self.kinds[name]
        if kind == "bitmap:port":
            # the kernel's ip_set_get_ip_port knows no other protocol
            ported = packet.protocol in ("tcp", "udp")
            return ported and any(low <= packet.dport <= high for low, high in self.sets[name])
        end = ipaddress.ip_address(packet.saddr if fields.startswith("src") else packet.daddr)
        if kind == "hash:net,iface":
            return any(end in net and iface == packet.iif for net, iface in self.sets[name])
        if kind == "hash:net,port":
            assert fields.endswith(",dst")
            here = packet.protocol, packet.dport
            return any(end in net and here[0] == p and low <= here[1] <= high for net, p, low, high in self.sets[name])
        return any(end in net for net in self.sets[name])


def _member(text: str, kind: str) -> Any:
    if kind == "bitmap:port":
        low, _, high = text.partition("-")
        return int(low), int(high or low)
    if kind == "hash:net,iface":
        net, iface = text.split(",")
        return ipaddress.ip_network(net), iface
    if kind == "hash:net,port":
        net, protocol, low, high = re.fullmatch(r"(.*),(\w+):(\d+)(?:-(\d+))?", text).groups()  # type: ignore[union-attr]
        return ipaddress.ip_network(net), protocol, int(low), int(high or low)
    return ipaddress.ip_network(text)


def _chains(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            found[line[1:].split(" ")[0]] = []
        elif line.startswith("-A "):
            _, name, rule = line.split(" ", 2)
            found[name].append(rule)
    return found


def _single(flag: str, value: str, packet: Packet) -> bool:
    if flag in ("-i", "-o"):
        name = packet.iif if flag == "-i" else packet.oif
        return name.startswith(value[:-1]) if value.endswith("+") else name == value
    if flag == "-s":
        return ipaddress.ip_address(packet.saddr) in ipaddress.ip_network(value)
    if flag == "-p":
        return packet.protocol == value
    if flag == "--ctstate":
        return packet.state.upper() in value.split(",")
    if flag == "--ctstatus":
        return value == "CONFIRMED" and packet.state == "established"
    if flag == "--dports":
        spans = [span.partition(":") for span in value.split(",")]
        assert sum(2 if high else 1 for _, _, high in spans) <= 15, "more slots than multiport has"
        return any(int(low) <= packet.dport <= int(high or low) for low, _, high in spans)
    if flag == "--dport":
        return packet.dport == int(value)
    return False  # source ports and ICMPv6 types: the packets of these tests have others
