"""Addresses and prefixes as integers, so that the compiler and the renderers compare and split them cheaply.

Text enters through ``address`` and ``prefix`` and leaves through ``text``; everything between is arithmetic.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

BITS = {4: 32, 6: 128}
_OCTETS = {str(number): number for number in range(256)}


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """A network: ``family`` 4 or 6, ``network`` with all host bits zero, ``length`` in bits."""

    family: int
    network: int
    length: int

    @property
    def last(self) -> int:
        """The highest address in it."""
        return self.network | ((1 << (BITS[self.family] - self.length)) - 1)

    def covers(self, other: Prefix) -> bool:
        """Whether every address of ``other`` is in this one."""
        if self.family != other.family or self.length > other.length:
            return False
        shift = BITS[self.family] - self.length
        return self.network >> shift == other.network >> shift

    def __str__(self) -> str:
        return f"{text(self.family, self.network)}/{self.length}"


@lru_cache(maxsize=1 << 18)
def address(value: str) -> tuple[int, int]:
    """(family, number) of an address. Raises ValueError when it is not one; zone indices are refused."""
    if (number := _dotted(value)) is not None:
        return 4, number
    parsed = ipaddress.ip_address(value)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id:
        raise ValueError(f"{value!r} has a zone index; write the plain address")
    return parsed.version, int(parsed)


def _dotted(value: str) -> int | None:
    """The number of a plain IPv4 address; None leaves the text to ``ipaddress``, which is five times slower."""
    parts = value.split(".")
    if len(parts) != 4:
        return None
    number = 0
    for part in parts:
        octet = _OCTETS.get(part)
        if octet is None:
            return None
        number = number << 8 | octet
    return number


def prefix(value: str) -> Prefix:
    """A prefix from CIDR text; host bits are cleared, as the Kubernetes API does. Raises ValueError."""
    if "/" not in value:
        raise ValueError(f"{value!r} has no prefix length; write for example {value}/32")
    parsed = ipaddress.ip_network(value, strict=False)
    if not value.rpartition("/")[2].isdecimal():
        raise ValueError(f"{value!r}: write the prefix length as a number")
    return Prefix(parsed.version, int(parsed.network_address), parsed.prefixlen)


def host(family: int, number: int) -> Prefix:
    """The prefix of exactly one address."""
    return Prefix(family, number, BITS[family])


def text(family: int, number: int) -> str:
    """The canonical text of an address."""
    return str(ipaddress.IPv4Address(number) if family == 4 else ipaddress.IPv6Address(number))


def intervals(prefixes: Iterable[tuple[int, int, int]], family: int) -> Iterator[tuple[int, int, int]]:
    """Nested ``(network, length, class)`` by longest prefix, flattened to disjoint ``(low, high, class)`` in order.

    Neighbours of one class are joined.  Addresses that no prefix covers are not part of the result.
    """
    bits = BITS[family]
    pending: tuple[int, int, int] | None = None
    for low, high, value in _flatten(sorted(prefixes), bits):
        if pending and pending[2] == value and pending[1] + 1 == low:
            pending = (pending[0], high, value)
            continue
        if pending:
            yield pending
        pending = (low, high, value)
    if pending:
        yield pending


def _flatten(ordered: list[tuple[int, int, int]], bits: int) -> Iterator[tuple[int, int, int]]:
    """Walk prefixes in (network, length) order, a parent before its children, keeping the open parents on a stack."""
    stack: list[tuple[int, int]] = []  # (last address, class)
    position = 0
    for network, length, value in ordered:
        while stack and stack[-1][0] < network:
            last, outer = stack.pop()
            if position <= last:
                yield position, last, outer
                position = last + 1
        if stack and position < network:
            yield position, network - 1, stack[-1][1]
        position = network
        stack.append((network | ((1 << (bits - length)) - 1), value))
    while stack:
        last, outer = stack.pop()
        if position <= last:
            yield position, last, outer
            position = last + 1


def cover(low: int, high: int, bits: int) -> Iterator[tuple[int, int]]:
    """The fewest aligned ``(value, length)`` blocks that cover exactly low..high of a ``bits`` wide number."""
    while low <= high:
        size = (low & -low).bit_length() - 1 if low else bits
        while (1 << size) > high - low + 1:
            size -= 1
        yield low, bits - size
        low += 1 << size
