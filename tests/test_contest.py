"""Contests: a process each, gradients verified first, every failure a status, and no difference where there is none."""

import os
import subprocess
import sys
import time
from pathlib import Path

import campaigns
import numpy as np
import psutil
import pytest

from difflab import reference_gradient
from difflab.backends import Backprop
from difflab.study import referee
from difflab.study.cells import Cell, Task, certified_task, problem, resolved
from difflab.study.comparison import RESOLUTION, Comparison, compared
from difflab.study.declaration import PlacedNetwork
from difflab.study.measures import contest
from difflab.study.referee import Entry, Failed, Ground, hold


pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
"""Of JAX, where tests before have loaded it: contenders are forked, and become other programs at once."""

TRIALS = campaigns.size("DIFFLAB_AA_TRIALS", 1)
FALSE_CLAIMS = 0.05
"""Share of comparisons of a kernel with itself in which a difference may be claimed."""
ENOUGH = 100
"""Trials from which on their share is judged: of 2 trials, 2 claims happen by chance."""
FAULTY = Path(__file__).with_name("faulty_contender.py")
SMALL = PlacedNetwork(widths=[4, 3, 3], data="iris")
BACKPROP = resolved({"name": "backprop"})
HANDWRITTEN = resolved({"name": "handwritten"})


@pytest.fixture(scope="module", autouse=True)
def kernels_at_hand():
    """As in a study: none is compiled within the limit of a contest."""
    arguments = problem(Task(SMALL, 16, 0))
    Backprop().prepare(arguments[0]).value_and_gradient(*arguments[1:])


def faulty(fault):
    return (sys.executable, str(FAULTY), fault)


def arguments(network, batch, dtype="float64"):
    _, theta, x, y = problem(Task(network, batch, 0))
    return theta.astype(dtype), x.astype(dtype), y


def nobody_is_wrong(own, certified):
    pass


def held(first, second, network=SMALL, batch=16, budget=0.05, limit=60.0, seed=0):
    ground = Ground(network, arguments(network, batch))
    return hold([first, second], ground, nobody_is_wrong, np.random.default_rng(seed), budget, limit)


def cell(backend=HANDWRITTEN, network=SMALL, batch=16, limit=60.0):
    return Cell(Task(network, batch, 0), backend, ["contest"], limit, 10**11)


def row(of, fault="none", reference=None):
    reference = reference or reference_gradient(*problem(certified_task(of)))
    return contest.run(of, reference, faulty(fault))


# --- the interval of a ratio


@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy"])
@pytest.mark.parametrize("rounds", [9, 20, 41])
def test_the_interval_holds_the_median_as_often_as_it_says(draw, rounds):
    """Of ratios of any distribution; 3000 trials at 99 % have 30 misses and a deviation of 5.4."""
    rng, misses = np.random.default_rng(0), 0
    median = {"normal": 0.0, "exponential": np.log(2), "standard_cauchy": 0.0}[draw]
    for _ in range(3000):
        ratios = np.exp(0.1 * np.clip(getattr(rng, draw)(size=rounds), -1000, 1000))
        found = compared(ratios, np.ones(rounds))
        misses += not found.low <= np.exp(0.1 * median) <= found.high
    assert misses <= 30 + 4 * 5.4


def test_too_few_rounds_say_nothing():
    found = compared([2.0] * 7, [1.0] * 7)
    assert (found.ratio, found.low, found.high, found.differs) == (2.0, 0.0, np.inf, False)
    assert compared([2.0] * referee.MIN_ROUNDS, [1.0] * referee.MIN_ROUNDS).differs


@pytest.mark.parametrize(
    ("low", "high", "differs"),
    [
        (0.9, 1.1, False),
        (1.001, 1.1, False),
        (1.001 * (1 + RESOLUTION), 1.1, True),
        (0.5, 0.999 / (1 + RESOLUTION), True),
        (0.5, 0.999, False),
    ],
)
def test_a_difference_is_claimed_beyond_the_resolution(low, high, differs):
    assert Comparison(1.0, low, high).differs == differs


def test_a_drift_of_the_machine_is_no_difference():
    """Both slow down tenfold over the rounds: what counts is the ratio within each."""
    drift = np.geomspace(1, 10, 41)
    assert compared(drift, drift) == Comparison(1.0, 1.0, 1.0)


# --- contenders


def test_each_has_a_process_and_takes_its_turns():
    found = held(Entry("a", HANDWRITTEN), Entry("b", BACKPROP))
    for record in found.values():
        assert referee.MIN_ROUNDS <= len(record.turns)
        assert all(seconds > 0 for kind in ("gradient", "primal") for seconds in record.seconds(kind))
        assert record.figures["first_call_seconds"] >= record.figures["prepare_seconds"] > 0
        assert record.figures["peak_bytes"] > 10**7
        assert "1 thr" in record.figures["blas"]
    assert found["a"].figures["library"].startswith("numpy ")
    assert psutil.Process().children() == []


