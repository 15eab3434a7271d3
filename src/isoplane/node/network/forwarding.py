"""A host whose own firewall forwards nothing by default (Docker sets that up) still forwards for our interfaces.

The rules come last in the FORWARD chain, so that whatever the host or a policy engine drops before stays dropped.
"""

from __future__ import annotations

from isoplane.node.network.process import find, run
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import Names

_TOOLS = ("iptables", "ip6tables")


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
    """Add what is missing, in both families. A host without iptables has no such firewall."""
    for tool in _TOOLS:
        if (saved := await _saved(tool)) and (rules := missing(saved, names)):
            await _restore(tool, rules)


async def disable(names: Names) -> None:
    for tool in _TOOLS:
        if saved := await _saved(tool):
            await _restore(tool, [rule.replace("-A ", "-D ", 1) for rule in present(saved, names)])


async def _saved(tool: str) -> str:
    try:
        find(f"{tool}-save")
        return (await run(f"{tool}-save", "-t", "filter")).decode()
    except FabricFailure:
        return ""


async def _restore(tool: str, rules: list[str]) -> None:
    if rules:
        text = "".join(f"{line}\n" for line in ["*filter", *rules, "COMMIT"])
        await run(f"{tool}-restore", "--noflush", "-w", "10", stdin=text.encode())
