"""The ledger's rules by model: thousands of random interleavings of two leaders, and each rule proven to be needed."""

from __future__ import annotations

import pytest
from ledger_support import RULES, Violation, World

STEPS = 300


def run(seed: int, without: str = "") -> int:
    world = World(seed, without)
    for _ in range(STEPS):
        world.step()
    return world.admitted


@pytest.mark.parametrize("part", range(4))
def test_never_over_the_limit_in_any_interleaving(part: int) -> None:
    admitted = sum(run(seed) for seed in range(part, 400, 4))
    assert admitted > 100  # the model is not idle


@pytest.mark.parametrize("rule", RULES)
def test_the_model_finds_the_hole_that_a_rule_closes(rule: str) -> None:
    for seed in range(2500):
        try:
            run(seed, rule)
        except Violation:
            return
    pytest.fail(f"without {rule!r} nothing was violated: the rule is not needed, or the model does not see why")
