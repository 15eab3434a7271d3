"""A host whose own firewall forwards nothing by default (Docker sets that up) still forwards for our interfaces.

The rules come last in the FORWARD chain, so that whatever the host or a policy engine drops before stays dropped.
"""

from __future__ import annotations

from isoplane.node.network.process import find, run
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import Names


def accepting(names: Names) -> list[str]:
    """The rules, as iptables-save writes them."""
    interfaces = [*(f"{prefix}+" for prefix in names.link_prefixes), names.bridge]
    comment = f"-m comment --comment {names.table} -j ACCEPT"
    return [f"-A FORWARD {side} {interface} {comment}" for interface in interfaces for side in ("-i", "-o")]


def missing(saved: str, names: Names) -> list[str]:
    """The rules that a saved filter table lacks; none where it forwards by default."""
    lines = saved.splitlines()
    if not any(line.startswith(":FORWARD DROP") for line in lines):
        return []
    return [rule for rule in accepting(names) if rule not in lines]


def present(saved: str, names: Names) -> list[str]:
    """The rules that a saved filter table has."""
    lines = saved.splitlines()
    return [rule for rule in accepting(names) if rule in lines]


async def enable(names: Names) -> None:
    """Add what is missing. A host without iptables has no such firewall."""
    if (saved := await _saved()) and (rules := missing(saved, names)):
        await _restore(rules)


async def disable(names: Names) -> None:
    if saved := await _saved():
        await _restore([rule.replace("-A ", "-D ", 1) for rule in present(saved, names)])


async def _saved() -> str:
    try:
        find("iptables-save")
        return (await run("iptables-save", "-t", "filter")).decode()
    except FabricFailure:
        return ""


async def _restore(rules: list[str]) -> None:
    if rules:
        text = "".join(f"{line}\n" for line in ["*filter", *rules, "COMMIT"])
        await run("iptables-restore", "--noflush", "-w", "10", stdin=text.encode())
