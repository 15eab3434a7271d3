"""The two front pages say the same things in the same order: headings, code blocks, lists, links."""

from __future__ import annotations

import re

import pytest
from tree_support import ROOT

PAGES = ("README.md", "README.zh-CN.md")


def shape(name: str) -> list[str]:
    """A page as its structure: a heading, a line of code without its comment, a list item, in order."""
    found: list[str] = []
    for line in (ROOT / name).read_text().splitlines():
        if line.startswith("#"):
            found.append(f"heading {len(line) - len(line.lstrip('#'))}")
        elif line.startswith("    ") and line.strip():
            found.append("code " + re.sub(r"\s+#.*$", "", line.strip()))
        elif line.startswith("- "):
            found.append("item")
    return found


def links(name: str) -> list[str]:
    return sorted(set(re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text())) - set(PAGES))


def test_both_pages_have_one_structure() -> None:
    assert shape(PAGES[0]) == shape(PAGES[1])


def test_both_pages_link_to_the_same() -> None:
    assert links(PAGES[0]) == links(PAGES[1])


@pytest.mark.parametrize("name", PAGES)
def test_both_pages_say_who_is_root(name: str) -> None:
    """Until tenants exist, whoever may create a Pod is root of the machine."""
    text = (ROOT / name).read_text()
    assert re.search(r"create a Pod here is root|谁能创建 Pod，谁就等于这台机器的 root", text)
