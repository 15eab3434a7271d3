"""Reads manifests: files, directories, several documents a file, ``-`` for standard input, List objects."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from isoplane.objects.metadata import Object

SUFFIXES = (".yaml", ".yml", ".json")
OUTCOME = "expected.yaml"
"""The outcome that an example must have; it lies beside the manifests and is none."""


class ManifestError(ValueError):
    """A manifest that cannot be read: which file, where, what to do."""


def read(sources: Iterable[str | Path]) -> list[Object]:
    """Every object of the given files and directories, in order of file name. Raises ManifestError."""
    found: list[Object] = []
    for source in sources:
        for origin, text in _texts(source):
            found.extend(_objects(origin, text))
    return found


def _texts(source: str | Path) -> Iterator[tuple[str, str]]:
    if str(source) == "-":
        yield "standard input", sys.stdin.read()
        return
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.name != OUTCOME)
        if not files:
            raise ManifestError(f"{path}: no {', '.join(SUFFIXES)} files in this directory")
    else:
        files = [path]
    for file in files:
        try:
            yield str(file), file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{file}: cannot be read: {error}") from error


def _objects(origin: str, text: str) -> Iterator[Object]:
    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise ManifestError(f"{origin}: not YAML: {' '.join(str(error).split())}") from error
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        yield from _flatten(f"{origin}, document {number}", document)


def _flatten(where: str, document: Any) -> Iterator[Object]:
    if not isinstance(document, dict):
        raise ManifestError(f"{where}: an object is needed, not {type(document).__name__}")
    if "apiVersion" not in document or "kind" not in document:
        raise ManifestError(f"{where}: apiVersion and kind must be set")
    if str(document["kind"]).endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _flatten(where, item)
        return
    yield document
