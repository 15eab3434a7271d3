"""Reads manifests: files, directories, several documents a file, ``-`` for standard input, List objects."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoplane.cli.yaml_documents import ManifestError, documents, hint
from isoplane.objects.metadata import Object

SUFFIXES = (".yaml", ".yml", ".json")
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An object and where it is written: file, document, item of a list."""

    where: str
    obj: Object


def read(sources: Iterable[str | Path], *, tell: Tell | None = None) -> list[Object]:
    """Every object of the given files and directories, in order of file name. Raises ManifestError."""
    return [manifest.obj for manifest in located(sources, tell=tell)]


def located(sources: Iterable[str | Path], *, recursive: bool = False, tell: Tell | None = None) -> list[Manifest]:
    """As ``read``, each object with where it stands; ``recursive`` goes into the directories of directories.

    With ``tell``, what was not read of a directory is told to it: directories inside, and documents that are no
    Kubernetes objects; without, such a document is an error, as it always is in a file that was named.
    """
    found: list[Manifest] = []
    for source in sources:
        heard = tell if Path(source).is_dir() else None
        for origin, content in _contents(source, recursive, heard):
            for where, document in documents(origin, content):
                if heard is not None and _missing(document):
                    heard(f"{where}: passed over, not a Kubernetes object")
                    continue
                found.extend(Manifest(*each) for each in _flatten(where, document))
    return found


def places(read: Iterable[Manifest], objects: Iterable[Mapping[str, Any]]) -> list[str]:
    """Where these objects are written, as far as they were read from manifests."""
    listed = list(read)
    found = [
        [m.where for m in listed if m.obj is obj] or [m.where for m in listed if _same(m.obj, obj)] for obj in objects
    ]
    return list(dict.fromkeys(where for each in found for where in each))


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two objects are one, the second perhaps with the status that the running one has."""
    return all(one.get(key) == other.get(key) for key in ("apiVersion", "kind", "metadata"))


def _contents(source: str | Path, recursive: bool, tell: Tell | None) -> Iterator[tuple[str, bytes]]:
    if str(source) == "-":
        yield "standard input", sys.stdin.buffer.read()
        return
    path = Path(source)
    for file in _files(path, recursive, tell) if path.is_dir() else [path]:
        try:
            yield str(file), file.read_bytes()
        except OSError as error:
            raise ManifestError(f"{file}: cannot be read: {error.strerror}") from error


def _files(directory: Path, recursive: bool, tell: Tell | None) -> list[Path]:
    """The manifests of a directory. Raises ManifestError when there are none."""
    found: list[Path] = []
    inner: list[str] = []
    for here, directories, names in os.walk(directory, onerror=_unreadable):
        directories.sort()
        found += sorted(Path(here, name) for name in names if name.endswith(SUFFIXES))
        if not recursive:
            inner = list(directories)
            break
    unread = (
        f"not read, as they lie in directories of their own: {', '.join(inner)}; -R reads them too" if inner else ""
    )
    if not found:
        told = f"{directory}: no {', '.join(SUFFIXES)} files in this directory"
        raise ManifestError(f"{told} ({unread})" if unread else told)
    if unread and tell is not None:
        tell(f"{directory}: {unread}")
    return found


def _unreadable(error: OSError) -> None:
    raise ManifestError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _missing(document: Any) -> bool:
    return not (isinstance(document, dict) and document.get("apiVersion") and document.get("kind"))


def _flatten(where: str, document: Any) -> Iterator[tuple[str, Object]]:
    if not isinstance(document, dict):
        raise ManifestError(f"{where}: an object is needed, not {type(document).__name__}")
    if _missing(document):
        raise ManifestError(f"{where}: apiVersion and kind must be set")
    kind = str(document["kind"])
    if kind.endswith("List") and isinstance(document.get("items"), list):
        for index, item in enumerate(document["items"]):
            # The items of a typed list, as an API server answers it, need not say what they are.
            typed = isinstance(item, dict) and kind != "List" and _missing(item)
            named = {"apiVersion": document["apiVersion"], "kind": kind.removesuffix("List")}
            yield from _flatten(f"{where}, items[{index}]", {**named, **item} if typed else item)
        return
    yield where, document


__all__ = ["Manifest", "ManifestError", "hint", "located", "places", "read"]
