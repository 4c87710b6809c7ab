"""Threads that share the samples of a batch: who calls waits for none that has begun nothing, and bits stay."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from threading import Thread

import numba
import numpy as np
import pytest
from planting import with_fault
from test_modes import NETS, answer, each_dtype, each_kind, problem

import difflab as dl
from difflab.backends import backprop
from difflab.backends.backprop import CHUNK
from difflab.kernels import crew as layout
from difflab.kernels.layout import CREW, LIMITS, LOSS_SUMS, OF_BATCH, PARTNERS, TILE, TOTAL
from difflab.kernels.threads import NAME, PATIENCE, Crew
from difflab.primitives.activations import ACTIVATIONS


compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="plain Python has no helpers")
shared_at_once = pytest.mark.usefixtures("threads_at_once")
SHARING = [{"threads": 2}, {"threads": 3}, {"threads": 3, "mode": "reproducible"}, {"mode": "reproducible"}]
each_sharing = pytest.mark.parametrize("options", SHARING, ids=str)
LONG = 5 * CHUNK + 1
"""Samples of six chunks, so that two or three threads have several."""


def until(condition, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def helpers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == NAME}


def is_asleep(crew: Crew) -> bool:
    return not crew.of_helpers(layout.IS_AWAKE).any()


def made_by_helpers(crew: Crew) -> int:
    return int(crew.of_helpers(layout.N_MADE).sum())


def until_helped(crew: Crew, call, beyond: int = 0) -> bool:
    """Call in a row until helpers have made more chunks than that: after a sleep one call is over before they wake."""

    def hundred_calls() -> bool:
        for _ in range(100):
            call()
        return made_by_helpers(crew) > beyond

    return until(hundred_calls)


def words_at(place: int, size: int) -> ctypes.Array:
    return (ctypes.c_int64 * size).from_address(place)


def partners_of(words: np.ndarray, count: int) -> list[ctypes.Array]:
    places = words_at(int(words[PARTNERS]), 2 * count)
    return [words_at(places[2 * k], places[2 * k + 1]) for k in range(count)]


# --- chunks


def test_a_large_enough_batch_is_shared_and_a_small_one_is_not(monkeypatch):
    operations = dl.Backprop().prepare(NETS["smooth"]).facts["gradient_ops"]
    monkeypatch.setattr(backprop, "WORTH_A_THREAD", 10 * operations - 1)
    crew = dl.Backprop(threads=2).prepare(NETS["smooth"])._crew
    assert [crew.chunks(batch) for batch in (1, 2, 19, 20, 33)] == [1, 1, 1, 2, 2]


@shared_at_once
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("batch", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 1])
def test_chunks_are_at_most_as_many_as_threads_or_of_a_fixed_size(threads, batch):
    fast, fixed = (
        dl.Backprop(threads=threads, mode=mode).prepare(NETS["smooth"])._crew for mode in ("fast", "reproducible")
    )
    assert 1 <= fast.chunks(batch) <= threads
    assert fixed.chunks(batch) == -(-batch // CHUNK)


@pytest.mark.parametrize("kind", ["smooth", "masked", "coupled"])
def test_one_thread_or_samples_that_cannot_be_cut_have_no_crew(kind):
    threads = 1 if kind == "smooth" else 2
    assert dl.Backprop(threads=threads).prepare(NETS[kind])._crew is None


@shared_at_once
@each_sharing
def test_partners_have_tiles_of_one_size(options):
    """Without penalties a plan has fewer columns, and would have larger tiles."""
    prepared = dl.Backprop(**options).prepare(NETS["learnable"])
    prepared.hvp(*problem("learnable", 33, "float64"), np.ones(NETS["learnable"].n_params))
    shared = [plan for plans in prepared._plans.kept.values() for plan in plans.values() if plan.words[CREW]]
    assert len(shared) == 3
    for plan in shared:
        partners = partners_of(plan.words, prepared._crew.partners)
        assert {partner[TILE] for partner in partners} == {plan.words[TILE]}


# --- what is found


@shared_at_once
@each_dtype
@each_kind
@each_sharing
def test_nobody_but_the_caller_makes_the_same_bits(kind, dtype, options, monkeypatch):
    """As if every helper slept."""
    expected = answer(kind, LONG, dtype, **options)
    monkeypatch.setattr(Crew, "wake", lambda *_: None)
    value, gradient = answer(kind, LONG, dtype, **options)
    assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())


@compiled_only
@shared_at_once
@pytest.mark.parametrize("options", [each for each in SHARING if "threads" in each], ids=str)
def test_a_thousand_calls_of_which_helpers_make_a_part_have_the_same_bits(options):
    arguments = problem("smooth", LONG, "float64")
    prepared = dl.Backprop(**options).prepare(NETS["smooth"])
    expected = prepared.value_and_gradient(*arguments)
    assert until_helped(prepared._crew, lambda: prepared.value(*arguments), 100)
    for _ in range(1000):
        value, gradient = prepared.value_and_gradient(*arguments)
        assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())


@shared_at_once
@pytest.mark.parametrize("kind", ["smooth", "learnable", "penalised"])
@each_sharing
def test_products_with_the_hessian_are_shared_too(kind, options):
    net = PENALISED if kind == "penalised" else NETS[kind]
    theta, x, y = naive_problem(net) if kind == "penalised" else problem(kind, 700, "float64")
    rng = np.random.default_rng(5)
    theta_dot, x_dot = rng.normal(size=theta.shape), rng.normal(size=x.shape)
    alone, some = dl.Backprop().prepare(net), dl.Backprop(**options).prepare(net)
    for along in (None, x_dot):
        expected = alone.hvp(theta, x, y, theta_dot, along)
        found = [some.hvp(theta, x, y, theta_dot, along) for _ in range(2)]
        np.testing.assert_allclose(found[0], expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())
        assert found[0].tobytes() == found[1].tobytes()
    if "mode" in options:
        one = dl.Backprop(mode="reproducible").prepare(net).hvp(theta, x, y, theta_dot, x_dot)
        assert found[0].tobytes() == one.tobytes()


PENALISED = dl.MLP(6, [dl.Dense(9, "tanh"), dl.Dense(3)], l1=0.01, l2=0.1)
"""With the mean over samples."""


def naive_problem(net: dl.MLP, batch: int = 700) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return net.init(0), rng.normal(size=(batch, net.n_inputs)), rng.integers(net.n_outputs, size=batch)


@shared_at_once
@each_sharing
def test_penalties_beside_a_mean_count_once(options):
    value, gradient = dl.Backprop(**options).prepare(PENALISED).value_and_gradient(*naive_problem(PENALISED))
    expected = dl.Backprop().prepare(PENALISED).value_and_gradient(*naive_problem(PENALISED))
    assert value == pytest.approx(expected[0], rel=1e-13)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-10, atol=1e-13)


LARGE = dl.MLP(90, [dl.Dense(100, "tanh"), dl.Dense(3)])
"""With enough parameters for threads to share what is added up."""


@shared_at_once
@each_dtype
@each_sharing
def test_sums_that_are_shared_are_those_of_one_thread(dtype, options):
    assert LARGE.n_params > layout.WORTH_SHARING + layout.AT_ONCE
    theta, x, y = naive_problem(LARGE)
    arguments = theta.astype(dtype), x.astype(dtype), y
    along = np.random.default_rng(1).normal(size=LARGE.n_params).astype(dtype)
    some = dl.Backprop(dtype, **options).prepare(LARGE)
    alone = dl.Backprop(dtype, mode=options.get("mode", "fast")).prepare(LARGE)
    for find in (lambda each: each.value_and_gradient(*arguments)[1], lambda each: each.hvp(*arguments, along)):
        found, expected = find(some), find(alone)
        if "mode" in options:
            assert found.tobytes() == expected.tobytes()
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(found, expected, rtol=0, atol=300 * eps * np.abs(expected).max())


BAD = {
    **{f"theta {at}": ("theta", at, math.inf, "theta must be finite") for at in (0, 4500, 8999)},
    **{f"x {at}": ("x", (at, 89), -math.inf, "x must be finite") for at in (0, LONG // 2, -1)},
    **{f"y {at}": ("y", at, 3, "y must") for at in (0, LONG // 2, -1)},
    **{f"theta_dot {at}": ("theta_dot", at, math.inf, "theta_dot must be finite") for at in (0, 4500, -1)},
}
"""Which number is made a bad one, and what is said of it. Of infinite weights tanh makes 1, and slopes of 0."""


@shared_at_once
@pytest.mark.parametrize("bad", BAD)
@each_sharing
def test_whoever_looks_at_a_number_refuses_a_bad_one(bad, options):
    name, at, number, said = BAD[bad]
    given = dict(zip(("theta", "x", "y"), naive_problem(LARGE, LONG), strict=True))
    given["theta_dot"] = np.ones(LARGE.n_params)
    prepared = dl.Backprop(**options).prepare(LARGE)
    before = prepared.hvp(**given)
    kept, given[name][at] = given[name][at], number
    with pytest.raises(ValueError, match=said):
        prepared.hvp(**given)
    if name != "theta_dot":
        del given["theta_dot"]
        with pytest.raises(ValueError, match=said):
            prepared.value_and_gradient(**given)
        with pytest.raises(ValueError, match=said):
            prepared.value(**given)
    given[name][at], given["theta_dot"] = kept, np.ones(LARGE.n_params)
    assert prepared.hvp(**given).tobytes() == before.tobytes()


@shared_at_once
@each_sharing
def test_a_gradient_that_is_not_finite_is_no_answer_though_its_loss_is_one(options):
    """Two samples of large inputs, of which one has a large share of the gradient and the other is classified well."""
    net = dl.MLP(90, [dl.Dense(100, "identity"), dl.Dense(3)], loss="squared_error", reduction="sum")
    x = np.zeros((LONG, 90))
    x[-1, -1] = 1e308
    prepared, theta = dl.Backprop(**options).prepare(net), np.zeros(net.n_params)
    theta[net.parameters[2].offset : net.parameters[3].offset] = 1.0
    y = np.full((LONG, 3), 1e3)
    with pytest.raises(FloatingPointError, match="not finite"):
        prepared.value_and_gradient(theta, x, y)
    value, gradient = prepared.value_and_gradient(theta, x, y, allow_nonfinite=True)
    assert math.isfinite(value)
    assert np.isinf(gradient).sum() == 100


def failing(z: float) -> float:
    if z > 100.0:
        raise ValueError("planted")
    return z


@shared_at_once
@pytest.mark.parametrize("sample", [0, -1])
def test_an_error_in_a_rule_is_one_of_the_call_whoever_made_the_chunk(monkeypatch, sample):
    row = dl.Activation("failing", expression=lambda m, z: z, value=failing, derivative=lambda z: 1.0)
    monkeypatch.setitem(ACTIVATIONS, "failing", row)
    net = dl.MLP(2, [dl.Dense(2, "failing"), dl.Dense(2)])
    theta, x, y = naive_problem(net, 40)
    prepared, bad = dl.Backprop(threads=2).prepare(net), x.copy()
    bad[sample] = 1e6 * np.sign(theta[:2])
    expected = dl.Backprop().prepare(net).value_and_gradient(theta, x, y)
    for _ in range(3):
        with pytest.raises((ArithmeticError, ValueError), match="a rule raised an error|planted"):
            prepared.value_and_gradient(theta, bad, y)
        value, gradient = prepared.value_and_gradient(theta, x, y)
        assert value == pytest.approx(expected[0], rel=1e-13)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-11, atol=1e-13)


# --- threads


@compiled_only
@shared_at_once
def test_helpers_sleep_when_there_is_nothing_and_make_chunks_when_they_are_woken():
    prepared = dl.Backprop(threads=2).prepare(NETS["smooth"])
    arguments = problem("smooth", 33, "float64")
    prepared.value_and_gradient(*arguments)
    crew = prepared._crew
    assert until_helped(crew, lambda: prepared.value(*arguments))
    plan = words_at(int(crew.of_helpers(layout.PLAN)[0]), int(crew.of_helpers(layout.SIZE)[0]))
    loss = (ctypes.c_double * LIMITS).from_address(plan[LOSS_SUMS])
    for _ in range(3):
        assert until(lambda: is_asleep(crew) and crew._calls[0].empty())
        time.sleep(0.05)
        assert until(lambda: is_asleep(crew))
        before, loss[OF_BATCH], plan[TOTAL] = made_by_helpers(crew), np.nan, 0
        crew.of_helpers(layout.OFFER)[0] = layout.OFFERED
        time.sleep(0.01)
        assert crew.of_helpers(layout.OFFER)[0] == layout.OFFERED
        crew.wake(33)
        assert until(lambda: crew.of_helpers(layout.OFFER)[0] == layout.NOTHING)
        assert (loss[OF_BATCH], made_by_helpers(crew)) == (0, before + 1)


@compiled_only
@shared_at_once
@pytest.mark.parametrize("how", ["with arguments", "bound", "at leisure", "hvp"])
def test_every_way_to_call_wakes_helpers(how):
    prepared = dl.Backprop(threads=2).prepare(NETS["smooth"])
    theta, x, y = problem("smooth", 700, "float64")
    bound = prepared.bound_to(theta, x, y)
    calls = {
        "with arguments": lambda: prepared.value_and_gradient(theta, x, y),
        "bound": bound.value_and_gradient,
        "at leisure": lambda: prepared.value_and_gradient(theta, np.asfortranarray(x), y),
        "hvp": lambda: prepared.hvp(theta, x, y, theta),
    }
    assert until(lambda: is_asleep(prepared._crew))
    assert until_helped(prepared._crew, calls[how], made_by_helpers(prepared._crew))


@compiled_only
@shared_at_once
def test_helpers_that_are_about_to_sleep_look_on_for_the_next_call():
    """Once they slept while it read its arguments, and it did everything alone."""
    prepared = dl.Backprop(threads=2).prepare(NETS["smooth"])
    prepared.value_and_gradient(*problem("smooth", 33, "float64"))
    crew = prepared._crew
    assert until(lambda: is_asleep(crew))
    crew.of_helpers(layout.LOOKS)[:] = 200 * PATIENCE
    crew.wake(33)
    assert until(lambda: not is_asleep(crew))
    started = time.monotonic()
    assert until(lambda: is_asleep(crew))
    patience = time.monotonic() - started
    crew.wake(33)
    assert until(lambda: not is_asleep(crew))
    for _ in range(10):
        time.sleep(0.25 * patience)  # Far below, as patience was found while others may have had the processor.
        assert not is_asleep(crew)
        crew.wake(33)


@compiled_only
def test_threads_that_call_at_once_start_one_helper_for_each_slot(monkeypatch):
    class Slow(Thread):
        def start(self) -> None:
            time.sleep(0.05)
            super().start()

    monkeypatch.setattr("difflab.kernels.threads.Thread", Slow)
    crew = Crew(4, 0, 1, "float64")
    callers = [Thread(target=crew.wake, args=(100,)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert len(crew._calls) == 3


@compiled_only
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_a_lock_of_its_own():
    crew = Crew(2, 0, 1, "float64")
    with crew._lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # What would wait for ever ends then.
            crew.wake(100)
            os._exit(0 if len(crew._calls) == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0


@compiled_only
@shared_at_once
def test_derivatives_that_are_not_shared_wake_nobody():
    prepared = dl.Backprop(threads=2).prepare(NETS["smooth"])
    theta, x, _ = problem("smooth", 700, "float64")
    prepared.jvp(theta, x, theta)
    assert (is_asleep(prepared._crew), prepared._crew._pid) == (True, 0)


@compiled_only
@shared_at_once
def test_no_more_helpers_are_woken_than_there_are_chunks():
    prepared = dl.Backprop(threads=4).prepare(NETS["smooth"])
    for _ in range(200):
        prepared.value_and_gradient(*problem("smooth", 2, "float64"))
    made = prepared._crew.of_helpers(layout.N_MADE)
    assert (made[1:] == 0).all()


@compiled_only
@shared_at_once
def test_no_more_helpers_are_started_than_there_is_something_for():
    before = helpers()
    prepared = dl.Backprop(threads=64).prepare(NETS["smooth"])
    for batch, expected in ((2, 1), (3, 2), (2, 2), (4, 3)):
        prepared.value_and_gradient(*problem("smooth", batch, "float64"))
        assert len(helpers() - before) == expected


@compiled_only
@shared_at_once
def test_helpers_end_with_what_they_helped():
    before = helpers()
    prepared = dl.Backprop(threads=3).prepare(NETS["smooth"])
    prepared.value_and_gradient(*problem("smooth", 33, "float64"))
    mine = helpers() - before
    assert len(mine) == 2
    del prepared
    gc.collect()
    assert until(lambda: not mine & helpers())


@compiled_only
@shared_at_once
def test_small_batches_start_no_thread():
    before = helpers()
    prepared = dl.Backprop(threads=2).prepare(NETS["smooth"])
    prepared.value_and_gradient(*problem("smooth", 1, "float64"))
    assert helpers() <= before


@compiled_only
@shared_at_once
def test_without_room_for_threads_the_caller_makes_all(monkeypatch):
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    expected = answer("smooth", 700, "float64", threads=3)
    monkeypatch.setattr(threading.Thread, "start", full)
    value, gradient = answer("smooth", 700, "float64", threads=3)
    assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())


@compiled_only
@shared_at_once
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Of JAX, where tests before have loaded it.
def test_a_forked_process_has_helpers_of_its_own():
    arguments = problem("smooth", 33, "float64")
    prepared = dl.Backprop(threads=2).prepare(NETS["smooth"])
    expected = prepared.value_and_gradient(*arguments)[1].tobytes()
    crew = prepared._crew
    assert until(lambda: is_asleep(crew))
    crew.of_helpers(layout.OFFER)[0] = layout.TAKEN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        before = made_by_helpers(crew)
        same = prepared.value_and_gradient(*arguments)[1].tobytes() == expected
        helped = until_helped(crew, lambda: prepared.value(*arguments), before)
        os._exit(0 if same and helped else 1)
    crew.of_helpers(layout.OFFER)[0] = layout.NOTHING
    deadline, ended = time.monotonic() + 60, (0, 0)
    while ended == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
        ended = os.waitpid(pid, os.WNOHANG)
    if ended == (0, 0):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert ended == (pid, 0)


SHORT_LIFE = """
import numpy as np
import difflab as dl
from difflab.backends import backprop
backprop.WORTH_A_THREAD = 1
net = dl.MLP.dense([3, 4, 2])
prepared = dl.Backprop(threads=3).prepare(net)
for _ in range({calls}):
    prepared.value_and_gradient(net.init(0), np.ones((64, 3)), np.zeros(64, int))
