"""Threads that share the samples of a batch: who calls never waits for one that has begun nothing."""

import ctypes
import gc
import os
import signal
import threading
import time
import warnings

import numba
import numpy as np
import pytest
from test_modes import NETS, answer, each_dtype, each_kind, problem

import difflab as dl
from difflab.backends import backprop
from difflab.backends.backprop import CHUNK
from difflab.kernels import crew as layout
from difflab.kernels.layout import LOSS_SUMS, TOTAL
from difflab.kernels.threads import Crew


def compiled_only(test):
    return pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="plain Python has no helpers")(test)


@pytest.fixture
def threads_at_once(monkeypatch):
    """However small the work is."""
    monkeypatch.setattr(backprop, "WORTH_A_THREAD", 1)


def until(condition, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def slots(crew: Crew, word: int) -> np.ndarray:
    return crew.words[layout.N_HEAD :].reshape(-1, layout.N_SLOT)[:, word]


def helpers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "difflab"}


def test_a_large_enough_batch_is_shared_and_a_small_one_is_not():
    crew = dl.Backprop(threads=2).prepare(NETS["smooth"])._crew
    enough = 2 * -(-backprop.WORTH_A_THREAD // (6 * NETS["smooth"].n_params))
    assert [-(-batch // crew.chunk_size(batch)) for batch in (1, 2, 33, enough - 1, enough)] == [1, 1, 1, 1, 2]


@pytest.mark.usefixtures("threads_at_once")
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("batch", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 1])
def test_chunks_are_as_many_as_threads_or_of_a_fixed_size(threads, batch):
    fast, fixed = (
        dl.Backprop(threads=threads, mode=mode).prepare(NETS["smooth"])._crew for mode in ("fast", "reproducible")
    )
    assert -(-batch // fast.chunk_size(batch)) <= threads
    assert fixed.chunk_size(batch) == min(batch, CHUNK)


@pytest.mark.parametrize("options", [{}, {"threads": 1}], ids=str)
def test_one_thread_has_no_crew(options):
    assert dl.Backprop(**options).prepare(NETS["smooth"])._crew is None


@pytest.mark.usefixtures("threads_at_once")
@each_dtype
@each_kind
@pytest.mark.parametrize("options", [{"threads": 2}, {"threads": 3, "mode": "reproducible"}], ids=str)
def test_nobody_but_the_caller_makes_the_same_bits(kind, dtype, options, monkeypatch):
    """As if every helper slept."""
    expected = answer(kind, 700, dtype, **options)
    monkeypatch.setattr(Crew, "wake", lambda *_: None)
    value, gradient = answer(kind, 700, dtype, **options)
    assert (value, gradient.tobytes()) == (expected[0], expected[1].tobytes())


def shared(batch: int = 33, threads: int = 2) -> tuple[dl.Prepared, Crew]:
    prepared = dl.Backprop(threads=threads).prepare(NETS["smooth"])
    prepared.value_and_gradient(*problem("smooth", batch, "float64"))
    return prepared, prepared._crew


@compiled_only
@pytest.mark.usefixtures("threads_at_once")
def test_helpers_take_what_is_offered():
    arguments = problem("smooth", 33, "float64")
    prepared = dl.Backprop(threads=2).prepare(NETS["smooth"])
    prepared.value_and_gradient(*arguments)
    crew = prepared._crew
    plan = (ctypes.c_int64 * int(slots(crew, layout.SIZE)[1])).from_address(int(slots(crew, layout.PLAN)[1]))
    loss = (ctypes.c_double * 3).from_address(plan[LOSS_SUMS])
    loss[2], plan[TOTAL] = np.nan, 0
    slots(crew, layout.OFFER)[1] = layout.OFFERED
    crew.wake(33)
    assert until(lambda: slots(crew, layout.OFFER)[1] == layout.NOTHING)
    assert loss[2] == 0
    assert len(arguments) == 3


@compiled_only
@pytest.mark.usefixtures("threads_at_once")
def test_helpers_sleep_when_there_is_nothing_and_wake_again():
    _, crew = shared()
    for _ in range(3):
        assert until(lambda: slots(crew, layout.IS_AWAKE)[1] == 0)
        crew.wake(33)
        assert until(lambda: slots(crew, layout.IS_AWAKE)[1] == 1 or crew._calls[0].is_set() is False)


@compiled_only
@pytest.mark.usefixtures("threads_at_once")
def test_helpers_end_with_what_they_helped():
    before = helpers()
    prepared, crew = shared(threads=3)
    mine = helpers() - before
    assert len(mine) == 2
    del prepared, crew
    gc.collect()
    assert until(lambda: not mine & helpers())


@compiled_only
@pytest.mark.usefixtures("threads_at_once")
def test_small_batches_start_no_thread():
    before = helpers()
    prepared, _ = shared(batch=1)
    assert helpers() <= before
    assert prepared.net is NETS["smooth"]


@pytest.mark.usefixtures("threads_at_once")
@pytest.mark.parametrize("kind", ["smooth", "learnable"])
@pytest.mark.parametrize("options", [{"threads": 3}, {"threads": 3, "mode": "reproducible"}], ids=str)
def test_products_with_the_hessian_are_shared_too(kind, options):
    theta, x, y = problem(kind, 700, "float64")
    rng = np.random.default_rng(5)
    theta_dot, x_dot = rng.normal(size=theta.shape), rng.normal(size=x.shape)
    alone, some = dl.Backprop().prepare(NETS[kind]), dl.Backprop(**options).prepare(NETS[kind])
    for along in (None, x_dot):
        expected = alone.hvp(theta, x, y, theta_dot, along)
        found = [some.hvp(theta, x, y, theta_dot, along) for _ in range(2)]
        np.testing.assert_allclose(found[0], expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())
        assert found[0].tobytes() == found[1].tobytes()
    if "mode" in options:
        one = dl.Backprop(mode="reproducible").prepare(NETS[kind]).hvp(theta, x, y, theta_dot, x_dot)
        assert found[0].tobytes() == one.tobytes()


@pytest.mark.usefixtures("threads_at_once")
def test_a_forked_process_has_threads_of_its_own():
    arguments = problem("smooth", 33, "float64")
    prepared = dl.Backprop(threads=2).prepare(NETS["smooth"])
    expected = prepared.value_and_gradient(*arguments)[1].tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(prepared.value_and_gradient(*arguments)[1].tobytes() != expected)
    deadline, ended = time.monotonic() + 30, (0, 0)
    while ended == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
        ended = os.waitpid(pid, os.WNOHANG)
    if ended == (0, 0):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert ended == (pid, 0)
