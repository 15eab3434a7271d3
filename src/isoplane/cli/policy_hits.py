"""``isoplane policy hits``: how often each policy's rule decided, from a running plane's own metrics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isoplane.cli.terminal import find_kubeconfig
from isoplane.client.http import HttpApi
from isoplane.node.metrics import RULE_HITS

_SAMPLE = re.compile(rf"^{RULE_HITS}\{{(.*)\}} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LEFT_OUT = re.compile(r"^isoplane_network_policy_rules_left_out (\d+)", re.MULTILINE)


@dataclass(slots=True)
class RuleRow:
    """One rule of one policy. ``hits``: engine → connections of which it decided there."""

    policy: str
    rule: str
    direction: str
    hits: dict[str, int] = field(default_factory=dict)

    @property
    def never(self) -> bool:
        """Whether no engine has seen it decide."""
        return not any(self.hits.values())

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "never": self.never}


def fetch(kubeconfig: Path | None) -> tuple[list[RuleRow], int]:
    """Every rule, in the plane's order, and how many more there are. Raises ApiError, KubeconfigProblem, OSError."""
    return parse(asyncio.run(_metrics(find_kubeconfig(kubeconfig))))


async def _metrics(kubeconfig: Path | None) -> str:
    async with HttpApi.from_kubeconfig(kubeconfig) as api:
        return await api.text("/metrics")


def parse(exposition: str) -> tuple[list[RuleRow], int]:
    """The same of a scrape's text."""
    rows: dict[tuple[str, str], RuleRow] = {}
    for labels, value in _SAMPLE.findall(exposition):
        told = {name: re.sub(r"\\(.)", r"\1", text) for name, text in _LABEL.findall(labels)}
        key = (told["policy"], told["rule"])
        row = rows.setdefault(key, RuleRow(*key, told["direction"]))
        row.hits[told["engine"]] = int(float(value))
    left_out = _LEFT_OUT.search(exposition)
    return list(rows.values()), int(left_out[1]) if left_out else 0


def table(rows: Iterable[RuleRow]) -> Iterator[tuple[str, ...]]:
    """Lines of columns, the heads first; a dash where an engine does not count a rule."""
    listed = list(rows)
    engines = sorted({engine for row in listed for engine in row.hits})
    yield ("RULE", "DIRECTION", *map(str.upper, engines))
    for row in listed:
        yield (row.rule, row.direction, *(str(row.hits.get(engine, "-")) for engine in engines))
