"""Owner references as a graph: who goes with whom, asked as a table and as a property over random forests."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from isoplane.controllers.ownership import (
    DEPTH,
    FOREGROUND,
    ORPHAN,
    Ask,
    Delete,
    Disown,
    Graph,
    Item,
    LetGo,
    Reference,
    SetFree,
    Wait,
    item_of,
)
from isoplane.objects.kinds import CONFIGMAPS, LEASES, NODES, PODS, SECRETS
from isoplane.objects.scheme import Scheme


def item(uid: str, *owners: str, blocks: bool = True, finalizers: tuple[str, ...] = (), deleting: bool = False) -> Item:
    references = tuple(Reference(owner, owner, CONFIGMAPS, blocks) for owner in owners)
    return Item(uid, CONFIGMAPS, "ns", uid, references, frozenset(finalizers), deleting)


def graph(*items: Item) -> Graph:
    made = Graph()
    for one in items:
        made.put(one)
    return made


def test_an_owner_that_exists_keeps_its_dependent() -> None:
    assert graph(item("a"), item("b", "a")).decide("b") is None


def test_an_unknown_owner_is_asked_for_and_then_believed() -> None:
    made = graph(item("b", "a"))
    question = made.decide("b")
    assert isinstance(question, Ask)
    assert [owner.uid for owner in question.owners] == ["a"]
    assert made.decide("b", absent={"a"}) == Delete("Background")
    assert made.decide("b", present={"a"}) is None


def test_one_owner_is_enough_and_the_lost_one_is_dropped() -> None:
    made = graph(item("a"), item("c", "a", "b"))
    assert made.decide("c", absent={"b"}) == Disown(frozenset({"b"}))


def test_when_an_owner_leaves_its_dependents_are_looked_at() -> None:
    made = graph(item("a"), item("b", "a"), item("c", "a"))
    assert sorted(made.drop("a")) == ["b", "c"]
    assert made.drop("a") == []


def test_foreground_waits_for_those_who_block() -> None:
    owner = item("a", finalizers=(FOREGROUND,), deleting=True)
    blocking, free = item("b", "a"), item("c", "a", blocks=False)
    made = graph(owner, blocking, free)
    assert made.decide("a") == Wait()
    assert made.decide("b") == Delete("Background")
    assert made.drop("b") == ["a"]
    assert made.decide("a") == LetGo()


def test_foreground_goes_down_the_tree() -> None:
    made = graph(item("a", finalizers=(FOREGROUND,), deleting=True), item("b", "a"), item("c", "b"))
    assert made.decide("b") == Delete("Foreground")


def test_a_dependent_kept_by_another_is_disowned_by_one_that_waits() -> None:
    made = graph(item("a", finalizers=(FOREGROUND,), deleting=True), item("d"), item("b", "a", "d"))
    assert made.decide("b") == Disown(frozenset({"a"}))
    assert "a" in made.put(item("b", "d"))
    assert made.decide("a") == LetGo()


def test_orphaning_sets_dependents_free() -> None:
    dependent = item("b", "a")
    made = graph(item("a", finalizers=(ORPHAN,), deleting=True), dependent)
    assert made.decide("a") == SetFree((dependent,))


def test_an_item_that_is_deleted_already_is_left_to_its_finalizers() -> None:
    assert graph(item("b", "a", deleting=True)).decide("b", absent={"a"}) is None


def test_its_own_finalizers_say_how_it_goes() -> None:
    assert graph(item("b", "a", finalizers=(ORPHAN,))).decide("b", absent={"a"}) == Delete("Orphan")
    assert graph(item("b", "a", finalizers=(FOREGROUND,))).decide("b", absent={"a"}) == Delete("Foreground")


def test_owners_of_kinds_that_are_not_served_keep_what_they_own() -> None:
    foreign = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs"}
    obj = {"metadata": {"uid": "p", "name": "p", "namespace": "ns", "ownerReferences": [foreign]}}
    assert graph(item_of(Scheme(), PODS, obj)).decide("p") is None


def test_a_cluster_scoped_item_cannot_have_a_namespaced_owner() -> None:
    odd = Item("n", NODES, "", "n", (Reference("a", "a", CONFIGMAPS, False),))
    assert graph(odd).decide("n") is None


def test_an_owner_of_that_uid_in_another_namespace_is_asked_for() -> None:
    elsewhere = Item("a", SECRETS, "other", "a")
    dependent = Item("b", CONFIGMAPS, "ns", "b", (Reference("a", "a", SECRETS, False),))
    made = graph(elsewhere, dependent)
    assert isinstance(made.decide("b"), Ask)
    assert made.decide("b", absent={"a"}) == Delete("Background")


def test_an_owner_is_the_one_of_that_kind_and_name_too() -> None:
    for reference in (Reference("a", "other", CONFIGMAPS, True), Reference("a", "a", SECRETS, True)):
        dependent = Item("b", CONFIGMAPS, "ns", "b", (reference,))
        made = graph(item("a"), dependent)
        assert made.decide("b") == Ask((reference,))
        assert made.decide("b", absent={"a"}) == Delete("Background")
        # Beside a right reference with the same uid it takes nothing away.
        right = Reference("a", "a", CONFIGMAPS, True)
        made = graph(item("a"), Item("b", CONFIGMAPS, "ns", "b", (right, reference)))
        assert made.decide("b", absent={"a"}) is None


def test_what_only_has_the_uid_right_holds_no_owner_up() -> None:
    """Else whoever knows a uid could keep another namespace's object from going, by a dependent with a finalizer."""
    owner = item("a", finalizers=(FOREGROUND,), deleting=True)
    for namespace, resource, name in (("other", CONFIGMAPS, "a"), ("ns", SECRETS, "a"), ("ns", CONFIGMAPS, "x")):
        reference = Reference("a", name, resource, True)
        held = Item("b", CONFIGMAPS, namespace, "b", (reference,), frozenset({"example.com/held"}), True)
        assert graph(owner, held).decide("a") == LetGo()
    cluster = Item("n", NODES, "", "n", (Reference("a", "a", CONFIGMAPS, True),), frozenset({"example.com/held"}), True)
    assert graph(owner, cluster).decide("a") == LetGo()
    assert graph(owner, item("b", "a", finalizers=("example.com/held",), deleting=True)).decide("a") == Wait()


