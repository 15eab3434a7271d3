"""Packets sent and answered inside network namespaces, in both families: TCP and UDP echo, and ICMP. Blocking; for threads."""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from isoplane.node.network import netns
from isoplane.node.network.ipv6 import missing


def family_of(address: str) -> socket.AddressFamily:
    """The family of an address; '' is IPv4."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp_socket(path: str, towards: str = "") -> socket.socket:
    """A UDP socket inside the namespace at ``path`` ('' is the host's), of the family of the address ``towards``."""
    return inside(path, lambda: socket.socket(family_of(towards), socket.SOCK_DGRAM))


def tcp_socket(path: str, towards: str = "") -> socket.socket:
    """A TCP socket, as above."""
    return inside(path, lambda: socket.socket(family_of(towards)))


def inside(path: str, make: Callable[[], socket.socket]) -> socket.socket:
    """A socket that belongs to the namespace at ``path`` ('' is the host's), with a timeout of 3 seconds."""
    made = netns.enter(Path(path), make) if path else make()
    made.settimeout(3)
    return made


def _anyone() -> str:
    """What a server of both families binds to; of IPv4 alone where the kernel has no other."""
    return "0.0.0.0" if missing() else "::"


class EchoServer:
    """TCP and UDP echo on one port inside a namespace. A TCP client that sends ``?`` is told its own address."""

    def __init__(self, path: str, port: int) -> None:
        anyone = _anyone()
        self.tcp, self.udp = tcp_socket(path, anyone), udp_socket(path, anyone)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (self.tcp, self.udp):
            if anyone == "::":
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            one.bind((anyone, port))
        self.tcp.listen(64)
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        streams: list[socket.socket] = []
        while True:
            listening: list[socket.socket | int] = [self.tcp, self.udp, self._stop, *streams]
            for one in select.select(listening, [], [])[0]:
                if isinstance(one, int):
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
                            one.sendall(one.getpeername()[0].removeprefix("::ffff:").encode() if data == b"?" else data)
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
    with tcp_socket(source, address) as client:
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            return _echoed(client, payload, timeout)
        except OSError:
            return False


def _echoed(client: socket.socket, payload: bytes, timeout: float) -> bool:
    """Whether all of it comes back, silence of ``timeout`` seconds apart.

    Sends and receives in turn: who sends everything first waits for ever on a peer that echoes, once the buffers between
    the two are full.
    """
    client.setblocking(False)
    rest, got, ready = memoryview(payload), bytearray(), select.poll()
    while len(got) < len(payload):
        ready.register(client, select.POLLIN | select.POLLOUT if rest else select.POLLIN)
        events = sum(event for _, event in ready.poll(timeout * 1000))
        if not events:
            return False
        if events & select.POLLOUT:
            rest = rest[client.send(rest[: 1 << 16]) :]
        if events & ~select.POLLOUT:
            chunk = client.recv(1 << 16)
            if not chunk:
                return False
            got += chunk
    return got == payload


def udp_reaches(source: str, address: str, port: int, timeout: float = 0.5) -> bool:
    """Whether a datagram from the namespace ``source`` comes back; it is sent again while there is time."""
    with udp_socket(source, address) as client:
        return _answered(client, lambda: client.sendto(b"hello", (address, port)), b"hello".__eq__, timeout)


_IDENTS = itertools.count(os.getpid())
AGAIN = 0.5
"""Seconds after which what was not answered is asked again: a busy host loses packets."""


def pings(source: str, address: str, timeout: float = 2.0) -> bool:
    """Whether an ICMP echo is answered, asked by a raw socket; it is sent again while there is time."""
    six = family_of(address) == socket.AF_INET6
    asking, answering, header = (
        (128, 129, 0) if six else (8, 0, 20)
    )  # what IPv6 sends up has no header, and is summed below
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    ident = next(_IDENTS) & 0xFFFF
    body = struct.pack("!BBHHH", asking, 0, 0, ident, 1) + b"isoplane"
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    total = (total >> 16) + (total & 0xFFFF)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    echo = body[:2] + struct.pack("!H", checksum) + body[4:]

    def ours(data: bytes) -> bool:
        return data[header] == answering and struct.unpack_from("!H", data, header + 4)[0] == ident

    with inside(source, lambda: socket.socket(family_of(address), socket.SOCK_RAW, protocol)) as client:
        return _answered(client, lambda: client.sendto(echo, (address, 0)), ours, timeout)


def _answered(
    client: socket.socket, ask: Callable[[], object], is_answer: Callable[[bytes], bool], timeout: float
) -> bool:
    """Whether an answer comes within ``timeout`` seconds, of which other packets take nothing away. Refusals count as silence."""
    asked = time.monotonic()
    deadline = asked + timeout
    try:
        ask()
        while (now := time.monotonic()) < deadline:
            if now >= asked + AGAIN:
                ask()
                asked = now
            client.settimeout(max(0.001, min(deadline, asked + AGAIN) - now))
            with suppress(TimeoutError):
                if is_answer(client.recv(1500)):
                    return True
    except OSError:
        pass
    return False