def test_gradients_are_judged_before_anything_is_timed():
    seen = {}

    def judge(own, certified):
        seen.update(own)
        raise contest.Wrong("planted")

    ground = Ground(SMALL, arguments(SMALL, 16))
    with pytest.raises(contest.Wrong, match="planted"):
        hold([Entry("a", HANDWRITTEN)], ground, judge, np.random.default_rng(0), 0.1, 60.0)
    truth = reference_gradient(*problem(Task(SMALL, 16, 0)))
    assert np.abs(seen["a"] - truth.gradient).max() < 1e-14  # some 20 roundings of entries below 1
    assert psutil.Process().children() == []


def test_the_environment_is_each_contenders_own(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    found = held(Entry("a", HANDWRITTEN), Entry("b", HANDWRITTEN))
    assert "Prescott" not in found["a"].figures["blas"]


def test_prints_of_a_library_are_no_answers():
    assert held(Entry("a", HANDWRITTEN, faulty("prints")), Entry("b", HANDWRITTEN))["a"].turns


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("wrong", "wrong", "method: relative error 0.001"),
        ("hangs", "timeout", "method: no answer within the limit"),
        ("hangs when timed", "timeout", "method: no answer within the limit"),
        ("crashes", "crashed", "method: killed by signal SIGSEGV"),
        ("fails", "crashed", "method: ZeroDivisionError: planted"),
        ("leaves", "crashed", "method: exit code 1: planted last words"),
    ],
)
def test_a_fault_is_a_status_and_has_no_time(fault, status, reason):
    found = row(cell(limit=15.0 if fault == "hangs when timed" else 8.0 if fault == "hangs" else 60.0), fault)
    assert found["status"] == status
    assert found["reason"].startswith(reason)
    assert not {"gradient_seconds", "ratio", "backprop_seconds"} & set(found)
    assert psutil.Process().children() == []


def test_a_command_that_is_none_is_a_status():
    with pytest.raises(Failed, match="exit code"):
        held(Entry("a", HANDWRITTEN, (sys.executable, "-c", "raise SystemExit('no')")), Entry("b", HANDWRITTEN))


def test_contenders_end_with_the_referee():
    """Even those that are stopped."""
    code = (
        "import os, sys, time; sys.path.insert(0, os.environ['TESTS']); import test_contest as t\n"
        "def judge(*_): print(*[c.pid for c in t.psutil.Process().children()], flush=True); time.sleep(60)\n"
        "ground = t.Ground(t.SMALL, t.arguments(t.SMALL, 16))\n"
        "t.hold([t.Entry(n, t.HANDWRITTEN) for n in 'ab'], ground, judge, t.np.random.default_rng(0), 0.1, 60.0)\n"
    )
    environment = os.environ | {"TESTS": str(FAULTY.parent)}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    children = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
    try:
        deadline = time.monotonic() + 30.0
        while any(child.status() != psutil.STATUS_STOPPED for child in children):
            assert time.monotonic() < deadline, "a contender is never stopped"
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert psutil.wait_procs(children, timeout=10)[1] == []


# --- rows


def test_a_row_says_how_many_times_faster_backprop_is():
    found = row(cell())
    assert found["status"] == "ok"
    assert (found["dtype"], found["threads"], found["verified_by"]) == ("float64", 1, "certified")
    assert 0 < found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    assert found["ratio"] == pytest.approx(found["gradient_seconds"] / found["backprop_seconds"], rel=0.5)
    assert found["library"].startswith("numpy ")
    assert found["backprop_peak_bytes"] > found["peak_bytes"] > 10**7
    assert "1 thr" in found["backprop_blas"]


def test_where_few_samples_are_certified_the_whole_batch_has_to_agree(monkeypatch):
    monkeypatch.setattr("difflab.study.cells.MOST_CERTIFIED", 100)
    of = cell(batch=64)
    assert certified_task(of).batch == 8
    found = row(of)
    assert (found["status"], found["verified_by"]) == (
        "ok", "certified at batch 8, agreement with Backprop at batch 64",
    )  # fmt: skip
    assert found["gradient_seconds"] > 0
    wrong = row(of, "wrong at the whole batch")
    assert wrong["status"] == "wrong"
    assert "at the whole batch 0.1 from backprop" in wrong["reason"]


