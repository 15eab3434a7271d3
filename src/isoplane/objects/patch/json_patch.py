"""JSON Patch (RFC 6902) on JSON Pointers (RFC 6901): ``application/json-patch+json``.

A patch that cannot be read is a BadRequest; one that cannot be applied (a missing path, a failed ``test``) is Invalid,
as the Kubernetes API server has it.  Every error names the operation by its index and its path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isoplane.objects.copying import MAX_DEPTH, check_depth, deep_copy, same, weight
from isoplane.objects.errors import BadRequest, Cause, Invalid, TooLarge

MAX_OPERATIONS = 10_000
"""As the Kubernetes API server limits it."""
MAX_STEPS = 2_000_000
"""Values that the operations of one patch may look at, move aside and copy together; text counts by its length too."""
_SHIFTED = 64
"""So many elements of a list that an insertion or removal moves aside count as one step."""


class _Patching:
    """One patch being applied: the document so far and the budget of steps."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.steps = 0

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise TooLarge(f"the JSON patch takes more than {MAX_STEPS} steps; send the object as a whole instead")

    def run(self, operation: dict[str, Any]) -> None:
        name = operation.get("op")
        action = _ACTIONS.get(name) if isinstance(name, str) else None
        if action is None:
            raise BadRequest(f"op {name!r} is not one of {', '.join(sorted(_ACTIONS))}")
        action(self, operation)

    def add(self, operation: dict[str, Any]) -> None:
        value = _value(operation)
        self.spend(weight(value))
        self._put(_pointer(operation, "path"), deep_copy(value), replace=False)

    def remove(self, operation: dict[str, Any]) -> None:
        self._take(_pointer(operation, "path"))

    def replace(self, operation: dict[str, Any]) -> None:
        value = _value(operation)
        self.spend(weight(value))
        self._put(_pointer(operation, "path"), deep_copy(value), replace=True)

    def test(self, operation: dict[str, Any]) -> None:
        path = _pointer(operation, "path")
        # A test against null also passes on an absent member: clients use it to ask for absence.
        wanted = operation.get("value")
        try:
            found = self._get(path)
        except LookupError:
            if wanted is None and path:
                return
            raise
        self.spend(weight(wanted))
        if not same(found, wanted):
            raise LookupError("testing value failed: the document differs")

    def move(self, operation: dict[str, Any]) -> None:
        source, target = _pointer(operation, "from"), _pointer(operation, "path")
        if target[: len(source)] == source and len(target) > len(source):
            raise LookupError("a value cannot be moved into itself")
        if source == target:
            self._get(source)
            return
        value = self._take(source)
        # How deep it nests has to be seen again at its new place.
        self.spend(weight(value))
        self._put(target, value, replace=False)

    def copy(self, operation: dict[str, Any]) -> None:
        value = self._get(_pointer(operation, "from"))
        self.spend(weight(value))
        target = _pointer(operation, "path")
        self._put(target, deep_copy(value), replace=False)

    def _get(self, path: list[str]) -> Any:
        current = self.document
        self.spend(len(path) + 1)
        for token in path:
            current = _child(current, token)
        return current

    def _put(self, path: list[str], value: Any, *, replace: bool) -> None:
        # Checked at every step: many small operations could otherwise build what no single one may hold.
        check_depth(value, MAX_DEPTH - len(path))
        if not path:
            self.document = value
            return
        parent, token = self._get(path[:-1]), path[-1]
        if isinstance(parent, dict):
            if replace and token not in parent:
                raise LookupError(f"missing key {token!r}")
            parent[token] = value
        elif isinstance(parent, list):
            if replace:
                parent[_index(token, len(parent) - 1)] = value
            else:
                self.spend(len(parent) // _SHIFTED)
                parent.insert(len(parent) if token == "-" else _index(token, len(parent)), value)
        else:
            raise LookupError(f"{token!r} lies under a value that is neither object nor array")

    def _take(self, path: list[str]) -> Any:
        if not path:
            raise LookupError("the whole document cannot be removed")
        parent, token = self._get(path[:-1]), path[-1]
        value = _child(parent, token)
        if isinstance(parent, dict):
            del parent[token]
        else:
            self.spend(len(parent) // _SHIFTED)
            del parent[_index(token, len(parent) - 1)]
        return value


_ACTIONS: dict[str, Callable[[_Patching, dict[str, Any]], None]] = {
    "add": _Patching.add, "remove": _Patching.remove, "replace": _Patching.replace,
    "move": _Patching.move, "copy": _Patching.copy, "test": _Patching.test,
}  # fmt: skip


def apply_json(obj: Any, operations: Any) -> Any:
    """The object after all operations, in order. Raises BadRequest (unreadable) or Invalid (not applicable)."""
    if not isinstance(operations, list):
        raise BadRequest("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise BadRequest(f"the JSON patch has {len(operations)} operations; {MAX_OPERATIONS} are allowed")
    patching = _Patching(deep_copy(obj))
    for index, operation in enumerate(operations):
        if not isinstance(operation, dict):
            raise BadRequest(f"JSON patch operation {index} is not an object")
        try:
            patching.run(operation)
        except LookupError as error:
            path = str(operation.get("path"))
            text = f"{operation['op']} operation does not apply: {error.args[0]}"
            raise Invalid(
                f"the server rejected our request due to an error in our request: JSON patch operation {index} "
                f"at {path!r}: {text}",
                causes=[Cause(path, text)],
            ) from None
        except BadRequest as error:
            raise BadRequest(f"JSON patch operation {index}: {error.message}") from None
    return patching.document


def _pointer(operation: dict[str, Any], member: str) -> list[str]:
    text = operation.get(member)
    if not isinstance(text, str):
        raise BadRequest(f"{operation.get('op')} needs {member!r}, a JSON pointer")
    if not text:
        return []
    if not text.startswith("/"):
        raise BadRequest(f"{text!r} is not a JSON pointer: it must start with '/'")
    return [token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/")]


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise BadRequest(f"{operation['op']} needs a 'value'")
    return operation["value"]


def _child(parent: Any, token: str) -> Any:
    if isinstance(parent, dict):
        if token not in parent:
            raise LookupError(f"missing key {token!r}")
        return parent[token]
    if isinstance(parent, list):
        return parent[_index(token, len(parent) - 1)]
    raise LookupError(f"{token!r} lies under a value that is neither object nor array")


def _index(token: str, last: int) -> int:
    # isascii: str.isdigit accepts other scripts' digits, which RFC 6901 does not.
    if not (token.isascii() and token.isdigit()) or (len(token) > 1 and token[0] == "0") or len(token) > 9:
        raise LookupError(f"{token!r} is not an array index")
    index = int(token)
    if index > last:
        raise LookupError(f"index {index} is outside the array")
    return index
