"""YAML as manifests may use it: every document with its number; no key twice, no bomb of aliases, no bottomless nesting.

``manifests.py`` makes objects of the documents; a document that cannot be used is a ``ManifestError`` with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from isoplane.objects.yaml_decode import FLOAT, INTEGER, is_too_deep

ALIASED_VALUES = 1_000_000
"""How many values the aliases of one document may stand for, over what is written out."""
NESTING = 200
"""Levels of one document; Kubernetes' own objects have some twenty."""
_SHALLOW = 1000
"""As many openings can do no harm to libyaml's composer, which goes down by recursion and ends the process at some 20,000."""
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.CSafeLoader):
    """Reads unquoted values as the API server does: dates, clock times and ``=`` are text."""


_NUMBERS = {"tag:yaml.org,2002:int": INTEGER, "tag:yaml.org,2002:float": FLOAT}
_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:bool", _MERGE)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern.pattern})\Z"), list("-+.0123456789"))


class ManifestError(ValueError):
    """A manifest that cannot be read: which file, where, what to do."""


def documents(origin: str, content: bytes) -> Iterator[tuple[str, Any]]:
    """Each document that is not empty, with where it stands. Raises ManifestError."""
    number = 0
    try:
        _refuse_depth(origin, content)
        loader = _Loader(content)
        while loader.check_node():
            number += 1
            node = loader.get_node()
            where = f"{origin}, document {number}"
            if node is not None:
                _examine(where, node)
                document = loader.construct_document(node)
                if document is not None:
                    yield where, document
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        if isinstance(error, yaml.MarkedYAMLError) and is_too_deep(error):
            where = f"{origin}, line {error.problem_mark.line + 1}" if error.problem_mark else origin
            raise ManifestError(f"{where}: nested more than {NESTING} levels deep") from error
        raise ManifestError(f"{origin}: not YAML: {_words(error)}{_template(content)}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(f"{origin}, document {number}: a value cannot be read: {_words(error)}") from error


def hint(text: str) -> str:
    """What to add to a message about a value that shows an unrendered template."""
    return f": {_ADVICE}" if _TEMPLATE.search(text) else ""


_ADVICE = "this is an unrendered template ({{ … }}): render it first, for example with `helm template`"


def _template(content: bytes) -> str:
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        if _TEMPLATE.search(line):
            return f"; line {number}: {_ADVICE}"
    return ""


def _words(error: Exception) -> str:
    return " ".join(str(error).split())


def _refuse_depth(origin: str, content: bytes) -> None:
    """Refuse nesting beyond reason before anything is composed. Raises ManifestError, YAMLError."""
    if sum(map(content.count, (b"[", b"{", b"-", b"?"))) <= _SHALLOW and len(content) <= _SHALLOW**2 // 2:
        return  # block mappings go one column to the right at each level
    depth = 0
    for event in yaml.parse(content, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > NESTING:
                where = f"{origin}, line {event.start_mark.line + 1}" if event.start_mark else origin
                raise ManifestError(f"{where}: nested more than {NESTING} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _examine(where: str, root: yaml.Node) -> None:
    """Refuse keys given twice, nesting beyond reason, an alias inside what it stands for, and too much by aliases."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()
    waiting: list[tuple[yaml.Node, int, bool]] = [(root, 0, False)]
    while waiting:
        node, depth, done = waiting.pop()
        children = _children(node)
        if done:
            open_.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            continue
        if id(node) in open_:
            raise ManifestError(f"{_at(where, node)}: an alias stands inside what it stands for")
        if id(node) in sizes:
            continue
        if depth > NESTING:
            raise ManifestError(f"{_at(where, node)}: nested more than {NESTING} levels deep")
        if isinstance(node, yaml.MappingNode):
            _refuse_twice(where, node)
        open_.add(id(node))
        waiting.append((node, depth, True))
        waiting += [(child, depth + 1, False) for child in children]
    if sizes[id(root)] - len(sizes) > ALIASED_VALUES:
        raise ManifestError(f"{where}: its aliases stand for more than {ALIASED_VALUES} values; write them out")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refuse_twice(where: str, node: yaml.MappingNode) -> None:
    seen: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        first = seen.setdefault((key.tag, key.value), key)
        if first is not key:
            line = first.start_mark.line + 1
            raise ManifestError(f"{_at(where, key)}: the key {key.value!r} is given twice, first in line {line}")


def _at(where: str, node: yaml.Node) -> str:
    return f"{where}, line {node.start_mark.line + 1}"
