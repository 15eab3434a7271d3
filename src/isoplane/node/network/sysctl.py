"""Kernel settings of single interfaces, and a note of those that were not ours, so that they can be put back.

/proc/sys/net shows the network namespace of the calling thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path("/proc/sys/net")

ROUTED_PORT = {
    "ipv4/conf/{}/forwarding": "1",
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/send_redirects": "0",
    "ipv4/conf/{}/arp_announce": "2",
    "ipv6/conf/{}/disable_ipv6": "1",
}
"""An interface that faces workloads: it forwards, and drops source addresses that are routed elsewhere (rp_filter strict)."""

ROUTED_MACHINE = {**ROUTED_PORT, "ipv4/conf/{}/proxy_arp": "1", "ipv4/neigh/{}/proxy_delay": "0"}
"""A machine believes its whole range to be on its link: the host answers for all that it routes elsewhere, and at once."""

BRIDGED_PORT = {
    "ipv4/conf/{}/arp_ignore": "8",
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/forwarding": "0",
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


def borrow(note: Path, settings: Mapping[str, str]) -> None:
    """Change settings of the host, noting what they were, once, in the file ``note``."""
    known = json.loads(note.read_text()) if note.exists() else {}
    for name, value in settings.items():
        path = _ROOT / name
        if not path.exists() or path.read_text().strip() == value:
            continue
        known.setdefault(name, path.read_text().strip())
        note.write_text(json.dumps(known))
        path.write_text(value)


def give_back(note: Path) -> None:
    """Restore what ``borrow`` changed."""
    if not note.exists():
        return
    for name, value in json.loads(note.read_text()).items():
        path = _ROOT / name
        if path.exists():
            path.write_text(value)
    note.unlink()