"""


@compiled_only
@pytest.mark.parametrize("calls", [1, 50])
def test_a_process_ends_quietly_while_helpers_look(calls):
    for _ in range(3):
        found = subprocess.run([sys.executable, "-c", SHORT_LIFE.format(calls=calls)], capture_output=True, timeout=120)
        assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


# --- planted faults


FAULTS = {
    "every chunk the first samples": ("plan[X] + begin * plan[N_INPUTS]", "plan[X] + 0 * plan[N_INPUTS]"),
    "every chunk the first targets": ("begin * (8 if plan[IS_CLASSES]", "0 * (8 if plan[IS_CLASSES]"),
    "a mean of every chunk": ("partner[TOTAL], partner[DIVISOR] = samples, parts", "partner[TOTAL] = samples"),
    "chunks one sample short": (
        "begin, min(chunk, batch - begin), parts",
        "begin, min(chunk, batch - begin) - 1, parts",
    ),
    "the last gradient alone": ("sums[i] += part[i]", "sums[i] = part[i]"),
    "a gradient that misses its last chunk": ("0, plan[N_PARTS]):", "0, plan[N_PARTS] - 1):"),
    "the first chunk of later waves left out": ("1 if plan[WAVE] == 0 else 0", "1"),
    "the last loss alone": ("loss = loss + losses_of(", "loss = losses_of("),
    "gradients of chunks left out": ("if plan[RESULT] != 0:", "if 0:"),
    "penalties in every wave": ("if plan[WAVE] > 0 and k == 0 else k", "if 0 else k"),
    "penalties in every chunk": ("make_plans(program.without_totals,", "make_plans(program,"),
}


@pytest.fixture
def plain_python(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)


def distance(edit: tuple[str, ...]) -> float:
    """From one thread, of loss and gradient, with several waves of chunks."""
    arguments = naive_problem(PENALISED, 7)
    found = with_fault(edit, threads=2, mode="reproducible")(PENALISED).value_and_gradient(*arguments)
    expected = with_fault(())(PENALISED).value_and_gradient(*arguments)
    return max(abs(found[0] - expected[0]), float(np.abs(found[1] - expected[1]).max()))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(backprop, "CHUNK", 2)


@pytest.mark.usefixtures("plain_python", "small_chunks")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    assert distance(()) < 1e-13
    assert distance(FAULTS[fault]) > 1e-6


TANGENT_FAULT = "plan[X_DOT] + begin * plan[X_DOT_STEP]", "plan[X_DOT] + 0 * plan[X_DOT_STEP]"


@pytest.mark.usefixtures("plain_python", "small_chunks")
def test_a_tangent_of_the_wrong_samples_is_caught():
    theta, x, y = naive_problem(PENALISED, 7)
    along = np.random.default_rng(1).normal(size=theta.shape), np.random.default_rng(2).normal(size=x.shape)
    found = {
        edit: with_fault(edit, mode="reproducible")(PENALISED).hvp(theta, x, y, *along) for edit in ((), TANGENT_FAULT)
    }
    expected = with_fault(())(PENALISED).hvp(theta, x, y, *along)
    assert np.abs(found[()] - expected).max() < 1e-12
    assert np.abs(found[TANGENT_FAULT] - expected).max() > 1e-6