def test_all_is_certified_where_accuracy_is_asked_for(monkeypatch):
    monkeypatch.setattr("difflab.study.cells.MOST_CERTIFIED", 100)
    task = Task(SMALL, 64, 0)
    assert certified_task(Cell(task, BACKPROP, ["speed"], 60.0, 10**10)).batch == 8
    assert certified_task(Cell(task, BACKPROP, ["speed", "accuracy"], 60.0, 10**10)) == task


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ({"name": "finite_difference"}, "only back-ends that differentiate by all parameters at once"),
        ({"name": "jacobi"}, "only back-ends that differentiate by all parameters at once"),
        ({"name": "torch", "threads": 1000}, "needs a core for each of 1000 threads"),
        ({"name": "casadi", "max_ops": 10}, "each a line of C, limit 10"),
    ],
)
def test_who_cannot_take_part_is_refused(backend, reason):
    if backend["name"] == "casadi":
        pytest.importorskip("casadi", reason="CasADi is not installed: pip install 'difflab[peers]'")
    found = row(cell(resolved(backend)))
    assert found["status"] == "refused"
    assert reason in found["reason"]


# --- a kernel against itself


KERNELS = {
    "small": (PlacedNetwork(widths=[4, 8, 8, 3], data="iris"), 32),
    "middling": (PlacedNetwork(widths=[64, 32, 32, 10], data="digits-8x8"), 128),
}


def claims(trials, kernel="middling", busy=False, threads=1, fault="none"):
    """Comparisons of backprop with itself; another program spins on a core they take turns on, if that is asked."""
    network, batch = KERNELS[kernel]
    ground = Ground(network, arguments(network, batch), None, threads)
    backend = resolved({"name": "backprop", "threads": threads})
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    if spinning:
        os.sched_setaffinity(spinning.pid, referee.cores(1))
    try:
        for trial in range(trials):
            entries = [Entry("a", backend, faulty(fault)), Entry("b", backend, faulty("none"))]
            found = hold(entries, ground, nobody_is_wrong, np.random.default_rng([trial, threads, busy]), 1.0, 120.0)
            yield compared(found["a"].seconds("gradient"), found["b"].seconds("gradient"))
    finally:
        if spinning:
            spinning.kill()
            spinning.wait()


PLACES = {
    "quiet": {},
    "busy": {"busy": True},
    "small": {"kernel": "small"},
    "two threads": {"threads": 2},
    "two threads, busy": {"threads": 2, "busy": True},
}


def figures_of(found):
    """How often a difference is claimed, or would be without the margin, and on which side of 1 the ratios lie."""
    return {
        "trials": len(found),
        "claims": sum(one.differs for one in found),
        "intervals_without_1": sum(not one.low <= 1 <= one.high for one in found),
        "ratios_below_1": sum(one.ratio < 1 for one in found),
        "ratios": sorted(round(one.ratio, 4) for one in found),
    }


@pytest.mark.timeout(200 * max(TRIALS, 10))
def test_a_kernel_is_not_different_from_itself():
    """By default it tells that a trial runs, and no more; the campaign tells of the share, and that sides are alike.

    Half of the ratios are below 1, give or take three deviations, but once in 400 times.
    """
    started, figures = time.monotonic(), {}
    for place in PLACES if TRIALS >= ENOUGH else ["quiet"]:
        found = list(claims(TRIALS if place in ("quiet", "busy") else TRIALS // 2, **PLACES[place]))
        figures[place] = figures_of(found)
        assert all(0 < one.low <= one.ratio <= one.high for one in found), found
    campaigns.record("same", figures | {"seconds": round(time.monotonic() - started)})
    for place in figures.values() if TRIALS >= ENOUGH else []:
        assert place["claims"] <= FALSE_CLAIMS * place["trials"], figures
        assert abs(place["ratios_below_1"] - place["trials"] / 2) <= 1.5 * place["trials"] ** 0.5, figures


def test_a_kernel_that_is_a_fifth_slower_is_noticed():
    """Three times before it has been missed three times: other programs may be busy here."""
    seen = {True: 0, False: 0}
    for one in claims(5, fault="slow"):
        seen[one.differs and one.ratio > 1] += 1
        if 3 in seen.values():
            break
    assert seen[True] == 3, seen


def test_everyone_goes_first_equally_often():
    found = list(referee.orders("ab", 41, np.random.default_rng(0)))
    assert abs(sum(order[0] == "a" for order in found) - 20.5) == 0.5
    assert len({tuple(order) for order in referee.orders("abc", 40, np.random.default_rng(0))}) == 6


def test_every_cell_has_an_order_of_its_own_and_always_the_same():
    def order(of):
        return [tuple(order) for order in referee.orders("ab", 21, contest.drawn_for(of))]

    assert order(cell()) == order(cell())
    assert order(cell()) != order(cell(batch=17)) != order(cell(BACKPROP, batch=17))