def test_a_namespaced_item_may_have_a_cluster_scoped_owner() -> None:
    lease = Item("l", LEASES, "kube-node-lease", "n", (Reference("n", "n", NODES, False),))
    assert graph(Item("n", NODES, "", "n"), lease).decide("l") is None


def run(
    forest: dict[str, tuple[str, ...]], root: str, propagation: str, *also: str
) -> tuple[set[str], dict[str, tuple[str, ...]]]:
    """Delete ``root`` (and ``also``) in a simulated store until nothing changes. Returns (what is left, whose owners)."""
    made = Graph()
    live: dict[str, Item] = {uid: item(uid, *owners) for uid, owners in forest.items()}
    queue: deque[str] = deque()

    def put(one: Item) -> None:
        live[one.uid] = one
        queue.extend(made.put(one))

    def delete(uid: str, how: str) -> None:
        old = live[uid]
        keep = old.finalizers - {FOREGROUND, ORPHAN}
        finalizers = keep | ({FOREGROUND} if how == "Foreground" else {ORPHAN} if how == "Orphan" else set())
        if finalizers:
            put(Item(uid, CONFIGMAPS, "ns", uid, old.owners, frozenset(finalizers), True))
        else:
            del live[uid]
            queue.extend(made.drop(uid))

    for one in live.values():
        made.put(one)
    for uid in (root, *also):
        delete(uid, propagation)
    for _ in range(100_000):
        if not queue:
            break
        uid = queue.popleft()
        decision = made.decide(uid)
        if isinstance(decision, Ask):
            absent = {o.uid for o in decision.owners if o.uid not in live}
            decision = made.decide(uid, absent, {o.uid for o in decision.owners} - absent)
        match decision:
            case Delete(how):
                delete(uid, how)
            case LetGo():
                delete(uid, "Background")
            case Disown(lost):
                old = live[uid]
                owners = tuple(o for o in old.owners if o.uid not in lost)
                put(Item(uid, CONFIGMAPS, "ns", uid, owners, old.finalizers, old.deleting))
            case SetFree(dependents):
                for d in dependents:
                    owners = tuple(o for o in live[d.uid].owners if o.uid != uid)
                    put(Item(d.uid, CONFIGMAPS, "ns", d.uid, owners, live[d.uid].finalizers, live[d.uid].deleting))
                delete(uid, "Background")
    else:
        raise AssertionError("it never came to rest")
    return set(live), {uid: tuple(o.uid for o in one.owners) for uid, one in live.items()}


