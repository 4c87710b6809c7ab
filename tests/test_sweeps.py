"""Compiled sweeps: those of the naive twin, no stale state, within bounds, plain Python too, and never cached stale."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest

import difflab as dl


TESTS = Path(__file__).parent
PACKAGE = Path(dl.__file__).parent
DTYPES = ("float64", "float32")

dtypes = pytest.mark.parametrize("dtype", DTYPES)


def problem(seed: int, dtype: str = "float64") -> tuple:
    rng = np.random.default_rng(seed)
    net = naive.random_network(rng)
    arguments = naive.random_problem(net, rng, int(rng.integers(1, 9)))
    return net, *(a if a.dtype.kind == "i" else a.astype(dtype) for a in arguments)


def bound(net: dl.MLP, batch: int, dtype: str) -> float:
    """Both the sweep and its twin round."""
    return sum(naive.accumulated_rounding(net, batch, float(np.finfo(of).eps)) for of in (dtype, "float64"))


@dtypes
@pytest.mark.parametrize("block", range(5))
def test_gradient_is_that_of_the_naive_twin(dtype, block):
    for seed in range(50 * block, 50 * block + 50):
        net, theta, x, y = problem(seed, dtype)
        _, gradient = dl.Backprop(dtype).prepare(net).value_and_gradient(theta, x, y)
        expected = naive.gradient(net, theta, x, y)
        error = np.linalg.norm(gradient - expected)
        assert error <= bound(net, len(x), dtype) * np.linalg.norm(expected), (seed, net)


@dtypes
def test_value_is_that_of_the_naive_twin(dtype):
    for seed in range(200):
        net, theta, x, y = problem(seed, dtype)
        prepared = dl.Backprop(dtype).prepare(net)
        expected = naive.loss(net, theta, x, y)
        # The loss rounds as its outputs do, whose size is some units here and comes in squared.
        size = abs(expected) + 30 * (len(x) if net.reduction == "sum" else 1)
        value, _ = prepared.value_and_gradient(theta, x, y)
        assert abs(value - expected) <= bound(net, len(x), dtype) * size, (seed, net)
        assert prepared.value(theta, x, y) == value


@dtypes
def test_workspace_of_one_batch_size_leaves_nothing_to_the_next(dtype):
    net = dl.MLP.dense([3, 5, 4, 2], hidden="softplus", loss="squared_error")
    used, rng = dl.Backprop(dtype).prepare(net), np.random.default_rng(0)
    for batch in (5, 2, 5, 5, 9, 1, 9):
        theta, x, y = (a.astype(dtype) for a in naive.random_problem(net, rng, batch))
        value, gradient = used.value_and_gradient(theta, x, y)
        fresh_value, fresh_gradient = dl.Backprop(dtype).prepare(net).value_and_gradient(theta, x, y)
        assert value == fresh_value
        assert (gradient == fresh_gradient).all()


@dtypes
def test_the_same_call_gives_the_same_bits_and_leaves_its_arguments(dtype):
    for seed in range(20):
        net, *arguments = problem(seed, dtype)
        before = [a.tobytes() for a in arguments]
        prepared = dl.Backprop(dtype).prepare(net)
        answers = [prepared.value_and_gradient(*arguments) for _ in range(3)]
        assert len({(value, gradient.tobytes()) for value, gradient in answers}) == 1
        assert [a.tobytes() for a in arguments] == before


@dtypes
def test_out_is_filled_and_returned(dtype):
    net, theta, x, y = problem(4, dtype)
    prepared, out = dl.Backprop(dtype).prepare(net), np.full(net.n_params, np.nan, dtype)
    _, gradient = prepared.value_and_gradient(theta, x, y, out=out)
    assert gradient is out
    assert (out == prepared.value_and_gradient(theta, x, y)[1]).all()


def test_strided_arguments_give_the_answer_of_contiguous_ones():
    net = dl.MLP.dense([3, 4, 2], loss="squared_error")
    theta, x, y = naive.random_problem(net, np.random.default_rng(0), 6)
    prepared = dl.Backprop().prepare(net)
    wide = np.repeat(theta, 2)[::2], np.asfortranarray(x), y[::-1].copy()[::-1]
    assert (prepared.value_and_gradient(*wide)[1] == prepared.value_and_gradient(theta, x, y)[1]).all()


KERNEL_CHECK = """
from test_sweeps import *

