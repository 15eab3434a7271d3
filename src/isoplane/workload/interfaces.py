"""What a machine's interfaces let in, read from its spec: used by the adapter and by offline readers alike. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_BINDINGS = ("bridge", "slirp", "sriov", "macvtap", "passt", "passtBinding", "binding")
"""KubeVirt's bindings beside masquerade, which is what an interface has that names none."""


def exposed_ports(spec: Any) -> tuple[tuple[str, int], ...] | None:
    """(protocol, port) that a masquerade interface on the pod network lets in, in order; None where it lists none.

    What is malformed is left out: that it is wrong, others say.
    """
    networks = {str(n.get("name")) for n in _maps(_at(spec, "networks")) if n.get("multus") is not None}
    found: set[tuple[str, int]] = set()
    for interface in _maps(_at(spec, "domain", "devices", "interfaces")):
        if str(interface.get("name")) in networks or any(interface.get(b) is not None for b in _BINDINGS):
            continue
        for port in _maps(interface.get("ports")):
            number, protocol = port.get("port"), str(port.get("protocol") or "TCP").upper()
            if isinstance(number, int) and not isinstance(number, bool):
                found.add((protocol, number))
    return tuple(sorted(found)) or None


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _maps(value: Any) -> Iterable[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else ()
