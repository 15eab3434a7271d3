"""What does not belong into the repository: paths of one machine, package indexes, unfinished business."""

from __future__ import annotations

import re

import pytest
from tree_support import ROOT, files

TEXT = (".py", ".md", ".toml", ".txt", ".sh", ".yaml", ".yml", ".json", ".in", ".go", ".cfg", "")
MINE = "tests/tidy/test_words.py"

RULES = {
    "the path of a build machine": re.compile(r"(?<![\w.$}/-])/(?:home|Users)/\w+/"),
    "a package index": re.compile(r"--(?:extra-)?index-url|--trusted-host|--find-links"),
    "unfinished business": re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b"),
}


@pytest.mark.parametrize("what", RULES)
def test_nothing_contains(what: str) -> None:
    found = []
    for path in files(*TEXT):
        if path.as_posix() == MINE or path.name == "LICENSE" or path.name.endswith(".sum"):
            continue
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        if match := RULES[what].search(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{path}:{line}: {match[0]!r}")
    assert not found, f"{what}: " + "; ".join(found)
