"""What the packet tests share: workloads by the dozen, sandboxes to speak from, and a machine's stand-in on a real tap."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from isoplane.node.network import netns
from isoplane.node.network.netlink import Netlink
from isoplane.node.network.verify.guest import TapGuest as MachineGuest
from isoplane.node.network.verify.lab import spare_range
from isoplane.node.network.verify.lab import stand_in as workload
from isoplane.node.network.verify.probes import (
    EchoServer,
    family_of,
    inside,
    pings,
    tcp_reaches,
    tcp_socket,
    udp_reaches,
    udp_socket,
)

__all__ = [
    "EchoServer",
    "TapGuest",
    "closing",
    "eventually",
    "family_of",
    "inside",
    "peer_seen_by",
    "pings",
    "spare_range",
    "tcp_reaches",
    "tcp_socket",
    "traces",
    "udp_reaches",
    "udp_socket",
    "workload",
]


def peer_seen_by(source: str, address: str, port: int) -> str:
    """The address that the server at the other end sees."""
    with tcp_socket(source, address) as client:
        client.connect((address, port))
        client.sendall(b"?")
        return client.recv(100).decode()


class TapGuest(MachineGuest):
    """A machine's stand-in that can also ask for its address."""

    def dhcp(self) -> str:
        """Ask by DHCP, configure, and tell the address that was given."""
        script = Path("/tmp") / f"isoplane-udhcpc-{os.getpid()}.sh"
        script.write_text('#!/bin/sh\n[ "$1" = bound ] && echo "GOT $ip $subnet $router $mtu"\nexit 0\n')
        script.chmod(0o755)
        try:
            command = ["busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", str(script)]
            asked = subprocess.run(
                ["nsenter", f"--net={self.path}", *command], capture_output=True, text=True, timeout=30, check=False
            )
        finally:
            script.unlink()
        answer = [line.split() for line in asked.stdout.splitlines() if line.startswith("GOT")]
        links = subprocess.run(["ip", "-s", "link"], capture_output=True, text=True, check=False).stdout
        assert answer, f"no lease, plugged: {self.plugged}: {asked.stdout}{asked.stderr}{links}"
        _, address, netmask, router, *_ = answer[0]
        self.use(address, sum(bin(int(part)).count("1") for part in netmask.split(".")), router)
        return address

    def slaac(self) -> str:
        """Take an address as the node's router advertisements say, without a pause, and tell it."""

        def restart() -> None:
            for name, value in (("dad_transmits", "0"), ("router_solicitation_delay", "0")):
                Path(f"/proc/sys/net/ipv6/conf/eth0/{name}").write_text(value)
            with Netlink() as guest:
                index = guest.index("eth0")
                guest.set_link(index, up=False).set_link(index, up=True).commit()

        netns.enter(Path(self.path), restart)
        deadline = time.monotonic() + 10
        while True:
            show = ["ip", "-n", Path(self.path).name, "-6", "-o", "address", "show", "dev", "eth0", "scope", "global"]
            words = subprocess.check_output(show, text=True).split()
            if words:
                return words[words.index("inet6") + 1].partition("/")[0]
            assert time.monotonic() < deadline, "no router advertisement"
            time.sleep(0.05)


def traces(tag: str, data_dir: Path) -> list[str]:
    """Whatever a plane with this tag has left on the host."""
    # By their names: a tag of four digits may well stand somewhere in what is told of others ("mtu 65536", a MAC).
    found = [f"link {name}" for _, name in socket.if_nameindex() if tag in name]
    found += [entry.name for entry in Path("/run/netns").glob(f"iso-{tag}*")]
    if shutil.which("nft"):
        found += [
            line for line in subprocess.check_output(["nft", "list", "tables"], text=True).splitlines() if tag in line
        ]
    for tool, *arguments in (["iptables-save"], ["ip6tables-save"], ["ipset", "list", "-n"]):
        if shutil.which(tool):
            lines = subprocess.check_output([tool, *arguments], text=True, stderr=subprocess.DEVNULL).splitlines()
            found += [line for line in lines if f"isp{tag}" in line.lower()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"{data_dir}/network" in line:
                found.append(f"process {entry.name}: {line}")
    return found


@contextmanager
def closing(*things: object) -> Iterator[None]:
    """Close every one of them at the end."""
    try:
        yield
    finally:
        for thing in things:
            thing.close()  # type: ignore[attr-defined]


async def eventually(condition: Callable[[], bool], timeout: float = 5) -> None:
    """Wait until it holds. Seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.01)
