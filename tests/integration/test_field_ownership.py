"""Who owns which field, after any mixture of creates, updates, patches and applies: whoever wrote it last."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import samples_support as samples
from isoplane.http.request_options import Call
from isoplane.http.user import User
from isoplane.objects.errors import Conflict
from isoplane.objects.kinds import CONFIGMAPS, NAMESPACES, PODS
from isoplane.objects.metadata import Object
from isoplane.objects.patch.fields import paths
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.verbs import Verbs
from store_support import in_memory

Writer = tuple[str, str]
"""(manager, operation)."""
Step = tuple[str, str, dict[str, str], bool]
"""(verb, manager, values, force)."""


async def served() -> Verbs:
    verbs = Verbs(in_memory(), Chain(()))
    await bootstrap(verbs)
    await verbs.create(NAMESPACES, "", {"metadata": {"name": "a"}}, Call())
    return verbs


def by(manager: str, *, force: bool = False) -> Call:
    return Call(User("jane", ()), manager=manager, force=force)


def owners(obj: Object, prefix: str) -> dict[str, set[Writer]]:
    """Below one place: leaf → who owns it."""
    found: dict[str, set[Writer]] = {}
    for entry in obj["metadata"].get("managedFields") or ():
        assert entry["fieldsType"] == "FieldsV1"
        assert entry["time"]
        for path in paths(entry["fieldsV1"]):
            if path.startswith(prefix):
                found.setdefault(path.removeprefix(prefix), set()).add((entry["manager"], entry["operation"]))
    return found


class Model:
    """What is right for a map of texts, said without sets of fields."""

    def __init__(self, manager: str, data: dict[str, str]) -> None:
        self.data = dict(data)
        self.owners: dict[str, set[Writer]] = {key: {(manager, "Update")} for key in data}

    def update(self, manager: str, data: dict[str, str]) -> None:
        changed = {key for key, value in data.items() if self.data.get(key) != value}
        self.data = dict(data)
        self.owners = {key: {(manager, "Update")} if key in changed else self.owners[key] for key in data}

    def apply(self, manager: str, data: dict[str, str], force: bool) -> bool:
        """False: a conflict."""
        applier = (manager, "Apply")
        changed = {key for key, value in data.items() if self.data.get(key) != value}
        if not force and any(self.owners.get(key, set()) - {applier} for key in changed):
            return False
        for key in [key for key, own in self.owners.items() if applier in own and key not in data]:
            self.owners[key] = self.owners[key] - {applier}
            if not self.owners[key]:
                del self.owners[key], self.data[key]
        for key, value in data.items():
            self.owners[key] = {applier} if key in changed else self.owners[key] | {applier}
            self.data[key] = value
        return True


values = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), max_size=4)
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(["update", "merge", "json", "apply", "apply"]), st.sampled_from(["ann", "bob", "kubectl"]),
        values, st.booleans(),
    ),
    max_size=9,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(values, steps)
def test_each_leaf_belongs_to_who_wrote_it_last(first: dict[str, str], sequence: list[Step]) -> None:
    asyncio.run(follow(first, sequence))


async def follow(first: dict[str, str], sequence: list[Step]) -> None:
    verbs = await served()
    await verbs.create(CONFIGMAPS, "a", {"metadata": {"name": "c"}, "data": first}, by("ann"))
    model = Model("ann", first)
    for verb, manager, data, force in sequence:
        await write(verbs, model, verb, manager, data, force)
        obj = verbs.get(CONFIGMAPS, "a", "c").object()
        assert (obj.get("data") or {}) == model.data
        owned = {key: who for key, who in owners(obj, ".data.").items() if who}
        assert owned == {key: who for key, who in model.owners.items() if key in model.data}


async def write(verbs: Verbs, model: Model, verb: str, manager: str, data: dict[str, str], force: bool) -> None:
    if verb == "apply":
        config = {"apiVersion": "v1", "kind": "ConfigMap", "data": data}
        call = by(manager, force=force)
        if model.apply(manager, data, force):
            await verbs.patch(CONFIGMAPS, "a", "c", config, "apply", call)
        else:
            with pytest.raises(Conflict):
                await verbs.patch(CONFIGMAPS, "a", "c", config, "apply", call)
        return
    live = verbs.get(CONFIGMAPS, "a", "c").object()
    model.update(manager, data)
    patch: Any
    match verb:
        case "update":
            live["data"] = data
            live["metadata"].pop("managedFields", None)
            await verbs.update(CONFIGMAPS, "a", "c", live, by(manager))
        case "merge":
            gone = dict.fromkeys(live.get("data") or (), None)
            await verbs.patch(CONFIGMAPS, "a", "c", {"data": {**gone, **data}}, "merge", by(manager))
        case "json":
            patch = [{"op": "add", "path": "/data", "value": data}]
            await verbs.patch(CONFIGMAPS, "a", "c", patch, "json", by(manager))


async def test_a_pod_is_tracked_through_its_life() -> None:
    """Created, bound, reported on: its author may apply it ever after, and loses and takes nothing."""
    verbs = await served()
    spec = samples.pod("web")["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec}
    await verbs.create(PODS, "a", pod, by("kubectl-create"))
    await verbs.act(PODS, "a", "web", "binding", {"target": {"name": "n1"}}, Call())
    await verbs.patch(PODS, "a", "web", {"status": {"phase": "Running"}}, "merge", Call(), "status")
    await verbs.patch(PODS, "a", "web", {"metadata": {"labels": {"theirs": "1"}}}, "merge", by("helm"))
    stored = verbs.get(PODS, "a", "web").object()
    entries = {(e["manager"], e["operation"], e.get("subresource", "")) for e in stored["metadata"]["managedFields"]}
    assert entries == {
        ("kubectl-create", "Update", ""), ("isoplane", "Update", "binding"), ("isoplane", "Update", "status"),
        ("helm", "Update", ""),
    }  # fmt: skip
    assert owners(stored, ".spec.nodeName") == {"": {("isoplane", "Update")}}
    assert owners(stored, ".metadata.labels.theirs") == {"": {("helm", "Update")}}
    config = {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"app": "web"}}, "spec": {}}
    for label in ("mine", "ours"):
        config["metadata"] = {"labels": {"app": "web", label: "1"}}
        await verbs.patch(PODS, "a", "web", config, "apply", by("ann"))
    stored = verbs.get(PODS, "a", "web").object()
    assert stored["metadata"]["labels"] == {"app": "web", "theirs": "1", "ours": "1"}
    assert stored["spec"]["nodeName"] == "n1"


async def test_an_object_stays_bounded_whoever_writes_it() -> None:
    verbs = await served()
    await verbs.create(CONFIGMAPS, "a", {"metadata": {"name": "c"}, "data": {}}, by("maker"))
    for number in range(40):
        await verbs.patch(
            CONFIGMAPS, "a", "c", {"data": {"k": str(number), f"k{number}": "x"}}, "merge", by(f"w{number}")
        )
    managers = verbs.get(CONFIGMAPS, "a", "c").object()["metadata"]["managedFields"]
    assert len(managers) == 10
    assert "ancient-changes" in {entry["manager"] for entry in managers}
    assert len(owners({"metadata": {"managedFields": managers}}, ".data.")) == 41


async def test_a_write_that_changes_nothing_makes_no_version() -> None:
    verbs = await served()
    made = await verbs.create(CONFIGMAPS, "a", {"metadata": {"name": "c"}, "data": {"a": "1"}}, by("ann"))
    for sent in (made.object(), {**made.object(), "metadata": {"name": "c"}}):
        again = await verbs.update(CONFIGMAPS, "a", "c", sent, by("bob"))
        assert again.revision == made.revision
