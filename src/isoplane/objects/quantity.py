"""Kubernetes quantities: ``100m``, ``1.5``, ``2Gi``, ``1e3`` to exact integers and back.

Inside isoplane every amount is an integer: CPU in millicores, everything else in whole units (bytes, counts).
Rounding goes up, as Kubernetes does, so that nobody asks for nothing.  Source: apimachinery pkg/api/resource.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_SUFFIX: dict[str, Fraction] = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40), "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}  # fmt: skip
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_PATTERN = re.compile(r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:([eE][+-]?[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")
_MAX_LENGTH = 64
MAX_AMOUNT = 2**63 - 1
"""The greatest amount, in isoplane's unit for it (millicores, bytes): what Kubernetes' own 64-bit arithmetic holds."""


@lru_cache(maxsize=4096)
def _parse(text: str) -> Fraction:
    match = _PATTERN.fullmatch(text)
    if match is None or len(text) > _MAX_LENGTH:
        raise ValueError(f"{text!r} is not a quantity: write a number with an optional suffix, such as 500m, 2 or 1Gi")
    sign, number, exponent, suffix = match.groups()
    value = Fraction(number)
    if exponent:
        value *= Fraction(10) ** int(exponent[1:])
    else:
        value *= _SUFFIX[suffix or ""]
    return -value if sign == "-" else value


def parse(quantity: str | int | float) -> Fraction:
    """The exact value. Raises ValueError with a hint when it is not a quantity."""
    if isinstance(quantity, bool):
        raise ValueError(f"{quantity!r} is not a quantity")
    return _parse(str(quantity).strip() if not isinstance(quantity, str) else quantity)


def _ceil(value: Fraction) -> int:
    found = -((-value.numerator) // value.denominator)
    if not -MAX_AMOUNT <= found <= MAX_AMOUNT:
        raise ValueError("the amount does not fit into 64 bits: write a smaller one")
    return found


@lru_cache(maxsize=4096, typed=True)
def whole(quantity: str | int | float) -> int:
    """The amount in whole units (bytes, counts), rounded up."""
    return _ceil(parse(quantity))


@lru_cache(maxsize=4096, typed=True)
def milli(quantity: str | int | float) -> int:
    """The amount in thousandths (millicores), rounded up."""
    return _ceil(parse(quantity) * 1000)


@lru_cache(maxsize=1024)
def is_cpu(resource: str) -> bool:
    """Whether a resource name (``cpu``, ``requests.cpu``, ``limits.cpu``, ``requests.cpu/vmi``) is counted in millicores."""
    return resource == "cpu" or resource.endswith((".cpu", ".cpu/vmi"))


@lru_cache(maxsize=1024)
def is_bytes(resource: str) -> bool:
    """Whether a resource name (``memory``, ``requests.storage``) is counted in bytes."""
    last = resource.rpartition(".")[2]
    return last in ("memory", "storage", "ephemeral-storage", "memory/vmi") or "hugepages-" in resource


@lru_cache(maxsize=8192, typed=True)
def amount(resource: str, quantity: str | int | float) -> int:
    """A quantity of the named resource in isoplane's unit for it: millicores for CPU, whole units otherwise."""
    return milli(quantity) if is_cpu(resource) else whole(quantity)


def render(resource: str, value: int) -> str:
    """The canonical text of an amount: ``1500`` of cpu is ``1500m``, ``2147483648`` of memory is ``2Gi``."""
    if is_cpu(resource):
        return str(value // 1000) if value % 1000 == 0 else f"{value}m"
    if value and is_bytes(resource):
        zeros = (value & -value).bit_length() - 1
        step = min(zeros // 10, len(_BINARY) - 1)
        return f"{value >> 10 * step}{_BINARY[step]}"
    return str(value)


def approximate(resource: str, value: int) -> str:
    """An amount for people: bytes that are no round number as ``856.4Mi`` or ``1.3Gi``, all else as ever."""
    exact = render(resource, value)
    if not is_bytes(resource) or value < 2**20 or (exact.endswith(_BINARY[2:]) and len(exact) <= _SHORT):
        return exact
    unit, name = (2**30, "Gi") if value >= 2**30 else (2**20, "Mi")
    return (f"{value / unit:.1f}" if value % unit else str(value // unit)) + name


_SHORT = 5
"""An amount of no more characters is left as it is: ``800Mi``."""
