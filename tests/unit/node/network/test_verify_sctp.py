"""SCTP's first two packets, made by hand: as RFC 9260 writes them, and answered only where they should be."""

from __future__ import annotations

import struct

from isoplane.node.network.verify import sctp


def test_the_checksum_is_crc32c() -> None:
    """Of the digits 1 to 9 it is 0xe3069283 (RFC 3720, B.4 gives the polynomial; every catalogue this check value)."""
    assert sctp.checksum(b"123456789") == struct.pack("<I", 0xE3069283)
    packet = sctp.init(40000, 80, 7)
    assert sctp.checksum(packet[:8] + bytes(4) + packet[12:]) == packet[8:12]


def test_an_init_is_answered_on_served_ports_alone() -> None:
    asked = sctp.init(40000, 80, 0xDEAD)
    assert struct.unpack_from("!HHI", asked) == (40000, 80, 0), "an INIT carries no tag of the other side yet"
    found = sctp.answer(asked, {80})
    assert found is not None
    assert struct.unpack_from("!HHI", found) == (80, 40000, 0xDEAD)
    assert sctp.checksum(found[:8] + bytes(4) + found[12:]) == found[8:12]
    assert struct.unpack_from("!H", found, 14)[0] == len(found) - 12
    assert sctp.answer(asked, {81}) is None
    assert sctp.answer(found, {40000}) is None, "an answer is no question"
    assert sctp.answer(asked[:20], {80}) is None


def test_only_the_answer_to_its_own_question_counts() -> None:
    found = sctp.answer(sctp.init(40000, 80, 7), {80})
    assert found is not None
    assert sctp.answers(found, 40000, 80, 7)
    assert not sctp.answers(found, 40000, 80, 8)
    assert not sctp.answers(found, 40001, 80, 7)
    assert not sctp.answers(found, 40000, 81, 7)
    assert not sctp.answers(sctp.init(80, 40000, 7), 40000, 80, 7)
    assert not sctp.answers(b"", 40000, 80, 7)
