"""A field that a kind does not have is never stored, whatever the verb and whatever the client asks to be told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import samples_support as samples
from isoplane.http.request_options import Call
from isoplane.http.user import User
from isoplane.objects.errors import BadRequest
from isoplane.objects.kinds import CONFIGMAPS, NAMESPACES, PODS, VIRTUALMACHINES
from isoplane.objects.metadata import Object
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.verbs import PatchKind, Verbs
from isoplane.store import Store, Transaction

EXTRA = {"colour": "red"}
SOMEBODY = User("jane", ())


@pytest.fixture
async def verbs(tmp_path: Path) -> AsyncIterator[Verbs]:
    store = Store.open(tmp_path / "data")
    try:
        verbs = Verbs(store, Chain(()))
        await bootstrap(verbs)
        await verbs.create(NAMESPACES, "", {"metadata": {"name": "a"}}, Call())
        yield verbs
    finally:
        await store.close()


def call(validation: str) -> Call:
    return Call(SOMEBODY, field_validation=validation, manager="jane")


def pod(**spec: Any) -> Object:
    made = samples.pod("web")
    container = {**made["spec"]["containers"][0], **EXTRA}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "labels": {"free": "choice"}, **EXTRA},
        "spec": {**made["spec"], "containers": [container], **spec},
        **EXTRA,
    }


def stored(verbs: Verbs) -> Object:
    return verbs.get(PODS, "a", "web").object()


NAMED = ['unknown field "metadata.colour"', 'unknown field "spec.colour"', 'unknown field "spec.containers[0].colour"']


@pytest.mark.parametrize("validation", ["Warn", "Ignore"])
async def test_created(verbs: Verbs, validation: str) -> None:
    sent, asked = pod(**EXTRA), call(validation)
    await verbs.create(PODS, "a", sent, asked)
    assert "red" not in str(stored(verbs))
    assert stored(verbs)["metadata"]["labels"] == {"free": "choice"}
    assert sorted(asked.warnings) == (['unknown field "colour"', *NAMED] if validation == "Warn" else [])
    with pytest.raises(BadRequest, match=r'strict decoding error: .*unknown field "spec.colour"'):
        await verbs.create(PODS, "a", pod(**EXTRA), call("Strict"))


@pytest.mark.parametrize("validation", ["Warn", "Ignore"])
@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("merge", {"spec": EXTRA, "metadata": {"annotations": {"seen": "yes"}}}),
        ("strategic", {"spec": EXTRA, "metadata": {"annotations": {"seen": "yes"}}}),
        ("json", [{"op": "add", "path": "/spec/colour", "value": "red"},
                  {"op": "add", "path": "/metadata/annotations", "value": {"seen": "yes"}}]),
        ("apply", {"apiVersion": "v1", "kind": "Pod", "spec": EXTRA, "metadata": {"annotations": {"seen": "yes"}}}),
    ],
)  # fmt: skip
async def test_patched(verbs: Verbs, kind: PatchKind, patch: Any, validation: str) -> None:
    await verbs.create(PODS, "a", pod(), call("Ignore"))
    with pytest.raises(BadRequest, match=r"spec\.colour"):
        await verbs.patch(PODS, "a", "web", patch, kind, call("Strict"))
    asked = call(validation)
    await verbs.patch(PODS, "a", "web", patch, kind, asked)
    assert "red" not in str(stored(verbs))
    assert stored(verbs)["metadata"]["annotations"] == {"seen": "yes"}
    assert asked.warnings == (['unknown field "spec.colour"'] if validation == "Warn" else [])


async def test_replaced_as_a_whole_and_in_its_status(verbs: Verbs) -> None:
    await verbs.create(PODS, "a", pod(), call("Ignore"))
    before = stored(verbs)
    again = {**before, "spec": {**before["spec"], **EXTRA}}
    record = await verbs.update(PODS, "a", "web", again, call("Warn"))
    assert record.object() == before
    status = {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False", **EXTRA}], **EXTRA}
    asked = call("Warn")
    await verbs.update(PODS, "a", "web", {**before, "status": status}, asked, "status")
    now = stored(verbs)["status"]
    assert "red" not in str(now)
    assert now["conditions"][0]["status"] == "False"
    assert sorted(asked.warnings) == [
        'unknown field "status.colour"', 'unknown field "status.conditions[0].colour"',
    ]  # fmt: skip
    await verbs.patch(PODS, "a", "web", {"status": EXTRA}, "merge", call("Ignore"), "status")
    assert "red" not in str(stored(verbs))


async def test_what_an_earlier_version_stored_is_no_fault_of_who_patches(verbs: Verbs) -> None:
    await verbs.create(PODS, "a", pod(), call("Ignore"))

    def put(txn: Transaction) -> None:
        found = txn.get(PODS, "a", "web")
        assert found is not None
        txn.put(PODS, {**found.object(), **EXTRA})

    await verbs.store.transact(put)
    assert stored(verbs)["colour"] == "red"
    await verbs.patch(PODS, "a", "web", {"metadata": {"labels": {"x": "y"}}}, "merge", call("Strict"))
    assert "red" not in str(stored(verbs))


async def test_free_form_places_keep_everything(verbs: Verbs) -> None:
    data = {"anything.goes": "1", "colour": "red"}
    await verbs.create(CONFIGMAPS, "a", {"metadata": {"name": "c"}, "data": data}, call("Strict"))
    assert verbs.get(CONFIGMAPS, "a", "c").object()["data"] == data
    vm = {"metadata": {"name": "v"}, "spec": {"runStrategy": "Halted", "template": samples.vmi("x"), **EXTRA}}
    vm["spec"]["template"] = {"metadata": {"labels": {"a": "b"}}, "spec": samples.vmi("x")["spec"]}  # type: ignore[index]
    asked = call("Warn")
    await verbs.create(VIRTUALMACHINES, "a", vm, asked)
    assert asked.warnings == ['unknown field "spec.colour"']
    assert "red" not in str(verbs.get(VIRTUALMACHINES, "a", "v").object())


async def test_a_controller_that_loses_a_field_is_told(verbs: Verbs, caplog: pytest.LogCaptureFixture) -> None:
    await verbs.create(PODS, "a", pod(), Call())
    assert "red" not in str(stored(verbs))
    assert 'unknown field "metadata.colour"' in caplog.text
