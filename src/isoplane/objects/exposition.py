"""Metrics in Prometheus' text exposition format 0.0.4: what a family is, how it is counted, how it is written.

Whoever assembles the plane registers collectors; they are asked at each scrape and cost nothing between two.  What there
is to measure, and where, is left to them.  Source: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
Kind = Literal["counter", "gauge", "histogram", "summary"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line. ``suffix`` is what follows the family's name, as in ``_bucket``."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Every sample of one metric."""

    name: str
    kind: Kind
    help: str
    samples: Sequence[Sample]


Collector = Callable[[], Iterable[Family]]


class Histogram:
    """Observations in fixed buckets; ``bounds`` are inclusive upper ends in rising order, without infinity."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """Per bucket, not cumulated; the last is beyond every bound."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def samples(self, labels: Mapping[str, str]) -> Iterator[Sample]:
        """Buckets, each with all below it, then sum and count."""
        total = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            yield Sample({**labels, "le": number(bound)}, total, "_bucket")
        yield Sample(labels, self.sum, "_sum")
        yield Sample(labels, total, "_count")


class Registry:
    """The collectors of one server."""

    def __init__(self) -> None:
        self._collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """Ask ``collector`` at every scrape. It runs on the event loop and must not wait."""
        self._collectors.append(collector)

    def families(self) -> dict[str, Family]:
        """By name. Raises ValueError when two collectors tell of one metric: a scrape must not hold it twice."""
        found: dict[str, Family] = {}
        for collector in self._collectors:
            for family in collector():
                if family.name in found:
                    raise ValueError(f"the metric {family.name} is collected twice; register it once")
                found[family.name] = family
        return found

    def render(self) -> bytes:
        """The body of a scrape; families in alphabetical order, those without samples too."""
        families = self.families()
        return render(families[name] for name in sorted(families)).encode()


def render(families: Iterable[Family]) -> str:
    """The exposition."""
    return "".join(line for family in families for line in _lines(family))


def gauge(name: str, help_: str, value: float) -> Family:
    """A family of one sample without labels."""
    return Family(name, "gauge", help_, [Sample({}, value)])


def counter(name: str, help_: str, value: float) -> Family:
    """A family of one sample without labels; ``name`` ends in ``_total``."""
    return Family(name, "counter", help_, [Sample({}, value)])


def number(value: float) -> str:
    """A number as Prometheus reads it, with nothing rounded away."""
    if value == float("inf"):
        return "+Inf"
    if value == float("-inf"):
        return "-Inf"
    if value != value:  # NaN, the only number that is not itself
        return "NaN"
    return str(int(value)) if value == int(value) else repr(float(value))


def _lines(family: Family) -> Iterator[str]:
    help_ = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {family.name} {help_}\n# TYPE {family.name} {family.kind}\n"
    for sample in family.samples:
        yield f"{family.name}{sample.suffix}{_labels(sample.labels)} {number(sample.value)}\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
