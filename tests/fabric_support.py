"""What the packet tests share: workloads by the dozen, sandboxes to speak from, and a machine's stand-in on a real tap."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import itertools
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from isoplane.node.network import netns
from isoplane.node.network.netlink import Netlink
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES
from isoplane.workload.shape import Attachment, RestartRule, RunState, Stage, Workload


def workload(
    name: str, attachment: Attachment = Attachment.VETH, uid: str = "", namespace: str = "default"
) -> Workload:
    """A workload of which only identity and attachment matter."""
    machine = attachment is Attachment.TAP
    return Workload(
        resource=VIRTUALMACHINEINSTANCES if machine else PODS,
        namespace=namespace,
        name=name,
        uid=uid or str(uuid.uuid4()),
        created="2026-01-01T00:00:00Z",
        generation=1,
        labels={},
        annotations={},
        priority=0,
        priority_class="",
        preemption_policy="PreemptLowerPriority",
        request={},
        limits={},
        disruption_cost=10 if machine else 1,
        desired=RunState.RUN,
        grace_seconds=30,
        stop_deadline=None,
        restart=RestartRule.ALWAYS,
        graceful_resend=0,
        acknowledges_stop=machine,
        runtime="qemu" if machine else "oci",
        attachment=attachment,
        units=(),
        volumes=(),
        references=(),
        ports=(),
        hostname=name,
        service_account="",
        node="",
        node_selector={},
        gates=(),
        stage=Stage.PLACED,
        transitions={},
        deleting=False,
        owner_uid="",
        owned_by_tenant=False,
        address="",
    )


def spare_range(length: int = 24) -> str:
    """A range of the shared address space (RFC 6598) that is likely to be nobody's: several tests run on one host."""
    size = 1 << (32 - length)
    start = int(ipaddress.IPv4Address("100.64.0.0")) + random.randrange((1 << 22) // size) * size
    return f"{ipaddress.IPv4Address(start)}/{length}"


def udp_socket(path: str) -> socket.socket:
    """A UDP socket inside the namespace at ``path`` ('' is the host's)."""
    return _inside(path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def tcp_socket(path: str) -> socket.socket:
    return _inside(path, socket.socket)


def _inside(path: str, make: object) -> socket.socket:
    assert callable(make)
    made = netns.enter(Path(path), make) if path else make()
    assert isinstance(made, socket.socket)
    made.settimeout(3)
    return made


class EchoServer:
    """TCP and UDP echo on one port inside a namespace. A TCP client that sends ``?`` is told its own address."""

    def __init__(self, path: str, port: int) -> None:
        self.tcp, self.udp = tcp_socket(path), udp_socket(path)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind(("0.0.0.0", port))
        self.tcp.listen(64)
        self.udp.bind(("0.0.0.0", port))
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        streams: list[socket.socket] = []
        while True:
            ready, _, _ = select.select([self.tcp, self.udp, self._stop, *streams], [], [])
            for one in ready:
                if one is self._stop:
                    for stream in streams:
                        stream.close()
                    return
                try:
                    if one is self.udp:
                        data, sender = self.udp.recvfrom(65536)
                        self.udp.sendto(data, sender)
                    elif one is self.tcp:
                        streams.append(self.tcp.accept()[0])
                    else:
                        data = one.recv(1 << 16)
                        if not data:
                            streams.remove(one)
                            one.close()
                        else:
                            one.sendall(one.getpeername()[0].encode() if data == b"?" else data)
                except OSError:
                    if one in streams:
                        streams.remove(one)
                        one.close()

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self.tcp.close()
        self.udp.close()
        os.close(self._stop)


def tcp_reaches(source: str, address: str, port: int, payload: bytes = b"hello", timeout: float = 3.0) -> bool:
    """Whether a TCP connection from the namespace ``source`` is answered with what it sent."""
    with tcp_socket(source) as client:
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            client.sendall(payload)
            got = b""
            while len(got) < len(payload):
                chunk = client.recv(1 << 16)
                if not chunk:
                    return False
                got += chunk
            return got == payload
        except OSError:
            return False


def peer_seen_by(source: str, address: str, port: int) -> str:
    """The address that the server at the other end sees."""
    with tcp_socket(source) as client:
        client.connect((address, port))
        client.sendall(b"?")
        return client.recv(100).decode()


def udp_reaches(source: str, address: str, port: int, timeout: float = 0.5) -> bool:
    with udp_socket(source) as client:
        client.settimeout(timeout)
        try:
            client.sendto(b"hello", (address, port))
            return client.recv(100) == b"hello"
        except OSError:
            return False


_IDENTS = itertools.count(os.getpid())


def pings(source: str, address: str, timeout: float = 2.0) -> bool:
    """One ICMP echo, by a raw socket."""
    client = _inside(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    with client:
        client.settimeout(timeout)
        ident = next(_IDENTS) & 0xFFFF
        body = struct.pack("!BBHHH", 8, 0, 0, ident, 1) + b"isoplane"
        total = sum(struct.unpack(f"!{len(body) // 2}H", body))
        total = (total >> 16) + (total & 0xFFFF)
        checksum = ~(total + (total >> 16)) & 0xFFFF
        try:
            client.sendto(body[:2] + struct.pack("!H", checksum) + body[4:], (address, 0))
            while True:
                data = client.recv(1500)
                if data[20] == 0 and struct.unpack_from("!H", data, 24)[0] == ident:
                    return True
        except OSError:
            return False


class TapGuest:
    """A machine's stand-in: it opens the tap as QEMU does and carries its frames to an interface in a namespace of its own."""

    def __init__(self, tap: str, mac: str, tag: str) -> None:
        self.path = f"/run/netns/{tag}-{tap}"
        self._outer = _open_tap(tap)

        def inside(_: int) -> int:
            descriptor = _open_tap("eth0")
            with Netlink() as guest:
                guest.set_link(1, up=True).set_link(guest.index("eth0"), mac=mac, up=True).commit()
            return descriptor

        netns.prepare(Path("/run/netns"))
        self._inner = netns.create(Path(self.path), inside)
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        other = {self._outer: self._inner, self._inner: self._outer}
        while True:
            ready, _, _ = select.select([self._outer, self._inner, self._stop], [], [])
            if self._stop in ready:
                return
            for one in ready:
                try:
                    os.write(other[one], os.read(one, 65536))
                except OSError:
                    return

    def use(self, address: str, prefix: int, gateway: str) -> None:
        """Configure by hand."""

        def inside() -> None:
            with Netlink() as guest:
                index = guest.index("eth0")
                guest.address(index, address, prefix).route("0.0.0.0/0", index, gateway=gateway).commit()

        netns.enter(Path(self.path), inside)

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
        assert answer, f"no lease: {asked.stdout}{asked.stderr}"
        _, address, netmask, router, *_ = answer[0]
        self.use(address, sum(bin(int(part)).count("1") for part in netmask.split(".")), router)
        return address

    def close(self) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for descriptor in (self._outer, self._inner, self._stop):
            os.close(descriptor)
        netns.delete(Path(self.path))


def _open_tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000))
    return descriptor


def traces(tag: str, data_dir: Path) -> list[str]:
    """Whatever a plane with this tag has left on the host."""
    found = [line for line in subprocess.check_output(["ip", "-o", "link"], text=True).splitlines() if tag in line]
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
