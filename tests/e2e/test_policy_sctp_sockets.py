"""SCTP by the kernel's own sockets, where it has them: associations that the policy allows are made, others are not.

The packet suite sends SCTP packets of its own making everywhere; this is for hosts such as tools/second_host.py's.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from fabric_support import spare_range
from isoplane.node.network import netns
from policy_lab_support import PolicyLab
from support import require

pytestmark = pytest.mark.root
PORT, OTHER_PORT = 9999, 9998


def sctp_socket(path: str) -> socket.socket:
    return netns.enter(Path(path), lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP))


def has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def objects() -> list[dict[str, Any]]:
    rule = {
        "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
        "ports": [{"protocol": "SCTP", "port": PORT}],
    }
    spec = {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [rule]}
    return [
        {"kind": "Namespace", "metadata": {"name": "a"}},
        *(
            {"kind": "Pod", "metadata": {"name": app, "namespace": "a", "labels": {"app": app}}}
            for app in ("client", "server", "stranger")
        ),
        {"kind": "NetworkPolicy", "metadata": {"name": "gate", "namespace": "a"}, "spec": spec},
    ]


def talks(path: str, address: str, port: int) -> bool:
    """Whether an association is made and carries an answer."""
    with sctp_socket(path) as client:
        client.settimeout(3)
        try:
            client.connect((address, port))
            client.sendall(b"hello")
            return client.recv(100) == b"hello"
        except OSError:
            return False


def answer_once(listener: socket.socket) -> None:
    try:
        peer, _ = listener.accept()
    except OSError:
        return
    with peer:
        peer.sendall(peer.recv(100))


@pytest.mark.parametrize("mix", ["iptables", "nftables", "openvswitch"])
async def test_associations_follow_the_policy(tmp_path: Path, mix: str) -> None:
    require("ovs-vswitchd", "ovsdb-server", "dnsmasq", "nft", "ipset", root=True)
    if not has_sctp():
        pytest.skip("this kernel has no SCTP sockets")
    lab = PolicyLab(tmp_path, spare_range(), mix, (), serve=())
    try:
        await lab.start(objects())
        server, client, stranger = (lab.places[f"pod/a/{name}"] for name in ("server", "client", "stranger"))
        listeners = [sctp_socket(server.path) for _ in range(2)]
        for listener, port in zip(listeners, (PORT, OTHER_PORT), strict=True):
            listener.bind((server.address, port))
            listener.listen(8)
            listener.settimeout(10)
        answering = asyncio.gather(*(asyncio.to_thread(answer_once, listener) for listener in listeners))
        asked = ((client, PORT), (client, OTHER_PORT), (stranger, PORT))
        got = [await asyncio.to_thread(talks, place.path, server.address, port) for place, port in asked]
        for listener in listeners:
            listener.close()
        await answering
        assert got == [True, False, False]
    finally:
        await lab.stop()
