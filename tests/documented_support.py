"""What the pages tell people to type: the commands of a page's code blocks, in order, with the output shown under each."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4,}\S.*\n(?:^[ \t]*\n(?=^ {4,}\S))*)+", re.MULTILINE)
_COMMAND = re.compile(
    r"^(?:\$ )?((?:sudo |export |cd )?(?:isoplane|kubectl|make|git|python|KUBECONFIG=|\.venv/bin/\S+).*)$"
)
_REMARK = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Step:
    """One command, and the lines that the page shows as its output."""

    command: str
    output: tuple[str, ...] = ()


def blocks(text: str) -> list[str]:
    """The indented and fenced code blocks of a page, in its order. A list's continuation is no block."""
    found = [(match.start(), match[2]) for match in FENCE.finditer(text)]
    blank = FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for match in _INDENTED.finditer(blank):
        before = blank[: match.start()].rstrip("\n").rpartition("\n")[2]
        if not re.match(r"\s*([-*]|\d+\.) ", before):
            found.append((match.start(), textwrap.dedent(match[0])))
    return [block for _, block in sorted(found)]


def steps(page: Path) -> list[Step]:
    """Every command of a page's code blocks."""
    found: list[Step] = []
    for block in blocks(page.read_text()):
        here: list[Step] = []
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            match = _COMMAND.match(line)
            if match is not None:
                here.append(Step(_REMARK.sub("", match[1]).strip()))
            elif here and line.strip():
                here[-1] = Step(here[-1].command, (*here[-1].output, line))
        found += here
    return found