for seed in range(40):
    for dtype in DTYPES:
        net, theta, x, y = problem(seed, dtype)
        _, gradient = dl.Backprop(dtype).prepare(net).value_and_gradient(theta, x, y)
        expected = naive.gradient(net, theta, x, y)
        assert np.linalg.norm(gradient - expected) <= bound(net, len(x), dtype) * np.linalg.norm(expected), seed
print("checked", __import__("numba").config.BOUNDSCHECK, __import__("numba").config.DISABLE_JIT)
"""


def child(script: str, *paths: Path, **environment: str) -> str:
    """What a script prints in a process of its own."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | environment
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=paths[0], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_stay_within_their_arrays():
    assert child(KERNEL_CHECK, TESTS, PACKAGE.parent, NUMBA_BOUNDSCHECK="1", DIFFLAB_NO_CACHE="1") == "checked 1 0\n"


def test_kernels_are_plain_python_too():
    assert child(KERNEL_CHECK, TESTS, PACKAGE.parent, NUMBA_DISABLE_JIT="1", DIFFLAB_NO_CACHE="1") == "checked None 1\n"


FIRST_GRADIENT = """
import json, numpy, difflab
from difflab.kernels import sweeps, target

net = difflab.MLP.dense([2, 3, 2], hidden="tanh", loss="squared_error")
gradient = difflab.Backprop().prepare(net).value_and_gradient(net.init(0), numpy.ones((4, 2)), numpy.zeros((4, 2)))[1]
stats = sweeps.value_and_gradient.stats
print(json.dumps({
    "package": difflab.__file__,
    "hits": sum(stats.cache_hits.values()),
    "misses": sum(stats.cache_misses.values()),
    "directory": str(target.cache_directory()),
    "gradient": gradient.tolist(),
}))
"""


@pytest.fixture(scope="module")
def lives(tmp_path_factory):
    """First gradients of three processes: fresh, again, and after a rule was edited; two of them compile."""
    home = tmp_path_factory.mktemp("home")
    package = home / "difflab"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))

    def first_gradient() -> dict:
        found = json.loads(child(FIRST_GRADIENT, home, XDG_CACHE_HOME=str(home / "cache")))
        assert Path(found["package"]).parent == package
        return found

    fresh, again = first_gradient(), first_gradient()
    rules = package / "primitives" / "activations.py"
    right, wrong = "return 4.0 * tail / (", "return 4.004 * tail / ("
    assert rules.read_text().count(right) == 1
    rules.write_text(rules.read_text().replace(right, wrong))
    return {"fresh": fresh, "again": again, "edited": first_gradient()}


def test_first_process_compiles_and_keeps_its_code(lives):
    assert (lives["fresh"]["hits"], lives["fresh"]["misses"]) == (0, 1)
    assert list(Path(lives["fresh"]["directory"]).rglob("*.nbc"))


def test_second_process_compiles_nothing(lives):
    assert (lives["again"]["hits"], lives["again"]["misses"]) == (1, 0)
    assert lives["again"]["gradient"] == lives["fresh"]["gradient"]


def test_an_edited_rule_never_meets_the_old_code(lives):
    assert lives["edited"]["directory"] != lives["fresh"]["directory"]
    assert lives["edited"]["misses"] == 1
    before, after = (np.array(lives[life]["gradient"]) for life in ("fresh", "edited"))
    # The slope of tanh went up by one thousandth, to the few roundings of either; the output layer does not see it.
    assert np.abs(after[:9] / before[:9] - 1.001).max() <= 16 * np.finfo(float).eps
    assert (after[9:] == before[9:]).all()
