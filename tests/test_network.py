"""Networks: layout and names of theta, views, initialisation, and the sentences that refuse bad ones."""

import re

import numpy as np
import pytest

import difflab as dl
from difflab.layers import MAX_UNITS
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


NET = dl.MLP(3, [dl.Dense(2, "tanh"), dl.Dense(4, "relu"), dl.Dense(2)])

exactly = re.escape


def test_theta_is_layer_by_layer_weight_then_bias():
    layout = [(p.name, p.offset, p.shape) for p in NET.parameters]
    assert layout == [
        ("dense1.weight", 0, (2, 3)),
        ("dense1.bias", 6, (2,)),
        ("dense2.weight", 8, (4, 2)),
        ("dense2.bias", 16, (4,)),
        ("dense3.weight", 20, (2, 4)),
        ("dense3.bias", 28, (2,)),
    ]
    assert NET.n_params == 30


def test_widths_and_outputs_are_those_of_the_layers():
    assert NET.program.widths == (3, 2, 2, 2, 4, 4, 2, 1)
    assert NET.n_outputs == 2


def test_a_network_prints_its_widths():
    assert str(NET) == "MLP 3-2-4-2"


def test_dense_is_short_for_layers():
    assert dl.MLP.dense([3, 4, 2], hidden="relu", loss="squared_error", output="sigmoid", reduction="sum") == dl.MLP(
        3, [dl.Dense(4, "relu"), dl.Dense(2, "sigmoid")], loss="squared_error", reduction="sum"
    )


def test_two_widths_make_a_network_without_a_hidden_layer():
    assert dl.MLP.dense([3, 2]) == dl.MLP(3, [dl.Dense(2)])


def test_networks_are_values():
    assert NET == dl.MLP(3, (dl.Dense(2, "tanh"), dl.Dense(4, "relu"), dl.Dense(2)))
    assert hash(NET) == hash(dl.MLP(3, (dl.Dense(2, "tanh"), dl.Dense(4, "relu"), dl.Dense(2))))


def test_views_write_through_to_theta():
    theta = np.arange(30.0)
    views = NET.view(theta)
    assert views["dense1.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    views["dense2.bias"][3] = -1.0
    assert theta[19] == -1.0
    assert all(np.shares_memory(view, theta) for view in views.values())


def test_views_cover_theta_once():
    theta = np.zeros(30)
    for view in NET.view(theta).values():
        view += 1
    assert (theta == 1).all()


def test_names_index_the_views():
    theta = np.arange(30.0)
    for i in range(NET.n_params):
        name, index = NET.name_of(i).rstrip("]").split("[")
        assert NET.view(theta)[name][tuple(map(int, index.split(",")))] == i


def test_a_name_reads_layer_parameter_and_index():
    assert NET.name_of(15) == "dense2.weight[3,1]"
    assert NET.name_of(29) == "dense3.bias[1]"


@pytest.mark.parametrize("i", [-1, 30, 10**9])
def test_a_name_out_of_range_is_refused(i):
    with pytest.raises(IndexError, match=exactly(f"theta of MLP 3-2-4-2 has entries 0 to 29, got {i}")):
        NET.name_of(i)


@pytest.mark.parametrize("shape", [(29,), (31,), (30, 1), (0,)])
def test_a_view_of_a_theta_of_another_shape_is_refused(shape):
    expected = exactly(f"theta must have shape (30,) for MLP 3-2-4-2, got {shape}")
    with pytest.raises(ValueError, match=f"^{expected}$"):
        NET.view(np.zeros(shape))


def test_initial_parameters_depend_on_the_seed_alone():
    assert (NET.init(7) == NET.init(7)).all()
    assert (NET.init(7) != NET.init(8)).any()
    assert (NET.init(np.random.default_rng(7)) == NET.init(7)).all()


def test_initial_weights_fill_the_glorot_bound_and_biases_are_zero():
    net = dl.MLP.dense([50, 30, 70])
    for name, view in net.view(net.init(0)).items():
        if name.endswith("bias"):
            assert not view.any()
        else:
            bound = np.sqrt(6 / sum(view.shape))
            largest = np.abs(view).max()
            # Of n >= 1500 draws the largest is above 0.99 of the bound but once in 3 million.
            assert 0.99 * bound < largest <= bound


def test_initial_parameters_are_float64_of_the_layout():
    theta = NET.init()
    assert theta.dtype == np.float64
    assert theta.shape == (30,)


def test_an_unknown_activation_is_named_with_the_known_ones():
    sentence = f"unknown activation 'tahn'; known: {', '.join(sorted(ACTIVATIONS))}; did you mean 'tanh'?"
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        dl.Dense(3, "tahn")


def test_an_unknown_loss_is_named_with_the_known_ones():
    sentence = f"unknown loss 'hinge'; known: {', '.join(sorted(LOSSES))}"
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}"):
        dl.MLP(3, [dl.Dense(2)], loss="hinge")


def test_an_unknown_reduction_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="^unknown reduction 'max'; known: mean, sum"):
        dl.MLP(3, [dl.Dense(2)], reduction="max")


@pytest.mark.parametrize("units", [0, -3, MAX_UNITS + 1, 10**30])
def test_a_width_out_of_range_is_refused(units):
    with pytest.raises(ValueError, match=f"^units of Dense must be from 1 to 1000000, got {units}$"):
        dl.Dense(units)
    with pytest.raises(ValueError, match=f"^n_inputs must be from 1 to 1000000, got {units}$"):
        dl.MLP(units, [dl.Dense(2)])


@pytest.mark.parametrize("units", [True, 3.0, "3", None, np.float64(2)])
def test_a_width_that_is_no_integer_is_refused(units):
    sentence = f"units of Dense must be an integer, got {units!r} that is a {type(units).__name__}"
    with pytest.raises(TypeError, match=f"^{exactly(sentence)}$"):
        dl.Dense(units)


def test_an_integer_of_numpy_is_a_width():
    assert dl.MLP(np.int32(3), [dl.Dense(np.int64(2))]) == dl.MLP(3, [dl.Dense(2)])


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match="^layers must be at least one, got none$"):
        dl.MLP(3, [])


@pytest.mark.parametrize("layers", [[dl.Dense(1)] * 1001, [dl.Residual([dl.Dense(1)] * 1000)]], ids=["flat", "nested"])
def test_a_network_of_more_than_a_thousand_layers_is_refused(layers):
    sentence = "a network must have from 1 to 1000 layers, got 1001"
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        dl.MLP(1, layers)


@pytest.mark.parametrize("widths", [[], [3]])
def test_a_dense_network_without_outputs_is_refused(widths):
    sentence = f"widths must list inputs and outputs at least, like [4, 3, 10], got {widths}"
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        dl.MLP.dense(widths)


def test_a_network_too_large_for_an_index_is_refused():
    sentence = "MLP 1000000-1000000 has 1000001000000 parameters, more than 2147483647; use narrower layers"
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        dl.MLP.dense([MAX_UNITS, MAX_UNITS])
