"""Packets that flows hand to the controller, read from a bridge's OpenFlow socket: OpenFlow 1.4, as little of it as that takes.

One connection that says hello, asks for copies, answers echoes and reads.  How many copies there are, the bridge's meter
bounds (``engines/openvswitch.py``); what they mean is the caller's question.  Source: OpenFlow Switch Specification 1.4.0.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from isoplane.node.network.background import Background
from isoplane.node.network.ovs import jsonrpc
from isoplane.node.network.packet import SNAPPED, Seen, seen
from isoplane.node.network.protocol import FabricFailure

_log = logging.getLogger(__name__)
_VERSION = 5
_HEADER = struct.Struct("!BBHI")
_HELLO, _ERROR, _ECHO_REQUEST, _ECHO_REPLY, _SET_CONFIG, _PACKET_IN = 0, 1, 2, 3, 9, 10
_COPY_FIXED = 16
"""Bytes between the header and the match: buffer, length, reason, table, cookie (A.4.1)."""
_ETHERTYPES = (0x0800, 0x86DD)
AGAIN = 1.0
"""Seconds before a lost connection is tried again."""


def message(kind: int, body: bytes = b"", number: int = 0) -> bytes:
    """One message. ``number`` is what an answer repeats."""
    return _HEADER.pack(_VERSION, kind, _HEADER.size + len(body), number) + body


def copied(body: bytes) -> Seen | None:
    """The packet in a packet-in's body; None for what is no IP packet, or was cut too short to say."""
    try:
        (length,) = struct.unpack_from("!H", body, _COPY_FIXED + 2)
        frame = body[_COPY_FIXED + ((length + 7) & ~7) + 2 :]
        (kind,) = struct.unpack_from("!H", frame, 12)
    except struct.error:
        return None
    return seen(frame[14:]) if kind in _ETHERTYPES else None


class PacketIns:
    """Calls ``tell`` for each packet between :meth:`start` and :meth:`close`. ``management``: the socket of the moment.

    A switch that goes away is waited for; that it cannot be reached is said once.
    """

    def __init__(self, management: Callable[[], Path], tell: Callable[[Seen], None], again: float = AGAIN) -> None:
        self._management, self._tell, self._again = management, tell, again
        self._listening = Background()
        self._lost = False

    def start(self) -> None:
        """Begin to listen, on the running event loop."""
        self._listening.start(self._run())

    async def close(self) -> None:
        """Stop listening."""
        await self._listening.close()

    async def _run(self) -> None:
        while True:
            try:
                async with jsonrpc.connect(self._management()) as (reader, writer):
                    async for packet in self._packets(reader, writer):
                        self._tell(packet)
            except (OSError, EOFError, ValueError, FabricFailure) as error:
                if not self._lost:
                    _log.warning("what Open vSwitch denies is dropped but not reported for now: %s", error)
                self._lost = True
            await asyncio.sleep(self._again)

    async def _packets(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[Seen]:
        # A connection to the management socket gets copies only once it says how many bytes it wants of each.
        writer.write(message(_HELLO) + message(_SET_CONFIG, struct.pack("!HH", 0, SNAPPED)))
        while True:
            version, kind, size, number = _HEADER.unpack(await reader.readexactly(_HEADER.size))
            if size < _HEADER.size:
                raise ValueError(f"the switch sent a message of {size} bytes")
            body = await reader.readexactly(size - _HEADER.size)
            if kind == _ERROR:
                raise ValueError(f"the switch refuses to send copies (OpenFlow error {body[:4].hex()})")
            if kind == _HELLO:
                if version < _VERSION:
                    raise ValueError(f"the switch speaks OpenFlow 1.{version - 1} only, 1.4 is needed")
                if self._lost:
                    _log.info("what Open vSwitch denies is reported again")
                self._lost = False
            elif kind == _ECHO_REQUEST:
                writer.write(message(_ECHO_REPLY, body, number))
            elif kind == _PACKET_IN and (packet := copied(body)) is not None:
                yield packet
