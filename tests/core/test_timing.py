"""Interleaved timing: orders, what is counted, and what is made of the samples."""

import itertools
import random

import pytest

from lazyneuron.core import timing
from lazyneuron.core.timing import Times, compared, interleaved, least_us, quartiles, ratios, repeated


def logged(names, log):
    return {name: lambda x, name=name: log.append((name, x)) for name in names}


class Clock:
    """Time that only calls take: name -> seconds of its calls in turn."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def taking(self, *seconds):
        left = iter(seconds)

        def call(_):
            self.now += next(left)

        return call


def test_quartiles_and_ratios_by_hand():
    # a quarter of the way from the first to the last of four values is 0.75 steps, and three quarters are 2.25
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (1.75, 3.25)
    assert quartiles([7.0]) == (7.0, 7.0)
    a, b = (Times(samples_us=s) for s in ((4.0, 6.0, 8.0), (1.0, 2.0, 2.0)))
    assert (a.median_us, a.least_us, a.quartiles_us, a.spread) == (6.0, 4.0, (5.0, 7.0), 1.4)
    found = ratios(a, b)
    assert found.samples == (4.0, 3.0, 4.0)
    assert (found.median, found.quartiles) == (4.0, (3.5, 4.0))


def test_every_call_is_made_in_every_round():
    made = []
    times = compared(logged("abc", made), range(2), budget_s=0.0, seed=0)
    assert {len(t.samples_us) for t in times.values()} == {7}
    rounds = [made[k : k + 3] for k in range(0, len(made), 3)]
    assert all({name for name, _ in r} == set("abc") for r in rounds)
    assert [r[0][1] for r in rounds] == [k % 2 for k in range(9)]
    assert len({tuple(name for name, _ in r) for r in rounds}) > 1


def test_in_every_round_what_is_to_stand_apart_does():
    made = []
    calls = logged(("dense", "one", "two", "ours"), made)
    compared(calls, [None], budget_s=0.0, seed=1, shares_memory=["one", "two", "ours"], apart=["ours"])
    assert len(made) == 36
    assert all(before == "dense" for (before, _), (name, _) in itertools.pairwise(made) if name == "ours")


def test_what_shares_memory_is_set_apart():
    shuffle = random.Random(0)
    for _ in range(50):
        order = ["dense", "int8", "one", "two", "read", "ours"]
        shuffle.shuffle(order)
        timing._set_apart(order, ["one", "two", "read", "ours"], ["ours", "read"], shuffle)
        assert sorted(order) == ["dense", "int8", "one", "ours", "read", "two"]
        assert order[order.index("ours") - 1] in ("dense", "int8") and order[0] != "ours"
        assert order[order.index("read") - 1] in ("dense", "int8") and order[0] != "read"


def test_each_call_is_timed_right_after_the_reference():
    log = []
    calls = [lambda k, name=name: log.append(f"{name}{k}") for name in "dab"]
    assert len(least_us(calls, rounds=2, warm_up=1, budget_s=60.0)) == 3
    assert log == ["d0", *(f"{name}{k}" for k in range(3) for name in "dadb")]
    alone = []
    assert len(least_us([alone.append], rounds=2, warm_up=0)) == 1
    assert alone == [0, 0, 1]


def test_a_reference_that_takes_longer_than_the_budget_runs_four_times(monkeypatch):
    clock = Clock(monkeypatch)
    calls = [clock.taking(2.0, 2.0, 3.0, 2.5), clock.taking(0.2, 0.1), clock.taking(0.4, 0.5)]
    assert least_us(calls, rounds=9, budget_s=1.0) == pytest.approx([2.5e6, 0.1e6, 0.4e6])


def test_a_first_run_that_takes_longer_changes_nothing(monkeypatch):
    clock = Clock(monkeypatch)
    calls = [clock.taking(2.0, 0.1, 0.4, 0.3, 0.2), clock.taking(0.2, 0.5, 0.4)]
    assert least_us(calls, rounds=2, warm_up=1, budget_s=1.5) == pytest.approx([0.2e6, 0.4e6])


def test_the_least_counts_and_warming_up_does_not(monkeypatch):
    clock = Clock(monkeypatch)
    calls = [clock.taking(0.1, 0.1, 5.0, 3.0, 4.0), clock.taking(0.2, 9.0, 8.0, 7.0)]
    assert least_us(calls, rounds=3, warm_up=1, budget_s=0.15) == pytest.approx([3e6, 7e6])


@pytest.mark.parametrize(("budget_s", "rounds"), [(0.0, 2), (3.5, 4), (100.0, 5)])
def test_rounds_end_with_the_budget_within_their_limits(monkeypatch, budget_s, rounds):
    clock, seen = Clock(monkeypatch), []
    call = clock.taking(*[1.0] * 9)
    times = interleaved({"a": call}, [0], budget_s=budget_s, least=2, most=5, on_round=lambda *x: seen.append(x))
    assert times["a"].samples_us == (1e6,) * rounds
    assert seen == [(k, float(k)) for k in range(1, rounds + 1)]


def test_the_first_runs_of_a_turn_are_not_counted(monkeypatch):
    clock = Clock(monkeypatch)
    calls = {"a": clock.taking(9.0, 1.0, 2.0, 9.0, 3.0, 4.0), "b": clock.taking(*[5.0] * 6)}
    times = interleaved(calls, [0], budget_s=0.0, least=2, in_a_row=2, uncounted=1)
    assert times["a"].samples_us == pytest.approx((1e6, 2e6, 3e6, 4e6))
    assert len(times["b"].samples_us) == 4


def test_one_callable_by_itself():
    made = []
    assert len(repeated(lambda: made.append(0), rounds=3, warm_up=2).samples_us) == 3
    assert len(made) == 5
