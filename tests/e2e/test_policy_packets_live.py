"""A policy changes under live traffic: what it forbids ends, also when the other side talks without pause; the rest goes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from fabric_support import closing, tcp_socket, udp_socket
from isoplane.node.network.engines.nft_guard import QUIET_SECONDS
from policy_lab_support import MIXES, PolicyLab, labs

pytestmark = pytest.mark.root
Start = Callable[..., Awaitable[PolicyLab]]
PORT = 9100


def _objects(app: str) -> list[dict[str, object]]:
    """Two clients and two servers; the servers let in whoever has the label."""
    return [
        {"kind": "Namespace", "metadata": {"name": "a"}},
        *(
            {"kind": kind, "metadata": {"name": name, "namespace": "a", "labels": {"app": name, "role": name}}}
            for kind in ("Pod", "VirtualMachineInstance")
            for name in ("client", "server")
        ),
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": "gate", "namespace": "a"},
            "spec": {
                "podSelector": {"matchLabels": {"role": "server"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}],
            },
        },
    ]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with labs(tmp_path) as begin:

        async def started(mix: str) -> PolicyLab:
            return await begin(mix, _objects("client"), ())

        yield started


PACE = 0.004
"""Seconds between two sends: without pause, and yet leaving the threads that carry a machine's frames their turn, for a frame
that waits there for longer than QUIET_SECONDS is a late answer, too."""


class Talk:
    """A client that sends without pause and a server that answers, over TCP without being asked; counts what arrives.

    A server that sends UDP of its own accord begins a connection of its own, which the policy allows, and so does one that
    answers later than QUIET_SECONDS after the cut: so here it only echoes, and nothing that is older than half of that.
    """

    def __init__(self, kind: str, client: str, server: str, address: str, port: int) -> None:
        make = tcp_socket if kind == "TCP" else udp_socket
        listener = make(server, address)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        self._near = make(client, address)
        if kind == "TCP":
            listener.listen(1)
            self._near.connect((address, port))
            self._far, _ = listener.accept()
            listener.close()
        else:
            self._near.connect((address, port))
            self._near.send(b"hello")
            _, peer = listener.recvfrom(100)
            listener.connect(peer)
            self._far = listener
        self._echo = kind == "UDP"
        self._running = True
        self.arrived = {"near": 0, "far": 0}
        ends = (("near", self._near), ("far", self._far))
        self._threads = [
            threading.Thread(target=work, args=end, daemon=True) for end in ends for work in (self._send, self._receive)
        ]
        for one in ends:
            one[1].settimeout(0.2)
        for thread in self._threads:
            thread.start()

    def _send(self, name: str, end: socket.socket) -> None:
        while self._running and not (self._echo and name == "far"):
            try:
                end.send(struct.pack("!d", time.monotonic()) + b"x" * 92)
            except OSError:
                pass
            time.sleep(PACE)

    def _receive(self, name: str, end: socket.socket) -> None:
        while self._running:
            try:
                data = end.recv(65536)
                self.arrived[name] += len(data)
                if (
                    self._echo
                    and name == "far"
                    and time.monotonic() - struct.unpack_from("!d", data)[0] < QUIET_SECONDS / 2
                ):
                    end.send(data)
            except OSError:
                pass

    def flows(self, seconds: float = 0.5) -> tuple[bool, bool]:
        """Whether anything arrives at the client, and at the server."""
        before = dict(self.arrived)
        time.sleep(seconds)
        return self.arrived["near"] > before["near"], self.arrived["far"] > before["far"]

    def close(self) -> None:
        self._running = False
        for thread in self._threads:
            thread.join()
        self._near.close()
        self._far.close()


@pytest.mark.parametrize("mix", sorted(MIXES))
async def test_what_is_never_answered_ends_too(start: Start, mix: str) -> None:
    """To connection tracking it is new for ever, and its packets pass unasked once the first one did."""
    lab = await start(mix)
    pairs = [("pod", "pod"), ("pod", "vmi"), ("vmi", "pod"), ("vmi", "vmi")]
    running, sent = True, dict.fromkeys(pairs, 0)

    def send(pair: tuple[str, str], sender: socket.socket) -> None:
        while running:
            try:
                sent[pair] += sender.send(b"!")
            except OSError:
                pass
            time.sleep(PACE)

    def arrived(listener: socket.socket) -> bool:
        """Whether anything comes from now on, within half a second."""
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.recv(16)
        listener.settimeout(0.5)
        try:
            return bool(listener.recv(16))
        except TimeoutError:
            return False

    async def arrivals() -> list[bool]:
        return list(await asyncio.gather(*(asyncio.to_thread(arrived, one) for one in listeners)))

    listeners, threads, senders = [], [], []
    for turn, pair in enumerate(pairs):
        near, far = (lab.places[f"{kind}/a/{name}"] for kind, name in zip(pair, ("client", "server"), strict=True))
        address = far.of(6 if turn % 2 else 4)
        listener, sender = udp_socket(far.path, address), udp_socket(near.path, address)
        listener.bind((address, PORT + turn))
        sender.connect((address, PORT + turn))
        listeners.append(listener)
        senders.append(sender)
        threads.append(threading.Thread(target=send, args=(pair, sender), daemon=True))
    with closing(*listeners, *senders):
        for thread in threads:
            thread.start()
        try:
            assert await arrivals() == [True] * 4
            for _ in range(2):
                await lab.load(_objects("nobody"))
                await asyncio.sleep(0.3)  # what was under way arrives
                assert await arrivals() == [False] * 4
                await lab.load(_objects("client"))
                async with asyncio.timeout(20):
                    while await arrivals() != [True] * 4:
                        pass
        finally:
            running = False
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("mix", sorted(MIXES))
@pytest.mark.parametrize("kind", ["TCP", "UDP"])
async def test_live_talk_ends_when_it_is_forbidden(start: Start, mix: str, kind: str) -> None:
    lab = await start(mix)
    pairs = [("pod", "pod"), ("pod", "vmi"), ("vmi", "pod"), ("vmi", "vmi")]

    def talk(source: str, target: str, port: int) -> Talk:
        place = lab.places[target]
        family = 6 if port % 2 == (kind == "TCP") else 4  # each pair in both, one with either protocol
        return Talk(kind, lab.places[source].path, place.path, place.of(family), port)

    forbidden = {
        pair: await asyncio.to_thread(talk, f"{pair[0]}/a/client", f"{pair[1]}/a/server", PORT + turn)
        for turn, pair in enumerate(pairs)
    }
    free = [
        await asyncio.to_thread(talk, "pod/a/client", "vmi/a/client", PORT),
        await asyncio.to_thread(talk, "vmi/a/server", "pod/a/client", PORT),
    ]
    with closing(*forbidden.values(), *free):
        assert await _flows([*forbidden.values(), *free], 0.5) == [(True, True)] * 6
        await lab.load(_objects("nobody"))
        await asyncio.sleep(0.3)  # what was under way arrives
        found = await _flows([*forbidden.values(), *free], 1.5)
        assert dict(zip(pairs, found, strict=False)) == dict.fromkeys(pairs, (False, False))
        assert found[4:] == [(True, True)] * 2, "a connection that nothing forbids was touched"
        if kind == "UDP":  # a cut stream of TCP does not come back: its packets begin nothing
            await lab.load(_objects("client"))
            async with asyncio.timeout(20):
                while await _flows(list(forbidden.values()), 0.5) != [(True, True)] * 4:
                    pass


async def _flows(talks: list[Talk], seconds: float) -> list[tuple[bool, bool]]:
    return list(await asyncio.gather(*(asyncio.to_thread(one.flows, seconds) for one in talks)))
