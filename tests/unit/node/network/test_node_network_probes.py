"""The probes of the packet tests, on loopback: they must not wait for what they themselves hold up."""

from __future__ import annotations

from isoplane.node.network.verify.probes import EchoServer, tcp_reaches
from support import free_port


def test_more_than_all_buffers_hold_is_echoed() -> None:
    """A client that sends all before it reads waits for ever on a server that echoes."""
    port = free_port()
    server = EchoServer("", port)
    try:
        assert tcp_reaches("", "127.0.0.1", port, b"x" * 100_000_000, timeout=10)
    finally:
        server.close()


def test_a_port_where_nobody_listens_is_not_reached() -> None:
    assert not tcp_reaches("", "127.0.0.1", free_port())
