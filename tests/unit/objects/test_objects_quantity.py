"""Quantities: exact, rounded up, and read back."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.objects import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("1", 1), ("-1", -1), ("+2", 2), ("100m", Fraction(1, 10)), ("1.5", Fraction(3, 2)), (".5", Fraction(1, 2)),
        ("5.", 5), ("1k", 1000), ("1Ki", 1024), ("2Gi", 2**31), ("1.5Gi", 3 * 2**29), ("1e3", 1000), ("1E3", 1000),
        ("1E", 10**18), ("1Ei", 2**60), ("12e-1", Fraction(6, 5)), ("5n", Fraction(5, 10**9)), ("7u", Fraction(7, 10**6)),
        (3, 3), (0.1, Fraction(1, 10)), (1e16, 10**16),
    ],
)  # fmt: skip
def test_parsing(text: Any, value: Any) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1GB", "Gi", "--1", "1e", "1e9999", "0x10", "1,5", "١", "9" * 65, True, "1ki"]
)
def test_what_is_no_quantity(text: Any) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity.parse(text)


def test_rounding_goes_up() -> None:
    assert quantity.whole("1100m") == 2
    assert quantity.whole("-1100m") == -1
    assert quantity.milli("1u") == 1
    assert quantity.amount("limits.cpu", "1.5") == 1500
    assert quantity.amount("memory", "1.5") == 2


@pytest.mark.parametrize(
    ("resource", "amount", "text"),
    [
        ("cpu", 1500, "1500m"), ("requests.cpu", 2000, "2"), ("memory", 2**31, "2Gi"), ("limits.memory", 3 * 2**20, "3Mi"),
        ("memory", 0, "0"), ("memory", 1000, "1000"), ("pods", 1024, "1024"), ("hugepages-2Mi", 2**21, "2Mi"),
    ],
)  # fmt: skip
def test_rendering(resource: str, amount: int, text: str) -> None:
    assert quantity.render(resource, amount) == text


@given(st.sampled_from(["cpu", "memory", "pods", "requests.storage"]), st.integers(0, 2**62))
def test_what_is_rendered_is_read_back(resource: str, amount: int) -> None:
    assert quantity.amount(resource, quantity.render(resource, amount)) == amount


@given(st.text(max_size=8))
def test_nothing_but_value_errors(text: str) -> None:
    try:
        quantity.parse(text)
    except ValueError:
        pass
