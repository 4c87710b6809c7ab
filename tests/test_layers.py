"""Layers: what each is lowered to, in words, numbers and slices of theta, and the sentences that refuse bad ones."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

import difflab as dl
from difflab.layers import BATCH_NORM_EPS, KINDS, MAX_DEPTH, MAX_UNITS, activation_and_parameter
from difflab.lowering import Misfit
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import INPUTS, TARGETS, Instruction, Mask, Parameter


D = dl.Dense
MASK = 2
"""The number of the first drawn value."""

exactly = re.escape


def regression(n_inputs: int, *layers: Any, **terms: Any) -> dl.MLP:
    return dl.MLP(n_inputs, layers, "squared_error", **terms)


def instructions(n_inputs: int, *layers: Any) -> list[Instruction]:
    """Those before the loss."""
    return list(regression(n_inputs, *layers).program.instructions[:-1])


def weight(name: str, offset: int, *shape: int) -> Parameter:
    return Parameter(name, offset, shape)


def started(name: str, offset: int, size: int, start: float = 0.0) -> Parameter:
    return Parameter(name, offset, (size,), start)


def affine(a: int, width: int, *parameters: Parameter) -> Instruction:
    return Instruction("affine", (a,), width, parameters)


def activation(a: int, width: int, function: str, **rest: Any) -> Instruction:
    return Instruction("activation", (a,), width, function=function, **rest)


# --- what each layer is lowered to

DENSE = affine(INPUTS, 2, weight("dense1.weight", 0, 2, 3), started("dense1.bias", 6, 2))
NORM = started("batchnorm1.gamma", 0, 3, 1.0), started("batchnorm1.beta", 3, 3)
LOWERED: dict[str, tuple[list, list[Instruction]]] = {
    "a dense layer": ([D(2)], [DENSE]),
    "without bias": ([D(2, bias=False)], [affine(INPUTS, 2, weight("dense1.weight", 0, 2, 3))]),
    "with an activation": ([D(2, "tanh")], [DENSE, activation(2, 2, "tanh")]),
    "with a constant": ([D(2, "elu(0.5)")], [DENSE, activation(2, 2, "elu", constants=(0.5,))]),
    "with the constant of the table": (
        [D(2, "leaky_relu")],
        [DENSE, activation(2, 2, "leaky_relu", constants=(0.01,))],
    ),
    "with a slope for each unit": (
        [D(2, "prelu")],
        [DENSE, activation(2, 2, "prelu", parameters=(started("dense1.slope", 8, 2, 0.25),))],
    ),
    "with a slope that starts elsewhere": (
        [D(2, "swish(-1.5)")],
        [DENSE, activation(2, 2, "swish", parameters=(started("dense1.beta", 8, 2, -1.5),))],
    ),
    "a maxout layer": (
        [dl.Maxout(2, 4)],
        [
            affine(INPUTS, 8, weight("maxout1.weight", 0, 8, 3), started("maxout1.bias", 24, 8)),
            Instruction("maxout", (2,), 2),
        ],
    ),
    "an activation": ([dl.Elementwise("sigmoid")], [activation(INPUTS, 3, "sigmoid")]),
    "the identity": ([dl.Elementwise("identity"), dl.Softmax()], [Instruction("softmax", (INPUTS,), 3)]),
    "one slope for all units": (
        [dl.Elementwise("prelu", per_unit=False)],
        [activation(INPUTS, 3, "prelu", parameters=(started("elementwise1.slope", 0, 1, 0.25),))],
    ),
    "a slope for each unit": (
        [dl.Elementwise("prelu(0.5)")],
        [activation(INPUTS, 3, "prelu", parameters=(started("elementwise1.slope", 0, 3, 0.5),))],
    ),
    "a softmax": ([dl.Softmax()], [Instruction("softmax", (INPUTS,), 3)]),
    "the product of all inputs": ([dl.Multiply(1)], [Instruction("multiply", (INPUTS,), 1)]),
    "products of one factor": ([dl.Multiply(3)], [Instruction("multiply", (INPUTS,), 3)]),
    "a batch norm in training": (
        [dl.BatchNorm()],
        [Instruction("batch_norm", (INPUTS,), 3, NORM, constants=(BATCH_NORM_EPS,))],
    ),
    "a batch norm in inference": (
        [dl.BatchNorm([1, 2, 3], [4, 5, 6], eps=0.5)],
        [Instruction("batch_norm_inference", (INPUTS,), 3, NORM, constants=(0.5, 1, 2, 3, 4, 5, 6))],
    ),
    "a dropout in training": ([dl.Dropout(0.25, 7)], [Instruction("dropout", (INPUTS, MASK), 3, constants=(0.25,))]),
    "a dropout in inference": (
        [dl.Dropout(0.25, training=False), dl.Softmax()],
        [Instruction("softmax", (INPUTS,), 3)],
    ),
    "a skip connection": (
        [dl.Residual([D(3)])],
        [
            affine(INPUTS, 3, weight("dense1.weight", 0, 3, 3), started("dense1.bias", 9, 3)),
            Instruction("add", (INPUTS, 2), 3),
        ],
    ),
    "a skip connection with a weight": (
        [dl.Residual([D(2)], project=True)],
        [DENSE, affine(INPUTS, 2, weight("residual1.weight", 8, 2, 3)), Instruction("add", (3, 2), 2)],
    ),
    "a skip around nothing but the identity": (
        [dl.Residual([dl.Elementwise("identity")])],
        [Instruction("add", (INPUTS, INPUTS), 3)],
    ),
}


@pytest.mark.parametrize("case", LOWERED)
def test_a_layer_is_lowered_to_these_instructions(case):
    layers, expected = LOWERED[case]
    assert instructions(3, *layers) == expected


def test_every_kind_of_layer_is_lowered_above():
    assert {type(layer) for layers, _ in LOWERED.values() for layer in layers} == set(KINDS.values())


def test_kinds_are_named_as_in_files():
    assert set(KINDS) == {
        *("dense", "maxout", "elementwise", "softmax", "multiply", "batchnorm", "dropout", "residual"),
    }


def test_the_constants_of_a_network_are_floats():
    (step,) = instructions(1, dl.BatchNorm([1], [2], eps=1))
    assert all(type(number) is float for number in step.constants)


def test_parameters_lie_one_after_the_other_in_order_of_the_layers():
    net = regression(2, D(3, "prelu"), dl.BatchNorm(), dl.Maxout(2), dl.Residual([D(1)], project=True))
    assert [(p.name, p.offset, p.shape) for p in net.parameters] == [
        ("dense1.weight", 0, (3, 2)),
        ("dense1.bias", 6, (3,)),
        ("dense1.slope", 9, (3,)),
        ("batchnorm1.gamma", 12, (3,)),
        ("batchnorm1.beta", 15, (3,)),
        ("maxout1.weight", 18, (4, 3)),
        ("maxout1.bias", 30, (4,)),
        ("dense2.weight", 34, (1, 2)),
        ("dense2.bias", 36, (1,)),
        ("residual1.weight", 37, (1, 2)),
    ]
    assert net.n_params == 39


def test_numbers_in_names_run_over_a_kind_inside_and_outside_of_residual_layers():
    net = regression(1, D(1), dl.Residual([D(1), dl.Residual([D(1)])]), dl.Maxout(1), D(1))
    names = [p.name.split(".")[0] for p in net.parameters]
    assert list(dict.fromkeys(names)) == ["dense1", "dense2", "dense3", "maxout1", "dense4"]


def test_a_layer_without_parameters_counts_in_the_names_of_its_kind():
    net = regression(1, dl.Elementwise("tanh"), dl.Elementwise("prelu"))
    assert [p.name for p in net.parameters] == ["elementwise2.slope"]


def test_weights_are_what_does_not_start_at_a_number():
    net = regression(2, D(2, "prelu"), dl.BatchNorm(), dl.Maxout(1), dl.Residual([D(1)], project=True))
    weights = [p.name for p in net.parameters if p.is_weight]
    assert weights == ["dense1.weight", "maxout1.weight", "dense2.weight", "residual1.weight"]


# --- masks


def test_masks_come_before_what_is_made_in_the_order_of_their_layers():
    program = regression(2, dl.Dropout(0.5, 1), D(3), dl.Residual([dl.Dropout(0.25, 2), D(3)])).program
    assert program.masks == (Mask(2, 0.5, 1), Mask(3, 0.25, 2))
    assert [step.inputs for step in program.instructions] == [(INPUTS, 2), (4,), (5, 3), (6,), (5, 7), (8, TARGETS)]


def test_smoothing_and_penalties_read_past_the_masks():
    net = dl.MLP(2, [dl.Dropout(0.5, 1), D(2)], label_smoothing=0.1, l2=1)
    steps = net.program.instructions
    assert [step.inputs for step in steps] == [(INPUTS, MASK), (3,), (TARGETS,), (4, 5), ()]


def test_a_dropout_in_inference_draws_nothing():
    assert regression(2, D(2), dl.Dropout(0.5, training=False)).program.masks == ()


def test_a_mask_is_what_its_seed_draws():
    expected = np.random.default_rng(3).random((5, 4)) >= 0.25
    assert (Mask(4, 0.25, 3).draw(5) == expected).all()


def test_a_longer_batch_begins_with_the_same_masks():
    mask = Mask(3, 0.5, 0)
    assert (mask.draw(7)[:4] == mask.draw(4)).all()


def test_a_mask_leaves_out_its_share():
    n, p = 100_000, 0.3
    zeros = n - Mask(1, p, 0).draw(n).sum()
    assert abs(zeros - n * p) <= 5 * np.sqrt(n * p * (1 - p))


# --- shares


def test_layers_that_share_a_name_have_one_slice():
    net = regression(2, D(2, "tanh", share="tied"), D(2, share="tied"), D(1))
    first, _, second, *_ = net.program.instructions
    assert first.parameters == second.parameters == (weight("tied.weight", 0, 2, 2), started("tied.bias", 4, 2))
    assert [p.name for p in net.parameters] == ["tied.weight", "tied.bias", "dense3.weight", "dense3.bias"]
    assert net.n_params == 6 + 3


def test_a_share_reaches_into_residual_layers_and_across_kinds():
    net = regression(2, D(2, share="w"), dl.Residual([D(2, share="w")]), dl.Maxout(1, share="w"))
    assert [(p.name, p.offset) for p in net.parameters] == [("w.weight", 0), ("w.bias", 4)]


def test_a_learnable_slope_is_shared_too():
    net = regression(2, D(2, "prelu", share="w"), D(2, "prelu", share="w"))
    assert [p.name for p in net.parameters] == ["w.weight", "w.bias", "w.slope"]


def test_a_layer_without_bias_shares_the_weight_alone():
    net = regression(2, D(2, bias=False, share="w"), D(2, share="w"))
    assert [(p.name, p.offset) for p in net.parameters] == [("w.weight", 0), ("w.bias", 4)]


def test_the_gradient_of_a_shared_layer_is_the_sum_over_its_uses():
    """In small integers, where all arithmetic is exact."""
    tied, apart = (regression(2, *(D(2, "relu", share=share) for share in names)) for names in (["w"] * 2, ["a", "b"]))
    rng = np.random.default_rng(0)
    theta, x, y = (rng.integers(1, 4, shape).astype(float) for shape in (6, (1, 2), (1, 2)))
    _, expected = dl.value_and_gradient(apart, np.tile(theta, 2), x, y)
    for backend in (dl.Backprop(), dl.Certified(), dl.Symbolic()):
        _, gradient = dl.value_and_gradient(tied, theta, x, y, backend)
        assert (gradient == expected[:6] + expected[6:]).all()


SHARE_CONFLICTS = {
    "another width": ([D(3, share="w"), D(2, share="w")], "w.weight", "(3, 2) from None and (2, 3) from None"),
    "another start": (
        [D(2, "prelu", share="w"), D(2, "prelu(0.5)", share="w")],
        "w.slope",
        "(2,) from 0.25 and (2,) from 0.5",
    ),
    "other pieces": (
        [dl.Maxout(2, 2, share="w"), dl.Maxout(2, 3, share="w")],
        "w.weight",
        "(4, 2) from None and (6, 2) from None",
    ),
}


@pytest.mark.parametrize("case", SHARE_CONFLICTS)
def test_layers_of_one_name_must_agree(case):
    layers, name, got = SHARE_CONFLICTS[case]
    sentence = f"layers that share {name} must agree in its shape and start, got {got}; give them different names"
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        regression(2, *layers)


@pytest.mark.parametrize("kind", [D, dl.Maxout], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("share", ["dense1", "", "a b", "1a", "a.b", "w2", 3, b"w"])
def test_a_share_that_could_be_the_name_of_another_layer_is_refused(kind, share):
    sentence = (
        f"share must be a name of letters, digits and '_' that does not end with a digit, got {share!r}; "
        "layers of one name have one slice of theta"
    )
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        kind(2, share=share)


# --- labels

LABELS = {
    "64-32-10": (64, [D(32, "tanh"), D(10)]),
    "3-maxout 2x4-1": (3, [dl.Maxout(2, 4), D(1)]),
    "3-elu(0.5)-1": (3, [dl.Elementwise("elu(0.5)"), D(1)]),
    "4-multiply 2": (4, [dl.Multiply(2)]),
    "3-batchnorm-dropout 0.25-softmax": (3, [dl.BatchNorm(), dl.Dropout(0.25, 1), dl.Softmax()]),
    "3-res(4-3)-2": (3, [dl.Residual([D(4), D(3)]), D(2)]),
}


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_inputs_and_layers_in_short(label):
    net = regression(LABELS[label][0], *LABELS[label][1])
    assert net.label == label
    assert str(net) == f"MLP {label}"


# --- activations in words

TEXTS = {
    "tanh": ("tanh", 0.0),
    "  tanh ": ("tanh", 0.0),
    "elu": ("elu", 1.0),
    "elu(0.5)": ("elu", 0.5),
    "elu( 5e-1 )": ("elu", 0.5),
    "leaky_relu(-0.25)": ("leaky_relu", -0.25),
    "prelu(0)": ("prelu", 0.0),
    "swish(2)": ("swish", 2.0),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_names_a_row_and_its_parameter(text):
    row, number = activation_and_parameter(text)
    assert (row.name, number) == TEXTS[text]


WRONG_TEXTS = {
    "tanh(0.5)": "activation 'tanh' takes no parameter, got 'tanh(0.5)'; write 'tanh'",
    "elu()": "alpha of elu must be a finite number, got 'elu()'; write 'elu(0.5)'",
    "elu(much)": "alpha of elu must be a finite number, got 'elu(much)'; write 'elu(0.5)'",
    "elu(nan)": "alpha of elu must be a finite number, got 'elu(nan)'; write 'elu(0.5)'",
    "prelu(inf)": "slope of prelu must be a finite number, got 'prelu(inf)'; write 'prelu(0.5)'",
    "elu(1)(2)": "alpha of elu must be a finite number, got 'elu(1)(2)'; write 'elu(0.5)'",
    "silu(1, 2)": "beta of silu must be a finite number, got 'silu(1, 2)'; write 'silu(0.5)'",
    "tahn(1)": f"unknown activation 'tahn'; known: {', '.join(sorted(ACTIVATIONS))}; did you mean 'tanh'?",
}


@pytest.mark.parametrize("make", [lambda text: D(2, text), dl.Elementwise], ids=["Dense", "Elementwise"])
@pytest.mark.parametrize("text", WRONG_TEXTS)
def test_a_wrong_text_is_refused_with_the_remedy(make, text):
    with pytest.raises(ValueError, match=f"^{exactly(WRONG_TEXTS[text])}$"):
        make(text)


@pytest.mark.parametrize("text", ["", "elu(1", "(1)", "__import__('os').system('true')"])
def test_a_text_that_names_nothing_is_an_unknown_activation(text):
    with pytest.raises(ValueError, match="^unknown activation "):
        D(2, text)


@pytest.mark.parametrize("text", [None, 3, ["tanh"], np.tanh])
def test_an_activation_that_is_no_text_is_refused(text):
    sentence = f"activation must be a name like 'tanh' or 'leaky_relu(0.2)', got {text!r}"
    with pytest.raises(TypeError, match=f"^{exactly(sentence)}$"):
        D(2, text)


# --- refused arguments

WIDE = MAX_UNITS + 1
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "units of text": (lambda: D("3"), TypeError, "units of Dense must be an integer, got '3' that is a str"),
    "units of Dense": (lambda: D(0), ValueError, f"units of Dense must be from 1 to {MAX_UNITS}, got 0"),
    "bias": (lambda: D(1, bias=1), TypeError, "bias of Dense must be true or false, got 1"),
    "units of Maxout": (
        lambda: dl.Maxout(WIDE),
        ValueError,
        f"units of Maxout must be from 1 to {MAX_UNITS}, got {WIDE}",
    ),
    "one piece": (lambda: dl.Maxout(1, 1), ValueError, f"pieces of Maxout must be from 2 to {MAX_UNITS}, got 1"),
    "half a piece": (
        lambda: dl.Maxout(1, 2.5),
        TypeError,
        "pieces of Maxout must be an integer, got 2.5 that is a float",
    ),
    "too many pieces": (
        lambda: dl.Maxout(MAX_UNITS, 2),
        ValueError,
        f"units times pieces of Maxout must be from 1 to {MAX_UNITS}, got {2 * MAX_UNITS}",
    ),
    "per_unit": (
        lambda: dl.Elementwise("prelu", per_unit=None),
        TypeError,
        "per_unit of Elementwise must be true or false, got None",
    ),
    "units of Multiply": (
        lambda: dl.Multiply(True),
        TypeError,
        "units of Multiply must be an integer, got True that is a bool",
    ),
    "factors left over": (
        lambda: regression(3, dl.Multiply(2)),
        ValueError,
        "units of Multiply must divide its 3 inputs, got 2",
    ),
    "more products than factors": (
        lambda: regression(2, dl.Multiply(4)),
        ValueError,
        "units of Multiply must divide its 2 inputs, got 4",
    ),
    "mean alone": (
        lambda: dl.BatchNorm(mean=[0.0]),
        ValueError,
        "BatchNorm must have both mean and variance, or neither, got one; give the other",
    ),
    "variance alone": (
        lambda: dl.BatchNorm(variance=[1.0]),
        ValueError,
        "BatchNorm must have both mean and variance, or neither, got one; give the other",
    ),
    "eps of zero": (lambda: dl.BatchNorm(eps=0), ValueError, "eps of BatchNorm must be positive, got 0.0"),
    "eps of text": (lambda: dl.BatchNorm(eps="1"), TypeError, "eps of BatchNorm must be a number, got '1'"),
    "eps of nan": (lambda: dl.BatchNorm(eps=np.nan), ValueError, "eps of BatchNorm must be finite, got nan"),
    "a mean that is a number": (
        lambda: dl.BatchNorm(1.0, 1.0),
        TypeError,
        "mean of BatchNorm must be a list of numbers, got 1.0",
    ),
    "a mean that is infinite": (
        lambda: dl.BatchNorm([np.inf], [1.0]),
        ValueError,
        "mean of BatchNorm must be finite, got inf",
    ),
    "a variance of truth": (
        lambda: dl.BatchNorm([0.0], [True]),
        TypeError,
        "variance of BatchNorm must be a number, got True",
    ),
    "a negative variance": (
        lambda: dl.BatchNorm([0.0], [-1.0]),
        ValueError,
        "mean and variance of BatchNorm must be as many, and no variance negative, got (0.0,) and (-1.0,)",
    ),
    "more means than variances": (
        lambda: dl.BatchNorm([0.0, 1.0], [1.0]),
        ValueError,
        "mean and variance of BatchNorm must be as many, and no variance negative, got (0.0, 1.0) and (1.0,)",
    ),
    "no statistics at all": (
        lambda: dl.BatchNorm([], []),
        ValueError,
        "mean and variance of BatchNorm must be as many, and no variance negative, got () and ()",
    ),
    "statistics of other units": (
        lambda: regression(3, dl.BatchNorm([0.0], [1.0])),
        ValueError,
        "statistics of BatchNorm must be one for each of 3 units, got 1",
    ),
    "p of one": (lambda: dl.Dropout(1), ValueError, "p of Dropout must be from 0 to below 1, got 1.0"),
    "p below zero": (lambda: dl.Dropout(-0.1), ValueError, "p of Dropout must be from 0 to below 1, got -0.1"),
    "p of text": (lambda: dl.Dropout("0.5"), TypeError, "p of Dropout must be a number, got '0.5'"),
    "p of nan": (lambda: dl.Dropout(np.nan), ValueError, "p of Dropout must be finite, got nan"),
    "a negative seed": (
        lambda: dl.Dropout(0.5, -1),
        ValueError,
        "seed of Dropout must be an integer, 0 or more, got -1",
    ),
    "a seed that is a float": (
        lambda: dl.Dropout(0.5, 1.0),
        ValueError,
        "seed of Dropout must be an integer, 0 or more, got 1.0",
    ),
    "a seed that is a truth value": (
        lambda: dl.Dropout(0.5, False, training=False),
        ValueError,
        "seed of Dropout must be an integer, 0 or more, got False",
    ),
    "a dropout in training without a seed": (
        lambda: dl.Dropout(0.5),
        ValueError,
        "seed of Dropout must be given in training, got none; pass one, such as seed=1, that no other Dropout has, or "
        "training=False",
    ),
    "training": (
        lambda: dl.Dropout(0.5, training=1),
        TypeError,
        "training of Dropout must be true or false, got 1",
    ),
    "a skip of another width": (
        lambda: regression(3, dl.Residual([D(2)])),
        ValueError,
        "the layers of Residual must keep its width of 3, got 2; end with Dense(3), or pass project=True",
    ),
    "a skip around nothing": (
        lambda: dl.Residual([]),
        ValueError,
        "layers of Residual must be at least one, got none",
    ),
    "a skip around a lone layer": (
        lambda: dl.Residual(dl.Softmax()),
        TypeError,
        "layers of Residual must be a list of layers, got Softmax(); write [Softmax()]",
    ),
    "a skip around a word": (
        lambda: dl.Residual(["tanh"]),
        TypeError,
        "layers of Residual must be Dense, Maxout, Elementwise, Softmax, Multiply, BatchNorm, Dropout, Residual, got "
        "'tanh'; or use MLP.dense(...)",
    ),
    "project": (lambda: dl.Residual([D(1)], project=1), TypeError, "project of Residual must be true or false, got 1"),
    "a network of a lone layer": (
        lambda: dl.MLP(1, dl.Softmax()),
        TypeError,
        "layers must be a list of layers, got Softmax(); write [Softmax()]",
    ),
    "a network of no layers at all": (
        lambda: dl.MLP(1, 3),
        TypeError,
        "layers must be a list of layers, got 3; write [3]",
    ),
    "a network of widths": (
        lambda: dl.MLP(1, [2]),
        TypeError,
        "layers must be Dense, Maxout, Elementwise, Softmax, Multiply, BatchNorm, Dropout, Residual, got 2; or use "
        "MLP.dense(...)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_argument_is_refused_in_one_sentence(case):
    make, error, sentence = REFUSED[case]
    with pytest.raises(error) as raised:
        make()
    assert str(raised.value) == sentence


def nested(depth: int) -> Any:
    layer = D(1)
    for _ in range(depth):
        layer = dl.Residual([layer])
    return layer


def test_residual_layers_nest_to_a_stated_depth():
    assert regression(1, nested(MAX_DEPTH)).n_params == 2
    with pytest.raises(ValueError, match=f"^Residual must be nested at most {MAX_DEPTH} deep, got more; use fewer$"):
        nested(MAX_DEPTH + 1)


NUMPY_NUMBERS = [
    (D(np.int64(2)), D(2)),
    (dl.Maxout(np.int8(2), np.uint16(3)), dl.Maxout(2, 3)),
    (dl.Multiply(np.int32(1)), dl.Multiply(1)),
    (dl.Dropout(np.float32(0.5), np.int64(3)), dl.Dropout(0.5, 3)),
    (dl.BatchNorm(np.array([0.0, 1.0]), np.array([1, 2])), dl.BatchNorm((0.0, 1.0), (1.0, 2.0))),
    (dl.BatchNorm(eps=np.float64(0.1)), dl.BatchNorm(eps=0.1)),
]


@pytest.mark.parametrize(("layer", "plain"), NUMPY_NUMBERS, ids=lambda layer: type(layer).__name__)
def test_numbers_of_numpy_are_numbers(layer, plain):
    assert layer == plain
    assert msgspec.json.encode(layer) == msgspec.json.encode(plain)


# --- layers are values

ALL = [D(2), dl.Maxout(2), dl.Elementwise("tanh"), dl.Softmax(), dl.Multiply(1), dl.BatchNorm(), dl.Dropout(0.5, 1)]
ALL.append(dl.Residual(ALL.copy()))


@pytest.mark.parametrize("layer", ALL, ids=lambda layer: type(layer).__name__)
def test_layers_are_frozen_and_hashable(layer):
    same = msgspec.json.decode(msgspec.json.encode(layer), type=type(layer))
    assert same == layer
    assert hash(same) == hash(layer)
    for name in (*layer.__struct_fields__, "other"):
        with pytest.raises(AttributeError):
            setattr(layer, name, 1)


def test_a_list_of_layers_is_kept_as_a_tuple():
    layers = [D(1)]
    residual = dl.Residual(layers)
    layers.append(D(2))
    assert residual.layers == (D(1),)


# --- losses and what they take

PROBABILITIES = [D(2, "sigmoid"), dl.Softmax(), dl.Elementwise("sigmoid")]
NO_PROBABILITIES = [
    *(D(2), D(2, "relu"), D(2, "tanh"), dl.Elementwise("softplus"), dl.Maxout(2), dl.Multiply(1), dl.BatchNorm()),
    *(dl.Dropout(0.5, 1), dl.Residual([dl.Softmax()])),
]
takes_probabilities = pytest.mark.parametrize("loss", [name for name, row in LOSSES.items() if row.outputs == (0, 1)])


@takes_probabilities
@pytest.mark.parametrize("layer", PROBABILITIES, ids=str)
def test_a_loss_of_probabilities_takes_layers_that_give_them(loss, layer):
    assert dl.MLP(2, [D(2), layer], loss).loss == loss


@takes_probabilities
@pytest.mark.parametrize("layer", NO_PROBABILITIES, ids=str)
def test_a_loss_of_probabilities_refuses_all_others(loss, layer):
    sentence = (
        f"{loss} takes probabilities, got outputs of {layer}; end with Softmax() or an activation 'sigmoid', or use a "
        "cross-entropy, which takes logits"
    )
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        dl.MLP(2, [D(2), layer], loss)


NOTHING = [dl.Dropout(0.5, training=False), dl.Elementwise("identity")]
"""What is lowered to nothing."""


@takes_probabilities
@pytest.mark.parametrize("layer", PROBABILITIES, ids=str)
def test_what_is_lowered_to_nothing_leaves_probabilities_as_they_are(loss, layer):
    net, plain = (dl.MLP(2, [D(2), layer, *rest], loss) for rest in (NOTHING, ()))
    assert net.program == plain.program


@takes_probabilities
@pytest.mark.parametrize("layers", [[dl.Softmax(), D(2)], [dl.Residual([dl.Softmax()])], []], ids=str)
def test_what_is_lowered_to_nothing_makes_no_probabilities(loss, layers):
    named = (layers or NOTHING)[-1]
    with pytest.raises(ValueError, match=f"^{exactly(f'{loss} takes probabilities, got outputs of {named}; ')}"):
        dl.MLP(2, [*layers, *NOTHING], loss)


# --- records


def test_every_layer_is_on_record_in_the_order_of_the_network():
    inner, skip = D(2, "tanh", share="w"), dl.Residual([dl.Dropout(0.5, 1), D(2)])
    around = dl.Residual([dl.Softmax(), skip], project=True)
    net = regression(3, inner, dl.Dropout(0.5, training=False), around, dl.Multiply(1))
    found = [(r.layer, r.name, r.place, r.depth, r.made, r.width) for r in net.lowered]
    assert found == [
        (inner, "w", (0,), 0, range(2), 2),
        (dl.Dropout(0.5, training=False), "dropout1", (1,), 0, range(2, 2), 2),
        (around, "residual1", (2,), 0, range(2, 8), 2),
        (dl.Softmax(), "softmax1", (2, 0), 1, range(2, 3), 2),
        (skip, "residual2", (2, 1), 1, range(3, 6), 2),
        (dl.Dropout(0.5, 1), "dropout2", (2, 1, 0), 2, range(3, 4), 2),
        (D(2), "dense2", (2, 1, 1), 2, range(4, 5), 2),
        (dl.Multiply(1), "multiply1", (3,), 0, range(8, 9), 1),
    ]
    operations = [step.operation for step in net.program.instructions]
    assert operations == "affine activation softmax dropout affine add affine add multiply loss".split()


MISFITS = {
    (1,): [D(3), dl.Multiply(2)],
    (0,): [dl.BatchNorm([0.0], [1.0])],
    (2,): [D(2, share="w"), D(3), D(2, share="w")],
    (1, 0, 1): [D(3), dl.Residual([dl.Residual([D(4), dl.Multiply(3)])])],
    (0, 1): [dl.Residual([D(2), dl.Residual([dl.Softmax(), D(3)])])],
    (0, 0): [dl.Residual([dl.Residual([D(3)]), D(2)])],
    (1, 1): [D(2, share="w"), dl.Residual([dl.Residual([D(2)]), dl.Maxout(2, share="w"), D(1)]), D(1)],
}


@pytest.mark.parametrize("place", MISFITS, ids=str)
def test_a_layer_that_does_not_fit_is_named_by_its_place(place):
    with pytest.raises(Misfit) as raised:
        regression(2, *MISFITS[place])
    assert raised.value.place == place
    assert isinstance(raised.value, ValueError)
    again = pickle.loads(pickle.dumps(raised.value))  # noqa: S301
    assert (str(again), again.place) == (str(raised.value), place)


# --- penalties and smoothing


def test_a_penalty_is_one_instruction_for_each_weight_and_none_for_the_rest():
    layers = [D(2, "prelu", share="w"), D(2, "prelu", share="w"), dl.BatchNorm(), dl.Residual([D(1)], project=True)]
    net = regression(2, *layers, l1=0.5, l2=2)
    steps = [step for step in net.program.instructions if step.operation == "penalty"]
    assert [step.parameters[0].name for step in steps] == ["w.weight", "dense3.weight", "residual1.weight"]
    assert all((step.inputs, step.width, step.constants) == ((), 1, (0.5, 2.0)) for step in steps)
    assert net.program.totals == tuple(range(len(net.program.widths) - 3, len(net.program.widths)))


def test_no_strength_no_penalty():
    assert regression(2, D(1), l1=0, l2=0.0).program.totals == ()


@pytest.mark.parametrize(
    ("loss", "classes"), [("softmax_cross_entropy", 3), ("kl_divergence", 3), ("sigmoid_cross_entropy", 2)]
)
def test_smoothing_is_an_instruction_on_the_targets(loss, classes):
    net = dl.MLP(2, [D(3), dl.Softmax()], loss, label_smoothing=0.1)
    *_, smoothing, step = net.program.instructions
    assert smoothing == Instruction("label_smoothing", (TARGETS,), 3, constants=(0.1, classes))
    assert step.inputs == (3, 4)


@pytest.mark.parametrize("loss", ["squared_error", "mean_squared_error"])
def test_targets_that_are_no_labels_are_not_smoothed(loss):
    labels = "softmax_cross_entropy, sigmoid_cross_entropy, binary_cross_entropy, kl_divergence"
    sentence = f"label_smoothing must be 0 for {loss}, got 0.1; it is for {labels}"
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        dl.MLP(2, [D(3)], loss, label_smoothing=0.1)


@pytest.mark.parametrize("bad", [-0.5, np.nan, np.inf, "1", None, True])
@pytest.mark.parametrize("term", ["l1", "l2", "label_smoothing"])
def test_a_strength_that_is_none_is_refused(term, bad):
    most = "1" if term == "label_smoothing" else "inf"
    sentence = f"{term} must be a number from 0 to below {most}, got {bad!r}"
    with pytest.raises(ValueError, match=f"^{exactly(sentence)}$"):
        dl.MLP(2, [D(3)], **{term: bad})


def test_a_label_cannot_be_smoothed_away():
    with pytest.raises(ValueError, match="^label_smoothing must be a number from 0 to below 1, got 1$"):
        dl.MLP(2, [D(3)], label_smoothing=1)


# --- Speelpenning's product


def speelpenning(factors: list[float]) -> tuple[dl.MLP, np.ndarray, np.ndarray, np.ndarray]:
    """The product of all factors as a network, with a loss whose derivative by the product is 1."""
    n = len(factors)
    net = regression(n, D(n), dl.Multiply(1))
    theta = np.concatenate([np.eye(n).ravel(), np.zeros(n)])
    return net, theta, np.array([factors]), np.array([[np.prod(factors) - 1]])


FACTORS = {
    "the lecture's": [1.0, 2.0, 3.0, 4.0, 5.0],
    "one factor": [3.0],
    "signs and halves": [-0.5, 2.0, -4.0],
    "a zero": [2.0, 0.0, 3.0, 4.0],
    "two zeros": [0.0, 2.0, 0.0, 3.0],
}


@pytest.mark.parametrize(
    "backend", [dl.Backprop(), dl.Certified(), dl.Symbolic(), dl.FiniteDifference("complex")], ids=repr
)
@pytest.mark.parametrize("case", FACTORS)
def test_the_gradient_of_a_product_is_the_products_of_all_others(case, backend):
    """In numbers so short that all arithmetic is exact."""
    factors = FACTORS[case]
    others = [float(np.prod(factors[:i] + factors[i + 1 :])) for i in range(len(factors))]
    net, *arguments = speelpenning(factors)
    value, gradient = dl.value_and_gradient(net, *arguments, backend)
    assert value == 0.5
    assert net.view(gradient)["dense1.bias"].tolist() == others
    assert (net.view(gradient)["dense1.weight"] == np.outer(others, factors)).all()


@pytest.mark.parametrize("scheme", ["forward", "central"])
@pytest.mark.parametrize("case", FACTORS)
def test_differences_of_a_product_err_as_they_predict(case, scheme):
    net, *arguments = speelpenning(FACTORS[case])
    prepared = dl.FiniteDifference(scheme).prepare(net)
    _, expected = dl.value_and_gradient(net, *arguments)
    errors = np.abs(prepared.value_and_gradient(*arguments)[1] - expected)
    assert (errors <= prepared.predicted_error(*arguments)).all()
