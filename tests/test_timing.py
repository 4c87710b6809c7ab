"""The timing harness, on a clock that only contenders move: right medians, fair turns, and no false difference."""

import numpy as np
import pytest

from difflab.study import timing
from difflab.study.timing import contest


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self, monkeypatch):
        self.now = self.cpu = 0.0
        monkeypatch.setattr(timing, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing, "process_time", lambda: self.cpu)

    def busy(self, seconds, cpu_share=1.0):
        def call():
            self.now += seconds
            self.cpu += seconds * cpu_share

        return call


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.parametrize("seconds", [1e-7, 1e-4, 3.0])
def test_the_median_of_a_steady_call_is_its_duration(clock, seconds):
    found = contest({"a": clock.busy(seconds), "b": clock.busy(2 * seconds)}, np.random.default_rng(0), 0.5)
    assert found.timings["a"].seconds == pytest.approx(seconds, rel=1e-6)  # the clock's own float64 sums
    assert found.timings["b"].seconds == pytest.approx(2 * seconds, rel=1e-6)
    assert found.cpu_share == pytest.approx(1.0)


def test_contenders_take_turns_in_changing_order(clock):
    order = []

    def noting(name):
        call = clock.busy(0.01)
        return lambda: (order.append(name), call())

    contest({name: noting(name) for name in "ab"}, np.random.default_rng(0), 1.0)
    rounds = [tuple(order[i : i + 2]) for i in range(2 * (1 + timing.CALIBRATIONS), len(order), 2)]
    assert set(rounds) == {("a", "b"), ("b", "a")}


def test_a_drift_of_the_machine_is_not_a_difference(clock):
    """The same kernel twice on a machine that slows down tenfold: taking turns, the ratio stays near 1."""
    drifting = {"factor": 1.0}

    def slowing():
        drifting["factor"] *= 1.01
        clock.busy(0.003 * drifting["factor"])()

    found = contest({"a": slowing, "b": slowing}, np.random.default_rng(0), 10.0).timings
    assert abs(found["a"].seconds / found["b"].seconds - 1) < 0.02
    assert found["a"].spread > 0.2


def test_an_outlier_does_not_move_the_median(clock):
    calls = iter([0.003] * 10 + [100.0] + [0.003] * 1000)
    found = contest({"a": lambda: clock.busy(next(calls))()}, np.random.default_rng(0), 0.2)
    assert found.timings["a"].seconds == pytest.approx(0.003)


def test_samples_of_a_fast_call_are_long_enough_to_be_measured(clock):
    before = []
    call = clock.busy(1e-6)
    contest({"a": lambda: (before.append(clock.now), call())}, np.random.default_rng(0), 0.05)
    assert len(before) * 1e-6 >= timing.MIN_ROUNDS * timing.SAMPLE_SECONDS


@pytest.mark.parametrize("waits_at", range(1, 40))
def test_a_wait_while_calls_are_counted_makes_no_sample_shorter(clock, waits_at):
    """Whenever it comes, samples have the calls of undisturbed ones; durations are powers of 2, to be exact."""
    n_calls = 0

    def call():
        nonlocal n_calls
        n_calls += 1
        clock.now += 2**-13 + (2**-6 if n_calls == waits_at else 0)

    undisturbed, _ = timing.repeats(clock.busy(2**-13))
    assert timing.repeats(call)[0] == undisturbed


def test_a_slow_call_keeps_to_few_rounds(clock):
    calls = []
    call = clock.busy(50.0)
    contest({"a": lambda: (calls.append(1), call())}, np.random.default_rng(0), 0.5)
    assert len(calls) == timing.MIN_ROUNDS + 2


def test_waiting_for_other_programs_shows_in_the_share_of_the_processor(clock):
    found = contest({"a": clock.busy(0.01, cpu_share=0.4)}, np.random.default_rng(0), 0.1)
    assert found.cpu_share == pytest.approx(0.4)
