"""Operation counts: the formulas against counts of the operations that really happen."""

import numpy as np
import pytest

from difflab import MLP, Backprop, FiniteDifference
from difflab.counting import primal_operations, sweep_operations
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.rules import rule_operations


def test_a_dense_layer_takes_2mn_operations_as_the_lecture_counts():
    wider = MLP.dense([7, 6, 5], "relu", "squared_error").program
    narrower = MLP.dense([7, 5], "relu", "squared_error").program
    relu_layer = 6 * rule_operations(ACTIVATIONS["relu"].value)
    assert primal_operations(wider) == 2 * 7 * 6 + relu_layer + 2 * 6 * 5 + 4 * 5
    assert primal_operations(narrower) == 2 * 7 * 5 + 4 * 5


@pytest.mark.parametrize(
    ("name", "value", "derivative"),
    [("identity", 0, 0), ("relu", 0, 0), ("tanh", 1, 7), ("sigmoid", 5, 5), ("softplus", 3, 5)],
)
def test_rules_are_counted_as_they_are_written(name, value, derivative):
    """tanh': -2|z|, exp, 4 e, two sums, a product, a quotient; sigmoid: exp, sum, quotient, product, difference."""
    row = ACTIVATIONS[name]
    assert (rule_operations(row.value), rule_operations(row.derivative)) == (value, derivative)


def test_a_gradient_costs_a_small_multiple_of_its_loss():
    """The cheap gradient principle: at most 5 times, in the operation model of Baur and Strassen 1983."""
    for widths in PANEL:
        program = MLP.dense(widths, "relu").program
        assert 1 < sweep_operations(program) / primal_operations(program) < 5


PANEL = [
    [4, 8, 8, 3], [64, 32, 32, 10], [64, 32, 10], [64, *[32] * 16, 10], [784, 256, 128, 10], [784, 1024, 1024, 10],
]  # fmt: skip


@pytest.mark.parametrize("hidden", ["relu", "tanh", "softplus"])
@pytest.mark.parametrize("widths", PANEL, ids=str)
def test_a_gradient_of_the_networks_that_are_timed_costs_at_most_three_times_its_loss(widths, hidden):
    program = MLP.dense(widths, hidden).program
    assert sweep_operations(program) <= 3 * primal_operations(program)


def test_backends_state_the_operations_they_take():
    net = MLP.dense([3, 2, 2])
    assert Backprop().prepare(net).facts["gradient_ops"] == sweep_operations(net.program)
    central = FiniteDifference("central").prepare(net).facts
    assert central["gradient_ops"] == (2 * net.n_params + 1) * primal_operations(net.program)


class Counted(float):
    """A float that counts the operations done on it and on what comes of it."""

    count = 0

    def _count(self, result):
        Counted.count += 1
        return Counted(result)

    def __add__(self, other):
        return self._count(float(self) + float(other))

    def __sub__(self, other):
        return self._count(float(self) - float(other))

    def __mul__(self, other):
        return self._count(float(self) * float(other))

    def __rmul__(self, other):
        return self._count(float(other) * float(self))

    def __radd__(self, other):
        return self._count(float(other) + float(self))

    def __truediv__(self, other):
        return self._count(float(self) / float(other))


@pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy"])
@pytest.mark.parametrize("n_outputs", [2, 5])
def test_operations_of_a_loss_are_those_that_happen(loss, n_outputs, monkeypatch):
    from difflab.primitives import losses

    def counted_call(function):
        def call(z):
            Counted.count += 1
            return Counted(function(float(z)))

        return call

    for name in ("exp", "log1p"):
        monkeypatch.setattr(losses.math, name, counted_call(getattr(losses.math, name)))
    row = losses.LOSSES[loss]
    rng = np.random.default_rng(0)
    # Ascending: a sum that the largest would begin is one of two plain zeros, which are not counted.
    z = np.array([[Counted(v)] for v in np.sort(rng.standard_normal(n_outputs))], object)
    y = np.array([[Counted(v)] for v in rng.uniform(size=n_outputs)], object)
    Counted.count = 0
    room = np.empty((losses.ROOM, 1), object)
    row.value_and_cotangent(z, y, np.empty((n_outputs, 1), object), np.empty(1, object), room)
    assert Counted.count == row.value_operations(n_outputs) + row.cotangent_operations(n_outputs)
