"""The compiled step of losses: every sample has the bits it has alone, however many go with it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
import pytest
from planting import with_fault

import difflab as dl
from difflab.kernels import plans
from difflab.kernels.rules.loss import SAMPLES
from difflab.layers import Dense
from difflab.primitives.losses import LOSSES


BATCHES = (2, 3, SAMPLES - 1, SAMPLES, SAMPLES + 1, SAMPLES + 2, 2 * SAMPLES + 1)
MOST = max(BATCHES)
OUTPUTS = (1, 3, 4, 5)
MODES = {"softmax_cross_entropy": ("fast", "reproducible")}
"""Of one loss both builds, as each is compiled for every derivative."""
CASES = [
    (loss, mode, dtype) for loss in LOSSES for mode in MODES.get(loss, ("fast",)) for dtype in ("float64", "float32")
]


@cache
def network(loss: str, n_outputs: int) -> dl.MLP:
    """One layer: samples are the axes of its inputs, so that rows of its weight are outputs of samples."""
    takes_probabilities = LOSSES[loss].outputs == (0, 1)
    return dl.MLP(MOST, [Dense(n_outputs, "sigmoid" if takes_probabilities else "identity")], loss, "sum")


def numbers(n_outputs: int, dtype: str) -> tuple[np.ndarray, ...]:
    """Outputs, their tangents and targets that are chances, (MOST, n_outputs)."""
    rng = np.random.default_rng(n_outputs)
    z, z_dot = rng.normal(scale=3, size=(2, MOST, n_outputs)).astype(dtype)
    y = rng.dirichlet(np.ones(n_outputs), MOST).astype(dtype)
    return z, z_dot, y


def theta_of(z: np.ndarray) -> np.ndarray:
    """The weight turned, and biases of zero."""
    return np.concatenate([z.T.ravel(), np.zeros(z.shape[1], z.dtype)])


def weight_of(theta: np.ndarray, n_outputs: int) -> np.ndarray:
    return theta[: MOST * n_outputs].reshape(n_outputs, MOST).T


def of_samples(prepared: Any, n_outputs: int, samples: slice) -> dict[str, np.ndarray]:
    """Of each of some samples, as they go together, (samples, n_outputs)."""
    z, z_dot, y = numbers(n_outputs, str(prepared.dtypes[0]))
    x = np.eye(MOST, dtype=z.dtype)[samples]
    theta, along = theta_of(z), theta_of(z_dot)
    found = {
        "gradient": prepared.value_and_gradient(theta, x, y[samples])[1],
        "Hessian-vector product": prepared.hvp(theta, x, y[samples], along),
        "Gauss-Newton product": prepared.gauss_newton_product(theta, x, y[samples], along),
    }
    return {name: weight_of(made, n_outputs)[samples] for name, made in found.items()}


def differing(prepared: Any, n_outputs: int, batches: tuple[int, ...] = BATCHES) -> list[str]:
    """Derivatives of batches that are not those of their samples alone, bit by bit."""
    alone = [of_samples(prepared, n_outputs, slice(i, i + 1)) for i in range(max(batches))]
    found = []
    for batch in batches:
        for name, made in of_samples(prepared, n_outputs, slice(0, batch)).items():
            wanted = np.concatenate([each[name] for each in alone[:batch]])
            if made.tobytes() != wanted.tobytes():
                found.append(f"{name} of {batch}")
    return found


@pytest.mark.parametrize("case", CASES, ids=" ".join)
@pytest.mark.parametrize("n_outputs", OUTPUTS)
def test_samples_that_go_together_have_the_bits_they_have_alone(monkeypatch, case, n_outputs):
    """All of a batch in one tile, which is then more than go together."""
    monkeypatch.setattr(plans, "LEAST_TILE", MOST)
    loss, mode, dtype = case
    assert differing(dl.Backprop(dtype, mode=mode).prepare(network(loss, n_outputs)), n_outputs) == []


DERIVATIVES = ("gradient", "Hessian-vector product", "Gauss-Newton product")
FAULTS = {
    "nothing": ((), ()),
    "outputs of the first samples": (
        ("state, part, column, begin), row[INPUT_WIDTH]", "state, part, column, 0), row[INPUT_WIDTH]"),
        DERIVATIVES,
    ),
    "cotangents to the first samples": (
        ("there = numbers_at(row, state, part, INPUT_BAR, begin)", "there = place(state, part, row[INPUT_BAR])"),
        DERIVATIVES,
    ),
    "tangents in the room of outputs": (
        ("OF_DOTS, OF_BARS, BLOCKS = range(5)", "OF_DOTS, OF_BARS, BLOCKS = 0, 1, 0, 3, 4"),
        DERIVATIVES[1:],
    ),
    "no sample after the first part": (
        ("range(0, state[BATCH], SAMPLES)", "range(0, 1, SAMPLES)"),
        DERIVATIVES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(monkeypatch, fault):
    edit, shown = FAULTS[fault]
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    prepared = with_fault(edit, tile=MOST)(network("softmax_cross_entropy", 3))
    assert differing(prepared, 3, (SAMPLES + 2,)) == [f"{name} of {SAMPLES + 2}" for name in shown]
