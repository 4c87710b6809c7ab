"""Threads that use one prepared network take turns, and what is copied or pickled goes on."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from _thread import interrupt_main
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread, Timer

import numba
import numpy as np
import pytest
from test_modes import NETS, problem

import difflab as dl
from difflab.kernels import turn as turns
from difflab.kernels.turn import FREE, TAKEN, Turn


MANY = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import difflab as dl
from difflab.kernels import sweeps

if sys.argv[1] == "planted":
    sweeps.takes = sweeps.compiled(lambda word: True)
net = dl.MLP.dense([16, 32, 32, 3])
theta, prepared, rng = net.init(0), dl.Backprop().prepare(net), np.random.default_rng(0)
given = [(rng.normal(size=(300, 16)), np.arange(300) % 3) for _ in range(3)]
expected = [prepared.value_and_gradient(theta, *each)[1].tobytes() for each in given]

def are_right(k):
    return all(prepared.value_and_gradient(theta, *given[k])[1].tobytes() == expected[k] for _ in range(2000))

with ThreadPoolExecutor(3) as pool:
    print(all(pool.map(are_right, range(3))))
"""


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="in plain Python threads never run at once")
@pytest.mark.parametrize(("planted", "are_right"), [("nothing", True), ("planted", False)])
def test_threads_that_share_a_prepared_network_get_answers_of_their_own(planted, are_right):
    """Without turns they spoilt one another's numbers, and at times the heap."""
    found = subprocess.run(
        [sys.executable, "-c", MANY, planted],
        env=os.environ | {"DIFFLAB_NO_CACHE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (found.returncode == 0 and found.stdout == "True\n") == are_right, found.stderr


RAISING = """
import math
import numpy as np
import difflab as dl

def value(z):
    return math.cosh(z)

def derivative(z):
    return math.sinh(z)

row = dl.Activation("cosh", lambda m, z: (m.exp(z) + m.exp(-z)) / 2, value, derivative)
dl.register_activation(row)
net, x, y = dl.MLP(1, [dl.Dense(1, "cosh"), dl.Dense(1)], "squared_error"), np.ones((3, 1)), np.ones((3, 1))
theta = net.init(0)
for options in ({}, {"mode": "reproducible"}):
    prepared = dl.Backprop(**options).prepare(net)
    expected = prepared.value(theta, x, y)
    for call in (prepared.value, prepared.value_and_gradient):
        try:
            call(theta, 1e5 * x, y)
        except ArithmeticError as error:
            print(type(error).__name__, end=" ")
        assert prepared.value(theta, x, y) == expected
"""


def test_after_an_error_in_a_rule_plain_python_goes_on():
    """It left the turn taken, so that the next call waited for ever."""
    found = subprocess.run(
        [sys.executable, "-c", RAISING],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.stdout.split() == ["OverflowError"] * 2 + ["ArithmeticError"] * 2, found.stderr


@pytest.mark.parametrize("kind", ["smooth", "masked", "coupled"])
def test_every_method_takes_its_turn(kind):
    """All at once, on batches of sizes by turns, which have workspaces of their own where samples cannot be cut."""
    prepared, net = dl.Backprop().prepare(NETS[kind]), NETS[kind]
    along = np.random.default_rng(2).normal(size=net.n_params)
    given = {size: problem(kind, size, "float64") for size in (5, 6, 7)}
    calls = {
        "gradient": lambda size: prepared.value_and_gradient(*given[size])[1],
        "bound": lambda size: prepared.bound_to(*given[size]).value_and_gradient()[1],
        "value": lambda size: np.array(prepared.value(*given[size])),
        "inputs": lambda size: prepared.input_gradient(*given[size]),
        "hvp": lambda size: prepared.hvp(*given[size], along),
        "jvp": lambda size: prepared.jvp(*given[size][:2], along),
    }
    todo = [(name, size) for name in calls for size in given]
    expected = {each: calls[each[0]](each[1]).tobytes() for each in todo}

    def are_right(each: tuple[str, int]) -> bool:
        return all(calls[each[0]](each[1]).tobytes() == expected[each] for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(are_right, todo))


def test_one_thread_is_inside_at_a_time_and_may_enter_again():
    turn, is_inside, may_leave, order = Turn(), Event(), Event(), []

    def hold() -> None:
        with turn, turn:
            is_inside.set()
            may_leave.wait(20)
            order.append("first")

    other = Thread(target=hold)
    other.start()
    assert is_inside.wait(20)
    late = Thread(target=lambda: turn.__enter__() or order.append("second"))
    late.start()
    time.sleep(0.05)
    assert order == []
    may_leave.set()
    other.join(20)
    late.join(20)
    assert order == ["first", "second"]


def can_be_entered(turn: Turn) -> bool:
    """By any thread, and left."""

    def enter() -> None:
        with turn:
            assert turn.is_taken

    for _ in range(2):
        other = Thread(target=enter, daemon=True)
        other.start()
        other.join(20)
    return not (other.is_alive() or turn.is_taken)


def test_who_waits_can_be_interrupted_and_has_no_turn_then():
    turn = Turn()
    turn._words[0] = TAKEN  # As by a compiled sweep of another thread.
    late = Timer(100, lambda: turn._words.fill(FREE))
    late.start()
    Timer(0.1, interrupt_main).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), turn:
        pass
    assert time.monotonic() - started < 90
    late.cancel()
    assert turn.is_taken
    turn._words[0] = FREE
    assert can_be_entered(turn)


def test_who_is_interrupted_with_the_turn_just_taken_gives_it_back(monkeypatch):
    turn, door = Turn(), turns._door

    def interrupted(function):
        if function is not turns.wait_for:
            return door(function)

        def wait_for(address: int) -> None:
            assert door(function)(address)
            raise KeyboardInterrupt

        return wait_for

    with monkeypatch.context() as patched:
        patched.setattr(turns, "_door", interrupted)
        with pytest.raises(KeyboardInterrupt), turn:
            pass
    assert can_be_entered(turn)


def test_who_is_interrupted_leaves_no_direction_behind(monkeypatch):
    prepared, (theta, x, y) = dl.Backprop().prepare(NETS["smooth"]), problem("smooth", 5, "float64")
    expected, given = prepared.hvp(theta, x, y, theta), prepared._set

    def interrupted(*words_and_values) -> None:
        given(*words_and_values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prepared, "_set", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared.hvp(theta, x, y, theta, np.ones_like(x))
    assert (prepared.hvp(theta, x, y, theta) == expected).all()


def forked(is_right: Callable[[], bool]) -> int:
    """A child that ends with 0 if it is right there, and ends in any case."""
    if pid := os.fork():
        return pid
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(20)
    try:
        os._exit(0 if is_right() else 1)
    finally:
        os._exit(2)


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_no_plan_that_is_half_in_use():
    """Samples stay, though a thread that did not come along had them move."""
    prepared, (theta, x, y) = dl.Backprop().prepare(NETS["smooth"]), problem("smooth", 5, "float64")
    expected, plan = prepared.hvp(theta, x, y, theta), prepared._plans.of("hvp", 5)
    left = {"X_DOT": np.ones_like(x), "X_DOT_STEP": x.strides[0]}
    with prepared._turn:
        prepared._set(plan.words, left)
        pid = forked(lambda: (prepared.hvp(theta, x, y, theta) == expected).all())
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_a_thread_that_did_not_come_along():
    prepared, arguments = dl.Backprop().prepare(NETS["smooth"]), problem("smooth", 5, "float64")
    expected, is_inside, may_leave = prepared.value(*arguments), Event(), Event()

    def hold() -> None:
        with prepared._turn:
            is_inside.set()
            may_leave.wait(20)

    other = Thread(target=hold)
    other.start()
    assert is_inside.wait(20)
    pid = forked(lambda: prepared.value(*arguments) == expected)
    may_leave.set()
    other.join(20)
    assert os.waitpid(pid, 0)[1] == 0


def test_what_is_copied_or_pickled_is_prepared_anew():
    prepared, arguments = dl.Backprop("float32").prepare(NETS["smooth"]), problem("smooth", 5, "float32")
    expected = prepared.value_and_gradient(*arguments)[1].tobytes()
    for other in (pickle.loads(pickle.dumps(prepared)), copy.deepcopy(prepared), copy.copy(prepared)):  # noqa: S301
        assert other._turn.address != prepared._turn.address
        assert other.value_and_gradient(*arguments)[1].tobytes() == expected
