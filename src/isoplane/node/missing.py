"""What this host lacks for running workloads for real, in words that say what to install."""

from __future__ import annotations

import shutil

TOOLS: dict[str, tuple[tuple[str, ...], str]] = {
    "an OCI runtime": (("crun", "runc"), "crun"),
    "conmon": (("conmon",), "conmon"),
    "QEMU": (("qemu-system-x86_64", "qemu-system-aarch64"), "qemu-system-x86"),
    "nftables": (("nft",), "nftables"),
    "Open vSwitch": (
        ("ovs-vswitchd", "/usr/sbin/ovs-vswitchd", "/usr/lib/openvswitch-switch/ovs-vswitchd"),
        "openvswitch-switch",
    ),
    "dnsmasq": (("dnsmasq", "/usr/sbin/dnsmasq"), "dnsmasq-base"),
    "skopeo": (("skopeo",), "skopeo"),
    "umoci": (("umoci",), "umoci"),
}
"""What → (any of these programs, the Debian package that has one)."""


def missing_tools() -> list[str]:
    """One line for each thing that is missing; empty when nothing is."""
    return [
        f"{what} is missing: install the Debian package {package}"
        for what, (programs, package) in TOOLS.items()
        if not any(shutil.which(program) for program in programs)
    ]
