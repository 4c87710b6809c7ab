"""Programs: the instructions a small network is lowered to, and one primal over every number system."""

import mpmath
import naive
import numpy as np
import pytest
import sympy
from flint import arb

import difflab as dl
from difflab.enclosures import sweep as ball_sweep
from difflab.kernels.rules import RULES
from difflab.number_systems import BALLS, COMPLEX128, FLOAT32, FLOAT64, Symbols, ball_precision
from difflab.primitives.operations import OPERATIONS
from difflab.program import INPUTS, TARGETS, Instruction, Parameter, Program, primal, values


NET = dl.MLP(3, [dl.Dense(2, "tanh"), dl.Dense(4)], loss="softmax_cross_entropy")
SYSTEMS = {"float32": FLOAT32, "float64": FLOAT64, "complex128": COMPLEX128}


def problem(seed: int, batch: int = 5) -> tuple:
    """A random network with arguments that float32 holds exactly, targets as rows."""
    rng = np.random.default_rng(seed)
    net = naive.random_network(rng)
    theta, x, y = naive.random_problem(net, rng, batch)
    rows = np.eye(net.n_outputs)[y] if y.ndim == 1 else y
    return net, *(a.astype(np.float32).astype(np.float64) for a in (theta, x, rows))


def bias(name: str, offset: int, size: int) -> Parameter:
    return Parameter(name, offset, (size,), start=0.0)


def test_a_network_is_a_short_list_of_layer_operations():
    assert NET.program.instructions == (
        Instruction("affine", (INPUTS,), 2, (Parameter("dense1.weight", 0, (2, 3)), bias("dense1.bias", 6, 2))),
        Instruction("activation", (2,), 2, function="tanh"),
        Instruction("affine", (3,), 4, (Parameter("dense2.weight", 8, (4, 2)), bias("dense2.bias", 16, 4))),
        Instruction("loss", (4, TARGETS), 1, function="softmax_cross_entropy"),
    )


def test_the_identity_is_no_instruction():
    operations = [i.operation for i in dl.MLP.dense([2, 2, 2], hidden="identity").program.instructions]
    assert operations == ["affine", "affine", "loss"]


def test_widths_of_values_are_those_of_inputs_targets_and_instructions():
    assert NET.program.widths == (3, 4, 2, 2, 4, 1)


def test_a_parameter_is_a_view_of_its_slice():
    theta = np.arange(10.0)
    view = Parameter("weight", 3, (2, 3)).of(theta)
    assert view.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert np.shares_memory(view, theta)


def test_values_hold_every_step_of_the_evaluation():
    theta, x, y = NET.init(0), np.ones((5, 3)), np.eye(4)[[0, 1, 2, 3, 0]]
    made = values(NET.program, FLOAT64, theta, x, y)
    assert [value.shape for value in made] == [(5, 3), (5, 4), (5, 2), (5, 2), (5, 4), (5,)]
    assert made[INPUTS] is x
    assert made[TARGETS] is y


@pytest.mark.parametrize(("reduction", "parts"), [("mean", 7), ("sum", 1)])
def test_a_mean_is_divided_by_the_batch_and_a_sum_is_not(reduction, parts):
    assert dl.MLP.dense([2, 2], reduction=reduction).program.divisor(7) == parts


def magnitude(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """Size of what the loss is the difference of: logits and their squares, not the loss itself, are rounded."""
    program, made = net.program, values(net.program, FLOAT64, theta, x, y)
    z, losses = made[outputs_of(program)], made[program.losses]
    return float((np.abs(z).max(axis=1) + (z**2).sum(axis=1) + np.abs(losses) + 1).sum() / program.divisor(len(x)))


def outputs_of(program: Program) -> int:
    """The value that the loss reads."""
    return dict(program.numbered)[program.losses].inputs[0]


@pytest.mark.parametrize("name", SYSTEMS)
def test_primal_over_floats_is_the_naive_loss(name):
    system = SYSTEMS[name]
    for seed in range(100):
        net, theta, x, y = problem(seed)
        got = primal(net.program, system, *map(system.array, (theta, x, y)))
        eps = float(np.finfo(system.dtype).eps)
        bound = naive.accumulated_rounding(net, len(x), eps) * magnitude(net, theta, x, y)
        assert abs(got - naive.loss(net, theta, x, y)) <= bound, seed


def test_primal_over_complex_numbers_stays_real_on_real_arguments():
    net, theta, x, y = problem(3)
    assert primal(net.program, COMPLEX128, *map(COMPLEX128.array, (theta, x, y))).imag == 0


def test_primal_over_balls_encloses_the_loss_of_mpmath():
    for seed in range(60):
        net, theta, x, y = problem(seed, batch=3)
        with ball_precision(128):
            ball = primal(net.program, BALLS, *map(BALLS.array, (theta, x, y)))
            truth = arb(naive.loss_mpmath(net, theta, x, y, digits=100))
            # The truth is known to some 1e-95, far below the radius of a ball of 128 bits.
            assert ball.overlaps(truth + arb(0, 1e-90)), seed
            assert ball.rad() <= 1e-30, seed


def symbols(letter: str, like: np.ndarray) -> np.ndarray:
    return np.array(sympy.symbols(f"{letter}:{like.size}", real=True), object).reshape(like.shape)


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5])  # SymPy takes half a minute for the network of seed 2.
def test_primal_over_symbols_is_the_loss_once_numbers_are_put_in(seed):
    net, theta, x, y = problem(seed, batch=2)
    names = [symbols("w", theta), symbols("x", x), symbols("y", y)]
    loss = primal(net.program, Symbols(), *names)
    numbers = [mpmath.mpf(number) for a in (theta, x, y) for number in a.ravel().tolist()]
    with mpmath.workdps(60):
        got = sympy.lambdify([name for group in names for name in group.flat], loss, modules="mpmath")(*numbers)
        assert abs(got - naive.loss_mpmath(net, theta, x, y, digits=60)) <= mpmath.mpf("1e-50")


def test_every_part_knows_every_operation():
    """One row in each table per operation; a missing one would show only when a network uses it."""
    assert set(RULES) == set(OPERATIONS)
    assert all(name == row.name for name, row in OPERATIONS.items())


def test_certified_has_rules_of_linear_algebra_and_power_series_for_the_rest():
    assert set(ball_sweep.RULES) == {"affine", "penalty"}
    assert {row.reach for name, row in OPERATIONS.items() if name not in ball_sweep.RULES} == set(ball_sweep.ALONG)
