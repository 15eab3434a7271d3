"""Copies of denied packets from a switch: what a packet-in says, and a reader that outlives its switch."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.network.ovs.packetin import PacketIns, copied, message
from isoplane.node.network.packet import SNAPPED, Seen

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, SET_CONFIG, PACKET_IN = 0, 1, 2, 3, 9, 10
UDP = Seen("10.0.0.1", "10.0.0.2", "UDP", 53)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def frame(ethertype: int = 0x0800) -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(UDP.source), socket.inet_aton(UDP.destination)
    )
    return b"\x02" * 12 + struct.pack("!H", ethertype) + header + struct.pack("!HHHH", 40000, 53, 8, 0)


def packet_in(data: bytes, match: bytes = b"\x80\0\0\x04\0\0\0\x07") -> bytes:
    """Table 39, by an action; ``match`` without its header, here the port it came from."""
    length = 4 + len(match)
    padded = struct.pack("!HH", 1, length) + match + b"\0" * (-length % 8)
    return struct.pack("!IHBBQ", 0xFFFFFFFF, len(data), 1, 39, 0) + padded + b"\0\0" + data


@pytest.mark.parametrize("match", [b"", b"\x80\0\0\x04\0\0\0\x07", b"x" * 13])
def test_reads_the_packet_behind_any_match(match: bytes) -> None:
    assert copied(packet_in(frame(), match)) == UDP


def test_other_frames_are_nobodys() -> None:
    assert copied(packet_in(frame(0x0806))) is None
    assert copied(packet_in(frame()[:20])) is None
    assert copied(b"") is None


@given(st.binary(max_size=200))
def test_nothing_is_too_odd(data: bytes) -> None:
    copied(data)


@contextlib.asynccontextmanager
async def switch(path: Path, serve: Serve) -> AsyncIterator[None]:
    async with await asyncio.start_unix_server(serve, str(path)):
        yield


async def told(packets: list[Seen], count: int) -> None:
    async with asyncio.timeout(10):
        while len(packets) < count:
            await asyncio.sleep(0.005)


async def test_asks_for_copies_answers_echoes_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, asked, packets = tmp_path / "br.mgmt", list[bytes](), list[Seen]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readexactly(8 + 12))
        writer.write(message(HELLO) + message(ECHO_REQUEST, b"?", 7) + message(PACKET_IN, packet_in(frame())))
        asked.append(await reader.readexactly(9))
        writer.close()

    listener = PacketIns(lambda: path, packets.append, again=0.01)
    listener.start()
    try:
        async with switch(path, serve):
            await told(packets, 3)
    finally:
        await listener.close()
    assert set(packets) == {UDP}
    assert asked[0] == message(HELLO) + message(SET_CONFIG, struct.pack("!HH", 0, SNAPPED))
    assert asked[1] == message(ECHO_REPLY, b"?", 7)
    said = [record.getMessage() for record in caplog.records if "not reported" in record.getMessage()]
    assert said, "a switch that went away is said"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (message(HELLO) + message(ERROR, b"\0\x01\0\x05"), "OpenFlow error 00010005"),
        (b"\x01" + message(HELLO)[1:], "speaks OpenFlow 1.0 only"),
        (message(HELLO)[:2] + b"\0\x02" + message(HELLO)[4:], "a message of 2 bytes"),
    ],
)
async def test_a_switch_that_will_not_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: bytes, why: str
) -> None:
    path, tries = tmp_path / "br.mgmt", list[int]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8 + 12)
        writer.write(answer)
        tries.append(1)

    listener = PacketIns(lambda: path, lambda packet: None, again=0.01)
    listener.start()
    try:
        async with switch(path, serve), asyncio.timeout(10):
            while len(tries) < 3:
                await asyncio.sleep(0.005)
    finally:
        await listener.close()
    assert any(why in record.getMessage() for record in caplog.records)


async def test_no_switch_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listener = PacketIns(lambda: tmp_path / "nothing", lambda packet: None, again=0.001)
    listener.start()
    async with asyncio.timeout(10):
        while not caplog.records:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    await listener.close()
    assert len(caplog.records) == 1
