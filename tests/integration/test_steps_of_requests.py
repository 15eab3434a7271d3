"""Requests that grow: their steps grow with them and not faster, and each list ends at a bound that is told.

Steps are calls of functions, Python's and C's, as the interpreter counts them: no time is measured.  What one C call does to a
long list is not seen by that; comparisons against lists in loops are looked for in the text of the program instead.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from test_mutations import examples, places, with_value

from isoplane.http.request_options import Call
from isoplane.objects import remembered
from isoplane.objects.copying import count
from isoplane.objects.decode import MAX_VALUES, decode_body, decode_patch
from isoplane.objects.errors import ApiError, Invalid, TooLarge
from isoplane.objects.kinds import PODS, RESOURCEQUOTAS, of
from isoplane.objects.metadata import Object
from isoplane.objects.schema.bounds import MOST_ITEMS
from isoplane.objects.schema.sources import definitions
from isoplane.objects.validation import validate_update
from isoplane.objects.yaml_decode import MAX_EVENTS
from isoplane.plane import admission_plugins
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.verbs import Verbs
from isoplane.store import Store

SMALL, LARGE = 60, 240
GROWTH = LARGE / SMALL * 1.6
"""So many times the steps may be, where the part that grows is all there is; a square would be 16 times."""
FEW = 1000
"""Below so many steps some checks are left out; 240 things compared with each other are 57,600."""


def distinct(value: Any, number: int) -> Any:
    """A copy that differs from others wherever it has a name, a key, a port or an address of its own."""
    if isinstance(value, dict):
        made = {
            key: distinct(child, number) if isinstance(child, (dict, list)) else child for key, child in value.items()
        }
        for key in ("name", "key", "mountPath", "cidr"):
            if isinstance(made.get(key), str) and made[key] != "v":
                made[key] = f"10.{number >> 8}.{number & 255}.0/24" if key == "cidr" else f"{made[key]}{number}"
        for key in ("containerPort", "port", "endPort"):
            if isinstance(made.get(key), int):
                made[key] += number
        return made
    if isinstance(value, list):
        return [distinct(child, number) for child in value]
    return f"{value}{number}" if isinstance(value, str) else value


def grown(obj: Object, path: tuple[Any, ...], number: int) -> Object:
    value: Any = obj
    for key in path:
        value = value[key]
    if isinstance(value, list):
        return with_value(obj, path, [distinct(value[0], at) for at in range(number)])
    return with_value(
        obj, path, {f"{key}{at}": child for at in range(number) for key, child in [next(iter(value.items()))]}
    )


def growing() -> Iterator[tuple[Object, tuple[Any, ...]]]:
    for obj in examples():
        for path in places(obj):
            value: Any = obj
            for key in path:
                value = value[key]
            if value and (isinstance(value, list) or path[-1] in ("data", "labels", "matchLabels", "hard", "requests")):
                yield obj, path


class Steps:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        self.count += event in ("call", "c_call")


async def steps_of(verbs: Verbs, obj: Object, how: str) -> int:
    """How many calls one request takes, from its bytes on; refused or not."""
    resource = of(obj)
    namespace = "default" if resource.namespaced else ""
    call = Call(dry_run=True, force=True, manager="test", field_validation="Warn")
    body = orjson.dumps(obj)
    steps = Steps()
    sys.setprofile(steps)
    try:
        if how == "create":
            await verbs.create(resource, namespace, decode_body("application/json", body)[0], call)
        elif how == "update":
            await verbs.update(resource, namespace, "default", decode_body("application/json", body)[0], call, "")
        else:
            media = f"application/{how}-patch+{'yaml' if how == 'apply' else 'json'}"
            kind, patch, _ = decode_patch(media, body)
            await verbs.patch(resource, namespace, "default", patch, kind, call, "")  # type: ignore[arg-type]
    except ApiError:
        pass
    finally:
        sys.setprofile(None)
    return steps.count


async def test_steps_grow_no_faster_than_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "LARGEST", -1)  # every request costs what it costs the first time
    store = Store.open(tmp_path, None)
    verbs = Verbs(store, Chain(admission_plugins(QuotaAdmission())))
    await bootstrap(verbs)
    for obj in examples():
        resource = of(obj)
        if resource.kind != "Namespace":
            await verbs.create(resource, "default" if resource.namespaced else "", copy.deepcopy(obj), Call())
    found, asked = [], 0
    for obj, path in growing():
        small, large = grown(obj, path, SMALL), grown(obj, path, LARGE)
        for how in ("create", "update", "merge", "strategic-merge", "apply"):
            if how == "create":
                for one in (small, large):
                    one["metadata"]["name"] = "another"
            else:
                small["metadata"]["name"] = large["metadata"]["name"] = "default"
            least, most = await steps_of(verbs, small, how), await steps_of(verbs, large, how)
            asked += 1
            if most > GROWTH * max(least, FEW):
                found.append(f"{obj['kind']} {path} {how}: {least} steps, then {most}")
    await store.close()
    assert not found, "\n".join(found)
    assert asked > 200


async def test_a_list_ends_at_its_bound(tmp_path: Path) -> None:
    store = Store.open(tmp_path, None)
    verbs = Verbs(store)
    await bootstrap(verbs)

    def pod(containers: int) -> Object:
        spec = {"containers": [{"name": f"c{at}", "image": "a/b:1"} for at in range(containers)]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}

    with pytest.raises(Invalid, match=r"spec\.containers: Too many: 20000: must have at most 250 items"):
        await verbs.create(PODS, "default", pod(20_000), Call())
    await verbs.create(PODS, "default", pod(250), Call())
    hard = {f"count/a{at}.example": "1" for at in range(1001)}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "x"}, "spec": {"hard": hard}}
    with pytest.raises(Invalid, match=r"spec\.hard: Too many: 1001: must have at most 1000 items"):
        await verbs.create(RESOURCEQUOTAS, "default", quota, Call())
    await store.close()


def test_tolerations_are_only_added_to() -> None:
    kept = [
        {"key": f"k{at}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5} for at in range(1000)
    ]
    old: Object = {"spec": {"tolerations": kept}}
    for changed, allowed in (
        ([{**one, "tolerationSeconds": 9} for one in kept], True),
        ([*reversed(kept), {"operator": "Exists"}], True),
        (kept[1:], False),
        ([{**kept[0], "effect": "NoSchedule"}, *kept[1:]], False),
    ):
        assert bool(validate_update(PODS, {"spec": {"tolerations": changed}}, old)) != allowed


def test_bounds_are_of_lists_that_exist() -> None:
    for name, fields in MOST_ITEMS.items():
        for field in fields:
            assert definitions()[name]["properties"][field]["type"] == "array", (name, field)


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/json", b'{"a":[' + b"0," * MAX_VALUES + b"0]}"),
        ("application/json", b'{"a":{' + b",".join(b'"%d":0' % at for at in range(MAX_VALUES + 1)) + b"}}"),
        ("application/yaml", b"a:\n" + b"".join(b"  k%d: 1\n" % at for at in range(MAX_EVENTS // 2))),
        ("application/yaml", b"a:\n" + b"- x\n" * MAX_EVENTS),
        ("application/yaml", b'{"a":[' + b"0," * MAX_VALUES + b"0]}"),
        ("application/apply-patch+yaml", b"a:\n" + b"- []\n" * (MAX_EVENTS // 2)),
    ],
)
def test_values_of_a_body_are_counted(media: str, body: bytes) -> None:
    with pytest.raises(TooLarge, match=r"more than|limit is"):
        decode_patch(media, body) if "patch" in media else decode_body(media, body)


def test_aliases_add_no_more_text_than_values() -> None:
    """A thousand references to a megabyte are a gigabyte once they are written out."""
    body = b"a: &a " + b"x" * 1_000_000 + b"\nb: [" + b"*a, " * 1000 + b"]"
    with pytest.raises(ApiError, match="aliases expand"):
        decode_body("application/yaml", body)


@pytest.mark.parametrize("media", ["application/json", "application/yaml"])
def test_paths_of_repeated_keys_are_bounded(media: str) -> None:
    """Each of many fields below a long name has a path of that length."""
    inner = b",".join(b'"k%d": {"x": 1, "x": 2}' % at for at in range(20_000))
    body = b'{ "' + b"n" * 1_000_000 + b'": {' + inner + b"} }"
    if media == "application/yaml":
        body = b"? " + b"n" * 1_000_000 + b"\n: {" + inner.replace(b'"', b"") + b"}\n"
    value, repeated = decode_body(media, body, duplicates=True)
    assert count(value) > 20_000
    assert 10 <= len(repeated) <= 100
    assert all(len(text) < 1100 for text in repeated)


def listy(node: ast.AST | None) -> bool:
    """Whether an expression is surely a list or a tuple whose length the program does not say."""
    if isinstance(node, ast.BoolOp):
        return any(isinstance(value, (ast.List, ast.Tuple)) and not value.elts for value in node.values)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("list", "sorted", "tuple")
    return isinstance(node, ast.ListComp)


def comparisons(tree: ast.AST) -> Iterator[ast.Compare]:
    """Tests for membership in a list that are made again and again."""
    for function in (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
        lists = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and listy(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        loops = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
        for loop in (node for node in ast.walk(function) if isinstance(node, loops)):
            for node in ast.walk(loop):
                if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
                    right = node.comparators[0]
                    if listy(right) or (isinstance(right, ast.Name) and right.id in lists):
                        yield node


def test_nothing_is_looked_for_in_a_list_again_and_again() -> None:
    source = Path(__file__).parents[2] / "src" / "isoplane"
    found = [
        f"{path.relative_to(source)}:{node.lineno}: {ast.unparse(node)}"
        for part in ("objects", "server", "workload", "quota", "store")
        for path in (source / part).rglob("*.py")
        for node in comparisons(ast.parse(path.read_text()))
    ]
    assert not found, "make it a set:\n" + "\n".join(found)
    bad = "def f(a, b):\n    return any(x not in (b or ()) for x in a)"
    assert len(list(comparisons(ast.parse(bad)))) == 1
