"""Documentation does not outlive its code: links lead somewhere, commands exist, generated pages are fresh."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from tree_support import ROOT, files
from typer.testing import CliRunner

from documented_support import FENCE
from isoplane.cli.main import COMMANDS, app

PAGES = [path for path in files(".md") if path.parts[0] not in ("requirements",)]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")


@cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def commands() -> dict[str, tuple[Any, Any]]:
    """``isoplane policy explain`` → (the command, its context)."""
    root = typer.main.get_command(app)
    return {path: (command, context) for path, command, context in generator().commands(root, "isoplane")}


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text())
    return {slug(match) for match in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", (ROOT / page).read_text())
    dead = []
    for groups in LINK.findall(text):
        target = next(filter(None, groups))
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        where = (ROOT / page).parent / path if path else ROOT / page
        lost = bool(anchor) and where.suffix == ".md" and where.exists() and anchor not in anchors(where)
        if lost or not where.exists():
            dead.append(target)
    assert not dead, f"{page}: {dead}"


def written_commands(page: Path) -> list[list[str]]:
    """Every isoplane command line in a page: in fences and indented blocks (after an optional prompt) and in `code`."""
    text = (ROOT / page).read_text()
    lines = [line for _, block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^ {4,}(\S.*)$", FENCE.sub("", text).replace("\\\n", " "), re.MULTILINE)
    lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    found = []
    for line in lines:
        match = re.match(r"^\s*(?:[$#%]\s+)?(?:sudo\s+)?(?:\.venv/bin/|\S*/bin/)?(isoplane(?:\s.*)?)$", line)
        if match is None:
            continue
        try:
            words = shlex.split(re.split(r"\s[|>&;#]|\s\(", match[1])[0])
        except ValueError:
            continue
        found.append(words)
    return found


@pytest.mark.parametrize("page", [p for p in PAGES if p.as_posix() != "docs/reference/cli.md"], ids=str)
def test_documented_commands_exist(page: Path) -> None:
    wrong = []
    for words in written_commands(page):
        path = words[0]
        rest = words[1:]
        while rest and f"{path} {rest[0]}" in commands():
            path += f" {rest.pop(0)}"
        command, context = commands()[path]
        is_group = hasattr(command, "list_commands")
        if is_group and rest and not re.match(r"[-\[<A-Z…|.]", rest[0]) and "|" not in rest[0]:
            wrong.append(f"{' '.join(words)}: no such command")
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        known |= {"--help", "-h", *context.help_option_names}
        for word in rest:
            option = word.strip("[]").split("=", 1)[0]
            if re.fullmatch(r"--[a-z][a-z-]*", option) and option not in known and not is_group:
                wrong.append(f"{' '.join(words)}: no option {option}")
    assert not wrong, f"{page}: " + "; ".join(wrong)


def test_every_command_is_documented_by_hand() -> None:
    """The generated reference does not count: a command nobody tells about is not there for people."""
    pages = [page for page in PAGES if "reference" not in page.parts]
    told = {" ".join(words[:2]) for page in pages for words in written_commands(page) if len(words) > 1}
    assert not {f"isoplane {name}" for name in COMMANDS} - told


def test_every_command_has_help() -> None:
    silent = [path for path, (command, _) in commands().items() if not (command.help or "").strip()]
    assert not silent
    unexplained = [
        f"{path} {parameter.opts[0]}"
        for path, (command, _) in commands().items()
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden and not (parameter.help or "").strip()
    ]
    assert not unexplained, "options without a word of help: " + ", ".join(unexplained)


@pytest.mark.parametrize("name", ["cli.md", "fields.md", "lifecycle.md"])
def test_the_generated_reference_is_fresh(name: str) -> None:
    path = ROOT / "docs" / "reference" / name
    assert path.exists(), "run `make docs`"
    assert path.read_text() == generator().pages()[path], f"{name} is out of date: run `make docs`"


def test_lifecycle_prints_what_it_is_generated_from() -> None:
    runner = CliRunner()
    table = runner.invoke(app, ["lifecycle"])
    assert table.exit_code == 0
    assert "Preparing" in table.stdout
    told = json.loads(runner.invoke(app, ["lifecycle", "--output", "json"]).stdout)
    assert [stage["stage"] for stage in told["stages"]][:3] == ["Accepted", "Gated", "Placed"]
    markdown = runner.invoke(app, ["lifecycle", "-o", "markdown"]).stdout
    assert markdown == (ROOT / "docs" / "reference" / "lifecycle.md").read_text()


def test_no_two_examples_name_the_same_object() -> None:
    """So that every guide can be followed on one plane, one after the other."""
    seen: dict[tuple[str, str, str], set[str]] = {}
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        folder = path.relative_to(ROOT / "examples").parts
        if "expected" in folder:
            continue
        for obj in yaml.safe_load_all(path.read_text()):
            if isinstance(obj, dict) and isinstance(obj.get("metadata"), dict) and obj["metadata"].get("name"):
                meta = obj["metadata"]
                seen.setdefault((obj["kind"], str(meta.get("namespace") or ""), meta["name"]), set()).add(folder[0])
    twice = {key: sorted(folders) for key, folders in seen.items() if len(folders) > 1}
    assert not twice
