"""DHCP for machines: one dnsmasq that gives every known MAC its reserved address, and nobody else anything.

For IPv6 it advertises the node as the router and the network as one to take addresses in, and answers DHCPv6: whichever way
a guest goes, its address is the same.  It serves no names.  It outlives the plane like the switch does, and reads its host
file again on SIGHUP.  It does so as a user without rights, who cannot look into the plane's directory: what it reads lies
in a directory of its own below /run.
"""

from __future__ import annotations

import grp
import hashlib
import ipaddress
import os
import pwd
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path

from isoplane.node.network.ipam import Lease
from isoplane.node.network.ipv6 import Network6
from isoplane.node.network.process import Daemon, run

_RUN = Path("/run")


def unprivileged() -> tuple[str, str]:
    """The user and group that dnsmasq becomes: those of its package, or nobody's."""
    names = {entry.pw_name: entry.pw_gid for entry in pwd.getpwall()}
    user = "dnsmasq" if "dnsmasq" in names else "nobody"
    return user, grp.getgrgid(names[user]).gr_name


class Dhcp:
    """The DHCP server of one node. ``interface`` may end in a star for links that come and go; each has the network's gateway."""

    def __init__(
        self, directory: Path, interface: str, network: ipaddress.IPv4Network, network6: Network6 | None = None
    ) -> None:
        self._directory, self._interface, self._network, self._network6 = directory, interface, network, network6
        self._readable = _RUN / f"isoplane-dhcp-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]}"
        self._hosts = self._readable / "hosts"
        self._daemon = Daemon(directory / "dnsmasq.pid")

    @property
    def running(self) -> bool:
        return bool(self._daemon.pid)

    async def start(self, mtu: int, restart: bool = False) -> None:
        """Start unless it runs; ``restart`` when the interface it listened on was made anew. One that serves otherwise goes."""
        arguments = self._arguments(mtu)
        if restart or self._daemon.arguments not in ([], arguments):
            await self._daemon.stop()
        if self._daemon.pid:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        self._readable.mkdir(mode=0o755, exist_ok=True)
        self._hosts.touch(mode=0o644)
        await run("dnsmasq", *arguments)

    def _arguments(self, mtu: int) -> list[str]:
        network, gateway = self._network, self._network[1]
        user, group = unprivileged()
        # Nobody else is on the link as a guest sees it: all goes to the router, which delivers.
        range6 = f"--dhcp-range={self._network6[0]},static,slaac,off-link,64,infinite" if self._network6 else ""
        return [
            "--conf-file=/dev/null",
            f"--pid-file={self._daemon.pid_file}",
            f"--user={user}",
            f"--group={group}",
            "--port=0",
            f"--interface={self._interface}",
            "--except-interface=lo",
            "--bind-dynamic" if self._interface.endswith("*") else "--bind-interfaces",
            f"--dhcp-range={network.network_address},static,{network.netmask},infinite",
            f"--dhcp-hostsfile={self._hosts}",
            f"--dhcp-leasefile={self._directory}/leases",
            f"--dhcp-option=option:router,{gateway}",
            f"--dhcp-option=option:mtu,{mtu}",
            "--dhcp-authoritative",
            "--no-ping",
            "--no-hosts",
            "--no-resolv",
            "--quiet-dhcp",
            f"--log-facility={self._directory}/dnsmasq.log",
            *(("--enable-ra", range6) if range6 else ()),
        ]

    def serve(self, leases: Iterable[Lease]) -> None:
        """Reserve exactly these, from now on."""
        text = "".join(
            f"{lease.mac},{lease.address},{f'[{lease.address6}],' if lease.address6 else ''}"
            f"{lease.name.replace('.', '-')[:63].rstrip('-')},infinite\n"
            for lease in sorted(leases, key=lambda one: one.number)
        )
        if self._hosts.exists() and self._hosts.read_text() == text:
            return
        self._readable.mkdir(mode=0o755, exist_ok=True)
        fresh = self._hosts.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.rename(self._hosts)
        self._daemon.signal(signal.SIGHUP)

    async def stop(self) -> None:
        await self._daemon.stop()
        shutil.rmtree(self._readable, ignore_errors=True)
