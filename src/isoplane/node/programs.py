"""Programs of the host: where each is, and what is missing for running workloads for real, all at once.

Daemons and tools of the network lie in /usr/sbin, which the PATH of an ordinary user (and of cron, and of some services) lacks:
everybody who needs a program asks here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")

NEEDED: dict[str, tuple[tuple[str, ...], str]] = {
    "an OCI runtime": (("crun", "runc"), "crun"),
    "conmon": (("conmon",), "conmon"),
    "QEMU": (("qemu-system-x86_64", "qemu-system-aarch64"), "qemu-system-x86"),
    "skopeo": (("skopeo",), "skopeo"),
    "umoci": (("umoci",), "umoci"),
    "iproute2": (("ip",), "iproute2"),
    "dnsmasq": (("dnsmasq",), "dnsmasq-base"),
    "conntrack": (("conntrack",), "conntrack"),
}
"""What every real node needs → (any of these programs, the Debian package that has one)."""
BY_ENGINE: dict[str, dict[str, tuple[tuple[str, ...], str]]] = {
    "nftables": {"nftables": (("nft",), "nftables")},
    "iptables": {"iptables": (("iptables-restore",), "iptables"), "ipset": (("ipset",), "ipset")},
    "openvswitch": {"Open vSwitch": (("ovs-vswitchd",), "openvswitch-switch")},
}
"""The same for each network engine."""


def which(name: str) -> str | None:
    """The path of a program, looked for on the PATH and where system programs lie; None when it is nowhere."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(name, path=os.pathsep.join(dict.fromkeys([*path, *_SYSTEM])))


def missing(engines: Iterable[str] = ("nftables", "openvswitch")) -> list[str]:
    """One line for each thing that a real node with these engines lacks; empty when nothing is missing."""
    needed = dict(NEEDED)
    for engine in engines:
        needed |= BY_ENGINE[engine]
    return [
        f"{what} is missing: install the Debian package {package}"
        for what, (programs, package) in needed.items()
        if not any(which(program) for program in programs)
    ]


def how_to_install(engines: Iterable[str] = ("nftables", "openvswitch")) -> str:
    """The one command that brings all that is missing; '' when nothing is."""
    packages = [line.rpartition(" ")[2] for line in missing(engines)]
    return f"apt-get install {' '.join(packages)}" if packages else ""