@st.composite
def forests(draw: Any) -> dict[str, tuple[str, ...]]:
    """Up to ten objects; each may be owned by some of those before it."""
    size = draw(st.integers(1, 10))
    forest: dict[str, tuple[str, ...]] = {}
    for number in range(size):
        earlier = sorted(forest)
        owners = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=2)) if earlier else []
        forest[f"o{number}"] = tuple(owners)
    return forest


@st.composite
def tangles(draw: Any) -> dict[str, tuple[str, ...]]:
    """Up to eight objects, each owned by any of them: circles, objects that own themselves."""
    names = [f"o{number}" for number in range(draw(st.integers(1, 8)))]
    return {name: tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=3))) for name in names}


@given(forest=tangles(), data=st.data(), propagation=st.sampled_from(["Background", "Foreground"]))
def test_circles_and_self_owners_end_too(
    forest: dict[str, tuple[str, ...]], data: st.DataObject, propagation: str
) -> None:
    gone = data.draw(st.lists(st.sampled_from(sorted(forest)), unique=True, min_size=1, max_size=3))
    left, _ = run(forest, gone[0], propagation, *gone[1:])
    assert left == survivors(forest, *gone)


def test_a_ring_goes_however_long_it_is() -> None:
    size = 3 * DEPTH
    ring = {f"o{number}": (f"o{(number - 1) % size}",) for number in range(size)}
    left, _ = run(ring, "o0", "Foreground")
    assert not left


def test_an_owner_looks_at_each_of_many_dependents_a_bounded_number_of_times() -> None:
    """10,000 dependents: looks grow with their number, not with its square."""
    many = 10_000
    made = graph(item("a"), *(item(f"d{number}", "a") for number in range(many)))
    looks = len(made.put(item("a", finalizers=(FOREGROUND,), deleting=True)))
    for number in range(many):
        looks += len(made.drop(f"d{number}"))
    assert looks <= 2 * many + 1
    assert made.decide("a") == LetGo()


def survivors(forest: dict[str, tuple[str, ...]], *gone: str) -> set[str]:
    """Everything that still has somebody who wants it, once ``gone`` are gone."""
    left = set(forest) - set(gone)
    while True:
        lost = {uid for uid in left if forest[uid] and not any(owner in left for owner in forest[uid])}
        if not lost:
            return left
        left -= lost


@given(forest=forests(), data=st.data(), propagation=st.sampled_from(["Background", "Foreground"]))
def test_exactly_what_nobody_wants_any_more_goes(
    forest: dict[str, tuple[str, ...]], data: st.DataObject, propagation: str
) -> None:
    root = data.draw(st.sampled_from(sorted(forest)))
    left, owners = run(forest, root, propagation)
    assert left == survivors(forest, root)
    assert all(owner in left for kept in owners.values() for owner in kept)


@given(forest=forests(), data=st.data())
def test_orphaning_loses_nothing_but_the_object_itself(forest: dict[str, tuple[str, ...]], data: st.DataObject) -> None:
    root = data.draw(st.sampled_from(sorted(forest)))
    left, owners = run(forest, root, "Orphan")
    assert left == set(forest) - {root}
    assert all(root not in kept for kept in owners.values())
