"""CONTRACT: the same events, the same decisions, whichever shell carries the engine's effects out (quota_shells_support.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from quota_shells_support import PRIORITIES, SHELLS, TENANTS, Place, Refused, Shell

RUNS, WAITS, LEAVES = Place("runs"), Place("waits"), Place("leaves")


@pytest.fixture(params=SHELLS)
async def shell(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shell]:
    async with SHELLS[request.param](tmp_path) as made:
        yield made


async def test_what_fits_runs_and_what_an_owner_made_waits(shell: Shell) -> None:
    await shell.limits("a", {"requests.cpu": "2", "pods": "10"})
    await shell.create("one", "a", cpu="2", owned=False)
    with pytest.raises(Refused, match=r"exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=2"):
        await shell.create("bare", "a", cpu="1", owned=False)
    await shell.create("made", "a", cpu="1")
    assert await shell.picture() == {"pod/a/one": RUNS, "pod/a/made": WAITS}
    assert await shell.used("a") == {"requests.cpu": "2", "pods": "1"}
    await shell.gone("one", "a")
    assert await shell.picture() == {"pod/a/made": RUNS}
    assert await shell.used("a") == {"requests.cpu": "1", "pods": "1"}


async def test_a_critical_one_takes_the_place_of_lower_ones_and_nobody_comes_in_between(shell: Shell) -> None:
    await shell.limits("a", {"requests.cpu": "3"}, evictionThreshold=500)
    await shell.create("low", "a", cpu="1", priority="batch")
    await shell.create("vm", "a", cpu="1", priority="batch")
    await shell.create("mid", "a", cpu="1", priority="normal")
    await shell.create("top", "a", cpu="1", priority="critical")
    assert await shell.picture() == {
        "pod/a/low": LEAVES, "vmi/a/vm": RUNS, "pod/a/mid": RUNS, "pod/a/top": Place("reserved", ("pod/a/low",)),
    }  # fmt: skip
    await shell.create("late", "a", cpu="1", priority="batch")
    await shell.gone("low", "a")
    found = await shell.picture()
    assert (found["pod/a/top"], found["pod/a/late"]) == (RUNS, WAITS)
    await shell.delete("vm", "a")
    assert (await shell.picture())["vmi/a/vm"] == LEAVES
    await shell.gone("vm", "a")
    assert (await shell.picture())["pod/a/late"] == RUNS
    assert [entry for entry in await shell.trail() if entry[0] != "admit"] == [
        ("wait", "pod/a/top", "evict"),
        ("evict", "pod/a/low", "in-tenant"),
        ("wait", "pod/a/late", "in-line"),
        ("release", "pod/a/top", "fits"),
        ("release", "pod/a/late", "fits"),
    ]


async def test_a_victim_that_does_not_leave_is_given_up_and_another_leaves(shell: Shell) -> None:
    await shell.limits("a", {"requests.cpu": "2"}, evictionThreshold=500)
    await shell.create("old", "a", cpu="1", priority="batch")
    await shell.advance(1)
    await shell.create("new", "a", cpu="1", priority="batch")
    await shell.create("top", "a", cpu="1", priority="critical")
    assert (await shell.picture())["pod/a/new"] == LEAVES
    await shell.advance(149)
    await shell.retry("top", "a")
    assert (await shell.picture())["pod/a/top"] == Place("reserved", ("pod/a/new",))
    await shell.advance(2)
    await shell.retry("top", "a")
    assert await shell.picture() == {
        "pod/a/old": LEAVES, "pod/a/new": Place("stuck"), "pod/a/top": Place("reserved", ("pod/a/old",)),
    }  # fmt: skip


async def test_what_was_lent_is_taken_back_and_others_are_woken_across_the_cohort(shell: Shell) -> None:
    await shell.capacity("4")
    for tenant in TENANTS:
        await shell.limits(tenant, {"requests.cpu": "4"}, cohort="default", guaranteed={"cpu": "2"})
    for name in ("one", "two", "three"):
        await shell.create(name, "a", cpu="1")
        await shell.advance(1)
    await shell.create("mine", "b", cpu="2")
    found = await shell.picture()
    assert (found["pod/b/mine"], found["pod/a/three"]) == (Place("reserved", ("pod/a/three",)), LEAVES)
    await shell.create("four", "a", cpu="1")
    await shell.gone("three", "a")
    found = await shell.picture()
    assert (found["pod/b/mine"], found["pod/a/four"]) == (RUNS, WAITS)
    await shell.gone("mine", "b")
    assert (await shell.picture())["pod/a/four"] == RUNS


async def test_limits_and_capacity_that_grow_let_in_who_waits_and_that_shrink_evict_nobody(shell: Shell) -> None:
    await shell.create("before", "a", cpu="3")
    await shell.limits("a", {"requests.cpu": "2"})
    assert await shell.picture() == {"pod/a/before": RUNS}, "what runs is charged, and nobody leaves for it"
    assert await shell.used("a") == {"requests.cpu": "3"}
    await shell.create("next", "a", cpu="1")
    await shell.limits("a", {"requests.cpu": "4"})
    assert (await shell.picture())["pod/a/next"] == RUNS
    await shell.limits("a", {"requests.cpu": "1"})
    assert await shell.used("a") == {"requests.cpu": "4"}
    await shell.capacity("4")
    await shell.limits("a", {"requests.cpu": "9"}, cohort="default")
    await shell.create("third", "a", cpu="2")
    assert (await shell.picture())["pod/a/third"] == WAITS
    await shell.capacity("6")
    assert (await shell.picture())["pod/a/third"] == RUNS


async def test_a_quota_whose_write_lets_in_somebody_elsewhere_publishes_the_use_of_both(shell: Shell) -> None:
    """A reservation of the other namespace has ended meanwhile. Both quotas have the same name, and each shows its own use."""
    await shell.capacity("9")
    for tenant in TENANTS:
        await shell.limits(tenant, {"requests.cpu": "3"}, cohort="default", evictionThreshold=50)
    await shell.create("low", "a", cpu="2", priority="batch")
    await shell.create("top", "a", cpu="3", priority="critical")
    await shell.create("small", "a", cpu="1", priority="batch")
    await shell.advance(151)
    await shell.limits("b", {"requests.cpu": "2"})
    assert await shell.picture() == {"pod/a/low": Place("stuck"), "pod/a/top": WAITS, "pod/a/small": RUNS}
    assert [await shell.used(tenant) for tenant in TENANTS] == [{"requests.cpu": "3"}, {"requests.cpu": "0"}]


@pytest.mark.parametrize("seed", range(12))
async def test_random_days_are_decided_alike(tmp_path: Path, seed: int) -> None:
    """Every shell after every step: who runs, waits, leaves and for whom, what is published, what was recorded."""
    async with SHELLS["memory"](tmp_path / "m") as first, SHELLS["embedded"](tmp_path / "e") as second:
        script = Random(seed)
        for number in range(40):
            step = script.random()
            before = await _seen(first)
            outcomes = [await _step(shell, Random(step), number, before[0]) for shell in (first, second)]
            assert outcomes[0] == outcomes[1], number
            for mine, other in zip(await _seen(first), await _seen(second), strict=True):
                assert mine == other, number


async def _seen(shell: Shell) -> tuple[dict[str, Place], object, object]:
    used = [await shell.used(tenant) for tenant in TENANTS] if await shell.picture() else []
    return await shell.picture(), used, await shell.trail()


async def _step(shell: Shell, rng: Random, number: int, there: dict[str, Place]) -> str:
    """One thing that somebody does: the same for the same ``rng``."""
    await shell.advance(rng.choice([1, 1, 1, 40]))
    if number == 0:
        await shell.capacity("7")
        for tenant in TENANTS:
            await shell.limits(
                tenant, {"requests.cpu": "6", "pods": "8"}, evictionThreshold=50, cohort="default",
                guaranteed={"cpu": rng.choice("123")}, borrowingLimit={"cpu": "4"}, minRunSeconds=rng.choice([0, 5]),
            )  # fmt: skip
        return ""
    names = sorted(there)
    what = rng.choices(["create", "gone", "delete", "retry", "limits", "capacity"], [10, 4, 2, 2, 1, 1])[0]
    if what == "create" or not names:
        tenant = rng.choice("aab")
        name = f"{rng.choice('pv')}{number}"
        try:
            await shell.create(
                name, tenant, cpu=rng.choice("123"), priority=rng.choice(list(PRIORITIES)), owned=rng.random() < 0.7
            )
        except Refused as refused:
            return str(refused)
        return ""
    if what == "limits":
        tenant = rng.choice(TENANTS)
        await shell.limits(tenant, {"requests.cpu": rng.choice("3579"), "pods": "8"})
        return ""
    if what == "capacity":
        await shell.capacity(rng.choice("678"))
        return ""
    _, tenant, name = rng.choice(names).split("/")
    if what == "retry":
        pending = [n for n in names if there[n].state == "waits"]
        if not pending:
            return ""
        _, tenant, name = rng.choice(pending).split("/")
    await getattr(shell, what)(name, tenant)
    return ""
