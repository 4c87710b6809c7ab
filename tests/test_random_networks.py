"""Random networks of any layers: every fast back-end within its own bounds of the truth, and the truth by differences.

``DIFFLAB_RANDOM_NETWORKS=100000`` in the environment makes a campaign of it.
"""

import os
from functools import cache

import mpmath
import naive
import numpy as np
import pytest

import difflab as dl
from difflab.backends.certified import ENCLOSED, KINK, ROUNDED
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.primitives.operations import OPERATIONS


N_NETWORKS = int(os.environ.get("DIFFLAB_RANDOM_NETWORKS", "400"))
N_BLOCKS = 8
N_SMALL = max(N_NETWORKS // 10, 40)
BACKENDS = {
    "Backprop('float64')": dl.Backprop(),
    "Backprop('float32')": dl.Backprop("float32"),
    "FiniteDifference('complex')": dl.FiniteDifference("complex"),
}
DIFFERENCE_ERROR = mpmath.mpf("1e-20")
"""Of the central difference, relative and absolute: its step is 1e-25, third derivatives are below 1e30."""

Problem = tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]

each_block = pytest.mark.parametrize("block", range(N_BLOCKS))


def in_float32(problem: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Numbers that float32 holds exactly."""
    return [a if a.dtype.kind == "i" else a.astype(np.float32).astype(np.float64) for a in problem]


@cache
def problem(seed: int) -> Problem:
    rng = np.random.default_rng([1, seed])
    net = naive.random_mixed_network(rng)
    return net, *in_float32(naive.random_problem(net, rng, batch=int(rng.integers(1, 6))))


@cache
def small_problem(seed: int) -> Problem:
    rng = np.random.default_rng([2, seed])
    net = naive.random_mixed_network(rng, most_layers=4, most_units=3)
    return net, *naive.random_problem(net, rng, batch=int(rng.integers(1, 4)))


@cache
def truth(seed: int) -> dl.Reference:
    return dl.reference_gradient(*problem(seed))


def of_block(block: int) -> range:
    return range(block, N_NETWORKS, N_BLOCKS)


def absolute_error(gradient: np.ndarray, reference: dl.Reference) -> np.ndarray:
    """The distance from the truth, which at a kink has the slope from the left."""
    return np.abs((gradient.astype(np.float64) - reference.gradient) - reference.residual)


def is_held(lower: float, number: mpmath.mpf, upper: float) -> bool:
    with mpmath.workdps(naive.DIGITS):
        allowed = DIFFERENCE_ERROR * (1 + abs(number))
        return lower - allowed <= number <= upper + allowed


@each_block
@pytest.mark.parametrize("label", BACKENDS)
def test_every_entry_is_within_its_own_bound(label, block):
    for seed in of_block(block):
        net, *arguments = problem(seed)
        prepared = BACKENDS[label].prepare(net)
        arguments = [a if a.dtype.kind == "i" else a.astype(prepared.dtypes[0]) for a in arguments]
        _, gradient = prepared.value_and_gradient(*arguments)
        bound = prepared.predicted_error(*arguments)
        assert (absolute_error(gradient, truth(seed)) <= bound).all(), (seed, net.layers)


@each_block
def test_every_entry_is_certified_but_for_ties(block):
    """No precision decides between two neighbouring floats if the derivative lies in the middle, as a rational may."""
    for seed in of_block(block):
        found = truth(seed)
        tied = found.status == ENCLOSED
        assert set(found.status) <= {ROUNDED, KINK, ENCLOSED}
        assert (np.nextafter(found.lower[tied], np.inf) == found.upper[tied]).all(), (seed, found.net.layers)


@pytest.mark.parametrize("block", range(4))
def test_certified_enclosures_hold_the_difference_at_80_digits(block):
    """At a kink it is the mean of the two one-sided derivatives, which lies between them."""
    for seed in range(block, N_SMALL, 4):
        net, *arguments = small_problem(seed)
        found = dl.reference_gradient(net, *arguments)
        differences = naive.central_difference_80_digits(net, *arguments)
        for ends in zip(found.lower.tolist(), differences, found.upper.tolist(), strict=True):
            assert is_held(*ends), (seed, net.layers)


def test_certified_values_hold_the_loss_of_the_twin():
    for seed in range(N_SMALL):
        net, *arguments = small_problem(seed)
        found, loss = dl.reference_gradient(net, *arguments), naive.loss_mpmath(net, *arguments)
        assert is_held(found.value_lower, loss, found.value_upper), (seed, net.layers)


def test_the_default_networks_hold_every_row_of_every_table():
    nets = [problem(seed)[0] for seed in range(N_NETWORKS)]
    steps = [step for net in nets for step in net.program.instructions]
    assert {step.operation for step in steps} == set(OPERATIONS)
    tried = {step.function for step in steps if step.operation == "activation"}
    assert tried == set(naive.ACTIVATION_NAMES) - {"identity"}
    assert {net.loss for net in nets} == set(LOSSES)
    assert {net.reduction for net in nets} == set(naive.REDUCTIONS)
    assert len(naive.ACTIVATION_NAMES) >= 12
    assert set(naive.ACTIVATION_NAMES) <= set(ACTIVATIONS)
    assert set(naive.ALL_LOSS_NAMES) == set(LOSSES)
