"""The two ends of the data-path benchmark: a server and a client, each a process inside a network namespace.

    python bench/datapath_load.py server|client NETNS ADDRESS CPU     (started by datapath.py, told what to do on stdin)

Each line on stdin is a request in JSON, each answered by one line of JSON.  The client floods UDP by ``sendmmsg``, a
thousand datagrams a call, so that Python's share is lost in the kernel's; pushes one TCP stream; or connects and resets
as fast as it can.  The server reads whatever comes and tells what it counted.  Nothing here knows of policies.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from isoplane.node.network import netns

PACKETS, STREAM, CONNECT = 9000, 9001, 9002
"""UDP, TCP and TCP ports of the server."""
BATCH = 1024
PAYLOAD = 18
"""Bytes in a datagram: the least that an Ethernet frame carries without padding."""
CHUNK = 1 << 18
TICK = 0.002
"""Seconds between two readings of datagrams; the socket's buffer holds ten times as many as come in between."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_RESET = struct.pack("ii", 1, 0)
_HELLO, _SILENT = b"?", b"."


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


class Batch:
    """A thousand datagrams of one size for one call of ``sendmmsg`` or ``recvmmsg``."""

    def __init__(self, size: int) -> None:
        self._buffer = ctypes.create_string_buffer(_SILENT * size, size)
        self._vector = _Vector(ctypes.addressof(self._buffer), size)
        self._messages = (_Message * BATCH)()
        for message in self._messages:
            message.header.vectors, message.header.vector_count = ctypes.addressof(self._vector), 1

    def send(self, descriptor: int) -> int:
        return self._call(_LIBC.sendmmsg(descriptor, self._messages, BATCH, 0))

    def receive(self, descriptor: int) -> int:
        return self._call(_LIBC.recvmmsg(descriptor, self._messages, BATCH, socket.MSG_DONTWAIT, None))

    def _call(self, result: int) -> int:
        return max(result, 0)


def _greet(sender: socket.socket) -> None:
    """Until it is answered: the server may still be busy with the last flood. TimeoutError after some seconds."""
    for patience in (0.05, 0.2, 0.5, 2):
        sender.settimeout(patience)
        sender.send(_HELLO)
        try:
            sender.recv(8)
            break
        except TimeoutError:
            if patience == 2:
                raise
    sender.settimeout(None)


def datagrams() -> int:
    """What this namespace's UDP sockets were given so far, whether or not anybody had the time to read it."""
    rows = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if "Udp:" in line[:4]]
    found = dict(zip(rows[0][1:], map(int, rows[1][1:]), strict=True))
    return found["InDatagrams"] + found["RcvbufErrors"]


class Server:
    """Reads datagrams, swallows streams, accepts connections; answers only to a greeting."""

    def __init__(self, address: str) -> None:
        self._packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._packets.bind((address, PACKETS))
        self._packets.setblocking(False)
        self._listening = {port: socket.create_server((address, port), backlog=4096) for port in (STREAM, CONNECT)}
        for listener in self._listening.values():
            listener.setblocking(False)
        self._streams: set[int] = set()
        self._sockets: dict[int, socket.socket] = {}
        self.bytes = 0
        for work in (self._serve, self._drain):
            threading.Thread(target=work, daemon=True).start()

    def counts(self, _: Mapping[str, Any]) -> dict[str, float]:
        return {"datagrams": datagrams(), "bytes": self.bytes}

    def _serve(self) -> None:
        poll = select.epoll()
        for listener in self._listening.values():
            poll.register(listener, select.EPOLLIN)
        stream, connect = (self._listening[port].fileno() for port in (STREAM, CONNECT))
        buffer = bytearray(CHUNK)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == connect:
                    self._accept_all()
                elif descriptor == stream:
                    peer, _ = self._listening[STREAM].accept()
                    self._sockets[peer.fileno()] = peer
                    poll.register(peer, select.EPOLLIN)
                else:
                    self._swallow(descriptor, buffer)

    def _drain(self) -> None:
        """Datagrams by the clock: a reader that sleeps until each comes has the sender wake it, for more than any rule costs."""
        batch = Batch(64)
        while True:
            time.sleep(TICK)
            try:
                data, sender = self._packets.recvfrom(64)
            except BlockingIOError:
                continue
            if data == _HELLO:
                self._packets.sendto(data, sender)
            while batch.receive(self._packets.fileno()) == BATCH:
                pass

    def _accept_all(self) -> None:
        listener = self._listening[CONNECT]
        try:
            while True:
                listener.accept()[0].close()
        except BlockingIOError:
            pass

    def _swallow(self, descriptor: int, buffer: bytearray) -> None:
        peer = self._sockets[descriptor]
        try:
            got = peer.recv_into(buffer)
        except ConnectionError:
            got = 0
        self.bytes += got
        if not got:
            del self._sockets[descriptor]
            peer.close()


class Client:
    """Makes the traffic. Every request carries ``seconds``."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._batch = Batch(PAYLOAD)

    def unanswered(self, request: Mapping[str, Any]) -> dict[str, float]:
        """A flood that is never answered: to connection tracking each datagram is new."""
        return self._flood(request["seconds"], False)

    def established(self, request: Mapping[str, Any]) -> dict[str, float]:
        """A flood on a connection that was answered once."""
        return self._flood(request["seconds"], True)

    def _flood(self, seconds: float, greet: bool) -> dict[str, float]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect((self._address, PACKETS))
            if greet:
                _greet(sender)
            sent, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                sent += self._batch.send(sender.fileno())
            return {"sent": sent, "seconds": time.perf_counter() - began}

    def stream(self, request: Mapping[str, Any]) -> dict[str, float]:
        """Bytes through one TCP connection."""
        data, sent = memoryview(bytes(CHUNK)), 0
        with socket.create_connection((self._address, STREAM), timeout=5) as peer:
            began = time.perf_counter()
            while time.perf_counter() - began < request["seconds"]:
                sent += peer.send(data)
            return {"sent": sent, "seconds": time.perf_counter() - began}

    def connections(self, request: Mapping[str, Any]) -> dict[str, float]:
        """TCP connections opened and reset one after the other; a reset leaves no port waiting."""
        target, made = (self._address, CONNECT), 0
        began = time.perf_counter()
        while time.perf_counter() - began < request["seconds"]:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as peer:
                peer.settimeout(5)
                peer.connect(target)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            made += 1
        return {"sent": made, "seconds": time.perf_counter() - began}


def main() -> None:
    role, path, address, cpu = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu)})

    def serve() -> None:
        # Threads started here stay in the namespace.
        end: Server | Client = Server(address) if role == "server" else Client(address)
        for line in sys.stdin:
            request = json.loads(line)
            method: Callable[[Mapping[str, Any]], dict[str, float]] = getattr(end, request["do"])
            try:
                answer: dict[str, Any] = dict(method(request))
            except OSError as error:
                answer = {"error": f"{request['do']}: {error}"}
            print(json.dumps(answer), flush=True)

    netns.enter(Path(path), serve)


if __name__ == "__main__":
    main()
