"""Reads manifests: files, directories, several documents a file, ``-`` for standard input, List objects."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from isoplane.objects.metadata import Object

SUFFIXES = (".yaml", ".yml", ".json")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ManifestError(ValueError):
    """A manifest that cannot be read: which file, where, what to do."""


def read(sources: Iterable[str | Path], *, passed_over: Callable[[str], None] | None = None) -> list[Object]:
    """Every object of the given files and directories, in order of file name. Raises ManifestError.

    With ``passed_over``, what lies in a directory and is no Kubernetes object is told to it; without, it is an error, as
    it always is in a file that was named.
    """
    found: list[Object] = []
    for source in sources:
        tell = passed_over if Path(source).is_dir() else None
        for origin, content in _contents(source):
            for where, document in _documents(origin, content):
                if tell is not None and _missing(document):
                    tell(f"{where}: passed over, not a Kubernetes object")
                    continue
                found.extend(_flatten(where, document))
    return found


def _contents(source: str | Path) -> Iterator[tuple[str, bytes]]:
    if str(source) == "-":
        yield "standard input", sys.stdin.buffer.read()
        return
    path = Path(source)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and p.is_file())
        if not files:
            raise ManifestError(f"{path}: no {', '.join(SUFFIXES)} files in this directory")
    else:
        files = [path]
    for file in files:
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise ManifestError(f"{file}: cannot be read: {error.strerror}") from error


def _documents(origin: str, content: bytes) -> Iterator[tuple[str, Any]]:
    """Each document that is not empty, with where it stands."""
    try:
        for number, document in enumerate(yaml.load_all(content, Loader=_LOADER), 1):
            if document is not None:
                yield f"{origin}, document {number}", document
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{origin}: not YAML: {' '.join(str(error).split())}") from error


def _missing(document: Any) -> bool:
    return not (isinstance(document, dict) and document.get("apiVersion") and document.get("kind"))


def _flatten(where: str, document: Any) -> Iterator[Object]:
    if not isinstance(document, dict):
        raise ManifestError(f"{where}: an object is needed, not {type(document).__name__}")
    if _missing(document):
        raise ManifestError(f"{where}: apiVersion and kind must be set")
    kind = str(document["kind"])
    if kind.endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            # The items of a typed list, as an API server answers it, need not say what they are.
            typed = isinstance(item, dict) and kind != "List" and _missing(item)
            named = {"apiVersion": document["apiVersion"], "kind": kind.removesuffix("List")}
            yield from _flatten(where, {**named, **item} if typed else item)
        return
    yield document
