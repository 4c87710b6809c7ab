"""The timing harness, on a clock that only contenders move: right medians, fair turns, and no false difference."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from difflab.study import accounts, timing
from difflab.study.timing import contest


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self, monkeypatch):
        self.now = self.cpu = self.displaced = 0.0
        monkeypatch.setattr(timing, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing, "process_time", lambda: self.cpu)
        monkeypatch.setattr(timing, "displaced_seconds", lambda: self.displaced)

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


def test_what_other_programs_take_is_not_counted(clock):
    """Every third call is displaced for as long as it takes; one contender only."""
    n_calls = 0

    def displaced():
        nonlocal n_calls
        n_calls += 1
        extra = 0.003 if n_calls % 3 == 0 else 0.0
        clock.now += 0.003 + extra
        clock.displaced += extra

    found = contest({"a": displaced, "b": clock.busy(0.003)}, np.random.default_rng(0), 1.0).timings
    assert found["a"].seconds == pytest.approx(0.003)
    assert found["a"].spread == pytest.approx(0.0, abs=1e-9)


def test_a_clock_of_displacement_that_runs_backwards_adds_nothing(clock):
    def call():
        clock.now += 0.003
        clock.displaced -= 0.001

    assert timing.sample(call, 1) == pytest.approx(0.003)


def test_a_wait_while_the_clock_of_displacement_is_read_is_no_part_of_a_sample(clock, monkeypatch):
    def read():
        clock.now += 0.01
        clock.displaced += 0.01
        return clock.displaced

    monkeypatch.setattr(timing, "displaced_seconds", read)
    assert timing.sample(clock.busy(0.003), 1) == pytest.approx(0.003)


@pytest.fixture
def one_core():
    """Bind the thread of the test, and what it starts, to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def accounted(monkeypatch, tmp_path):
    """The system's accounts, as they are told to be: seconds that the thread waited, that it ran, and that all ran."""

    def tell(waited, ran, all_ran):
        (tmp_path / "schedstat").write_text(f"{int(1e9 * ran)} {int(1e9 * waited)} 7\n")
        monkeypatch.setattr(accounts, "ACCOUNT", tmp_path / "schedstat")
        monkeypatch.setattr(accounts.time, "thread_time", lambda: ran)
        monkeypatch.setattr(accounts.time, "process_time", lambda: all_ran)

    return tell


def test_what_threads_of_its_own_ran_is_no_displacement(one_core, accounted):
    accounted(waited=3.0, ran=5.0, all_ran=5.0)
    assert accounts.displaced_seconds() == 3.0
    accounted(waited=3.0, ran=5.0, all_ran=7.0)
    assert accounts.displaced_seconds() == 1.0


def test_on_more_cores_than_one_nothing_is_displaced(one_core, accounted, monkeypatch):
    accounted(waited=3.0, ran=5.0, all_ran=5.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert accounts.displaced_seconds() == 0.0


@pytest.mark.parametrize("text", ["", "1", "1 x 2"])
def test_an_account_that_tells_nothing_is_0(one_core, monkeypatch, tmp_path, text):
    monkeypatch.setattr(accounts, "ACCOUNT", tmp_path / "schedstat")
    assert accounts.displaced_seconds() == 0.0
    (tmp_path / "schedstat").write_text(text)
    assert accounts.displaced_seconds() == 0.0


def beside_another_program():
    """Of a sample on a core with a program that spins: its seconds, those this thread ran, and those that passed."""
    spinning = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        spinning.stdout.readline()
        wall, ran = time.perf_counter(), time.thread_time()
        found = timing.sample(lambda: sum(range(10**6)), 20) * 20
        return found, time.thread_time() - ran, time.perf_counter() - wall
    finally:
        spinning.kill()
        spinning.communicate()


def test_beside_another_program_a_sample_is_what_the_processor_gave(one_core):
    """By the system's own account of this thread's time; once in some tries, for machines are displaced as well."""
    if not are_told():
        pytest.skip("the system does not tell how long threads wait")
    tries = [beside_another_program() for _ in range(3)]
    assert any(wall > 1.2 * ran and abs(found / ran - 1) < 0.1 for found, ran, wall in tries), tries


def are_told():
    try:
        return int(Path(accounts.ACCOUNT).read_text().split()[0]) > 0
    except (OSError, ValueError, IndexError):
        return False
