"""Kernel settings of single interfaces, and a note of those that were not ours, so that they can be put back.

/proc/sys/net shows the network namespace of the calling thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path("/proc/sys/net")
_FORWARD_IPV6 = "ipv6/conf/all/forwarding"

ROUTED_PORT = {
    "ipv4/conf/{}/forwarding": "1",
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/send_redirects": "0",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv4/conf/{}/secure_redirects": "0",
    "ipv6/conf/{}/accept_redirects": "0",
    "ipv4/conf/{}/arp_announce": "2",
}
"""An interface that faces workloads: it forwards, and drops source addresses that are routed elsewhere (rp_filter strict).
It hears no redirects, which would lead the host's own packets through a workload."""

ROUTED_MACHINE = {**ROUTED_PORT, "ipv4/conf/{}/proxy_arp": "1", "ipv4/neigh/{}/proxy_delay": "0"}
"""A machine believes its whole range to be on its link: the host answers for all that it routes elsewhere, and at once."""

WITHOUT_IPV6 = {"ipv6/conf/{}/disable_ipv6": "1"}
WITH_IPV6 = {
    "ipv6/conf/{}/disable_ipv6": "0",
    "ipv6/conf/{}/accept_ra": "0",
    "ipv6/conf/{}/accept_dad": "0",
    "ipv6/conf/{}/addr_gen_mode": "0",
}
"""Addresses are ours to give: nobody is asked whether they are free, and no router is listened to.  Its link-local address
follows from its MAC, so that the other end knows its gateway."""

BRIDGED_PORT = {
    "ipv4/conf/{}/arp_ignore": "8",
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/forwarding": "0",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv4/conf/{}/secure_redirects": "0",
    "ipv6/conf/{}/accept_redirects": "0",
    "ipv6/conf/{}/disable_ipv6": "1",
}
"""An interface that belongs to the bridge alone.  The userspace switch reads a copy of its frames while the host's own stack
sees them too: the host must not answer ARP there, and drops what it is sent (no address is routed there, rp_filter)."""


def apply(interface: str, settings: Mapping[str, str]) -> None:
    """Write the settings. A kernel without IPv6 has no IPv6 settings, which is fine."""
    for pattern, value in settings.items():
        path = _ROOT / pattern.format(interface)
        if pattern.startswith("ipv6/") and not path.exists():
            continue
        path.write_text(value)


def forward_ipv6(note: Path) -> None:
    """Let the host forward IPv6, which it does for all interfaces or none; noted is what to put back.

    A host that forwards stops listening to its own routers unless told to go on; and the one switch overwrites what every
    interface had.
    """
    if (_ROOT / _FORWARD_IPV6).read_text().strip() == "1":
        return
    names = [
        f"ipv6/conf/{each.name}" for each in (_ROOT / "ipv6/conf").iterdir() if each.name not in ("all", "default")
    ]
    _remember(note, {f"{name}/forwarding": "1" for name in names if _read(f"{name}/forwarding") == "1"})
    borrow(note, {f"{name}/accept_ra": "2" for name in names if _read(f"{name}/accept_ra") == "1"})
    borrow(note, {_FORWARD_IPV6: "1"})


def _read(name: str) -> str:
    """A setting; '' when its interface has just gone."""
    try:
        return (_ROOT / name).read_text().strip()
    except OSError:
        return ""


def _remember(note: Path, values: Mapping[str, str]) -> None:
    known = json.loads(note.read_text()) if note.exists() else {}
    note.write_text(json.dumps({**known, **{name: value for name, value in values.items() if name not in known}}))


def borrow(note: Path, settings: Mapping[str, str]) -> None:
    """Change settings of the host, noting what they were, once, in the file ``note``."""
    for name, value in settings.items():
        if _read(name) in ("", value):
            continue
        _remember(note, {name: _read(name)})
        (_ROOT / name).write_text(value)


def give_back(note: Path) -> None:
    """Restore what ``borrow`` changed, the last first: some settings reach into others."""
    if not note.exists():
        return
    for name, value in reversed(json.loads(note.read_text()).items()):
        path = _ROOT / name
        if path.exists():
            path.write_text(value)
    note.unlink()
