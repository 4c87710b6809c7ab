"""Faults planted into every step along a tangent, and into what sweeps hand on, which the judge has to catch."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
import pytest
from backprop_derivatives import METHODS, RESIDUAL, SHARES, Problem, bound, drawn, error, takes
from planting import KERNELS, TEXT, Edit, with_fault
from test_contract import ended

import difflab as dl
from difflab.layers import BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax
from difflab.primitives.losses import LOSSES


NETS = {
    "affine": dl.MLP(3, [Dense(3, "tanh", share="tied"), Dense(3, "tanh", share="tied"), Dense(2)]),
    "without bias": dl.MLP(3, [Dense(3, "tanh", bias=False), Dense(2)]),
    "activation": dl.MLP(3, [Dense(3, "tanh"), Dense(2)]),
    "read twice": dl.MLP(3, [Dense(3), Residual((Elementwise("tanh"),)), Dense(2)]),
    "learnable": dl.MLP(3, [Dense(3, "swish"), Dense(2)]),
    "add": RESIDUAL,
    "multiply": dl.MLP(3, [Dense(6, "tanh"), Multiply(2)], "squared_error"),
    "maxout": dl.MLP(3, [Dense(2, "tanh"), Maxout(3, 3), Dense(2)]),
    "softmax": dl.MLP(3, [Dense(3), Softmax()], "kl_divergence"),
    "activation of shares": SHARES,
    "batch_norm": dl.MLP(3, [Dense(3, "tanh"), BatchNorm(), Dense(2)]),
    "batch_norm_inference": dl.MLP(3, [Dense(3, "tanh"), BatchNorm((0.5, -0.25, 0.0), (2.0, 0.5, 1.0)), Dense(2)]),
    "dropout": dl.MLP(3, [Dense(6, "tanh"), Dropout(0.4, seed=2), Dense(2)]),
    "penalty": dl.MLP(3, [Dense(2, "tanh"), Dense(3)], l1=0.01, l2=0.1),
    **{name: ended(name, Dense(2, "tanh")) for name in LOSSES},
}


class Fault(NamedTuple):
    """On what network and in which derivatives an edit of the sources must show."""

    net: str
    shows_in: tuple[str, ...]
    edit: Edit


OF_DOTS, OF_BAR_DOTS = "apply(row, state, DOTS, zero)", "transpose(row, state, BAR_DOTS, zero)"
TANGENT, HVP, BOTH = ("jvp",), ("hvp",), ("jvp", "hvp")
SLOPE_DOT = "by_zz(at, q) * z_dot[i, j] + mixed * p_dot[k]"
BEND_DOT = "mixed * z_dot[i, j] + by_pp(at, q) * p_dot[k]"
PROJECTED = "_projected(z_dot[i, j], normal, share * total, share * dot)"
OF_NORMAL = "share * z_total, share * z_along) / _deviation(found)\n                inner"
SCALE_DOT = "(gamma_dot[j] - scale * (share * z_along)) / _deviation(found)"
FAULTS: dict[str, Fault] = {
    "affine: no tangent of the weight": Fault(
        "affine",
        BOTH,
        ("add_outputs(row, state, z_dot, bias_dot, 0, a,", "add_outputs(row, state, z_dot, bias_dot, 0, a_dot,"),
    ),
    "affine: no tangent of the bias": Fault(
        "affine", BOTH, ("parameter_at(state, THETA_DOT, row[SECOND]) if row[SECOND] >= 0", "0 if row[SECOND] >= 0")
    ),
    "affine: the tangent of inputs in place of that of the weight": Fault(
        "affine", BOTH, ("z_dot, z_dot, pitch, a_dot,", "z_dot, 0, pitch, a_dot,")
    ),
    "affine: weight_bar_dot without z_bar_dot": Fault(
        "affine",
        HVP,
        ("row[FIRST]), z_bar_dot, a, keeps_weight", "row[FIRST]), z_bar, a, keeps_weight"),
    ),
    "affine: weight_bar_dot without a_dot": Fault("affine", HVP, ("z_bar, a_dot, True", "z_bar, a, True")),
    "affine: shared weight_bar_dot overwritten": Fault(
        "affine",
        HVP,
        ("GRADIENT_DOT, row[FIRST]), z_bar_dot, a, keeps_weight", "GRADIENT_DOT, row[FIRST]), z_bar_dot, a, False"),
    ),
    "affine: bias_bar_dot from z_bar": Fault("affine", HVP, ("GRADIENT_DOT, BAR_DOTS", "GRADIENT_DOT, BARS")),
    "affine: a_bar_dot without the tangent of the weight": Fault(
        "affine",
        HVP,
        ("parameter_at(state, THETA_DOT, row[FIRST]), True", "parameter_at(state, THETA, row[FIRST]), True"),
    ),
    "activation: slope off by 0.1 %": Fault(
        "activation", TANGENT, ("a_dot[i] = slopes[i] * z_dot[i]", "a_dot[i] = 1.001 * slopes[i] * z_dot[i]")
    ),
    "activation: tangent off by 0.1 %": Fault(
        "activation", HVP, ("a_dot[i] = steep * z_dot[i]", "a_dot[i] = 1.001 * steep * z_dot[i]")
    ),
    "activation: curvature off by 0.1 %": Fault(
        "activation", HVP, ("curvature(at, p) * z_dot[i]", "1.001 * curvature(at, p) * z_dot[i]")
    ),
    "activation: curvature left out in reverse": Fault(
        "activation",
        HVP,
        (
            "z_bar_dot[i] = a_bar_dot[i] * slopes[i] + a_bar[i] * slopes_dot[i]",
            "z_bar_dot[i] = a_bar_dot[i] * slopes[i]",
        ),
    ),
    "activation: values in place of their tangents": Fault(
        "activation", HVP, ("arguments(row, state, DOTS, zero)", "1.0 * arguments(row, state, VALUES, zero)")
    ),
    "activation: read twice, written once": Fault(
        "read twice", HVP, ("z_bar_dot[i] += a_bar_dot", "z_bar_dot[i] = a_bar_dot")
    ),
    "learnable: tangent without the parameter": Fault("learnable", BOTH, (" + by_p(at, q) * q_dot", "")),
    "learnable: slope_dot without the parameter": Fault("learnable", HVP, (SLOPE_DOT, "by_zz(at, q) * z_dot[i, j]")),
    "learnable: slope_dot without z": Fault("learnable", HVP, (SLOPE_DOT, "mixed * p_dot[k]")),
    "learnable: parameter's slope without z": Fault("learnable", HVP, (BEND_DOT, "by_pp(at, q) * p_dot[k]")),
    "learnable: parameter's slope without itself": Fault("learnable", HVP, (BEND_DOT, "mixed * z_dot[i, j]")),
    "learnable: p_bar_dot without a_bar_dot": Fault(
        "learnable", HVP, ("p_bar_dot[k] += a_bar_dot[i, j] * by_p(at, q) + ", "p_bar_dot[k] += ")
    ),
    "loss: cotangents in place of their tangents": Fault(
        "activation", HVP, ("_curved_into(BAR_DOTS,", "_curved_into(BARS,")
    ),
    "loss: not divided": Fault(
        "activation", ("hvp", "Gauss-Newton product"), ("divide(z_bar_dot, state[PARTS], number)", "pass")
    ),
    "softmax: tangent without the sum": Fault(
        "softmax", BOTH, ("_add_product(a_dot[i], a[i], z_dot[i])", "a_dot[i] += a[i] * z_dot[i]")
    ),
    "softmax: shares that stay": Fault(
        "softmax", HVP, ("a_dot[i, k] * ((a_bar[i, k] - top) - mean) - a[i, k] * change", "- a[i, k] * change")
    ),
    "softmax: mean that stays": Fault("softmax", HVP, (" - a[i, k] * change", "")),
    "softmax: bars for their tangents": Fault(
        "softmax", HVP, ("_add_product(z_bar_dot[i], a[i], a_bar_dot[i])", "_add_product(z_bar_dot[i], a[i], a_bar[i])")
    ),
    "batch norm: tangent of a mean that stays": Fault(
        "batch_norm", BOTH, (PROJECTED, PROJECTED.replace("share * total", "0.0"))
    ),
    "batch norm: tangent of a deviation that stays": Fault(
        "batch_norm", BOTH, (PROJECTED, PROJECTED.replace("share * dot", "0.0"))
    ),
    "batch norm: tangent without gamma_dot": Fault("batch_norm_inference", BOTH, (" + normal * gamma_dot[j]", "")),
    "batch norm: tangent without beta_dot": Fault("batch_norm", BOTH, (" + beta_dot[j]", "")),
    "batch norm: gamma_bar_dot without the tangent of normal": Fault(
        "batch_norm_inference", HVP, ("    dot_dot += a_bar[i, j] * normal_dot", "    pass")
    ),
    "batch norm: beta_bar_dot from bars": Fault(
        "batch_norm", HVP, ("beta_bar_dot[j] += total_dot", "beta_bar_dot[j] += total")
    ),
    "batch norm: scale without gamma_dot": Fault(
        "batch_norm_inference",
        HVP,
        (SCALE_DOT, SCALE_DOT.replace("gamma_dot[j] ", "")),
    ),
    "batch norm: scale whose deviation stays": Fault(
        "batch_norm", HVP, (SCALE_DOT, "gamma_dot[j] / _deviation(found)")
    ),
    "batch norm: normal that stays in reverse": Fault(
        "batch_norm", HVP, ("                inner_dot -= normal_dot * (share * dot)\n", "")
    ),
    "batch norm: projection that stays": Fault(
        "batch_norm", HVP, ("share * total_dot, share * dot_dot)", "share * total_dot, 0.0)")
    ),
    "batch norm: tangent of normal without the mean": Fault(
        "batch_norm",
        HVP,
        (OF_NORMAL, OF_NORMAL.replace("z_total", "0.0")),
    ),
    "multiply: the last factor alone moves": Fault(
        "multiply", TANGENT, ("            product_dot = product_dot * z[k] + ", "            product_dot = ")
    ),
    "multiply: factors before stay": Fault("multiply", HVP, ("before_dot[k] * after + ", "")),
    "multiply: factors after stay": Fault("multiply", HVP, (" + after * z_dot[j * n + k]", "")),
    "multiply: the cotangent stays": Fault(
        "multiply", HVP, ("1.0 * a_bar[j], 1.0 * a_bar_dot[j]", "1.0 * a_bar[j], 0.0")
    ),
    "softmax: shares are written over": Fault(
        "activation of shares", ("input gradient", "vjp", "hvp"), (", rereads=True", "")
    ),
    "maxout: the first piece moves": Fault(
        "maxout",
        BOTH,
        (
            "a[j] = of_inputs[_first_largest(z, j * n, n)]",
            "a[j] = of_inputs[_first_largest(z, j * n, n) if part == VALUES else j * n]",
        ),
    ),
    "penalty: no bend": Fault("penalty", HVP, ("weight_bar_dot[k] += l2 * weight_dot[k]", "pass")),
    "penalty: in every tile": Fault(
        "penalty",
        HVP,
        (
            "    l2 = constants(row, state, 2)[1]\n    if state[IS_FIRST] != 0:",
            "    l2 = constants(row, state, 2)[1]\n    if True:",
        ),
    ),
    "sweep: x_dot of the first tile again": Fault(
        "activation", BOTH, ("        plan[X_DOT] += n * plan[X_DOT_STEP]\n", "")
    ),
    "sweep: x_bar of the first tile again": Fault(
        "activation", ("input gradient",), ("        plan[X_BAR] += n * plan[X_BAR_STEP]\n", "")
    ),
    "sweep: gradients of examples all in one": Fault(
        "activation", ("per-example gradients",), ("        plan[GRADIENT] += n * plan[GRADIENT_STEP]\n", "")
    ),
    "sweep: gradients of examples added up": Fault(
        "activation", ("per-example gradients",), (" or plan[GRADIENT_STEP] != 0", "")
    ),
    "sweep: cotangents of the first outputs again": Fault(
        "activation", ("vjp", "jvp"), ("    offset = begin * n * state[ITEM]\n", "    offset = 0\n")
    ),
    "linear: add without a tangent": Fault("add", BOTH, (OF_DOTS, OF_DOTS.replace("DOTS", "VALUES"))),
    "linear: add with cotangents for their tangents": Fault(
        "add", HVP, (OF_BAR_DOTS, OF_BAR_DOTS.replace("BAR_DOTS", "BARS"))
    ),
    "linear: maxout without a tangent": Fault("maxout", BOTH, (OF_DOTS, OF_DOTS.replace("DOTS", "VALUES"))),
    "linear: maxout with cotangents for their tangents": Fault(
        "maxout", HVP, (OF_BAR_DOTS, OF_BAR_DOTS.replace("BAR_DOTS", "BARS"))
    ),
    "linear: dropout without a tangent": Fault("dropout", BOTH, (OF_DOTS, OF_DOTS.replace("DOTS", "VALUES"))),
    "linear: dropout with cotangents for their tangents": Fault(
        "dropout", HVP, (OF_BAR_DOTS, OF_BAR_DOTS.replace("BAR_DOTS", "BARS"))
    ),
}


@pytest.fixture(autouse=True)
def plain_python(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)


def second_answer(method: str, whole: dl.Prepared, p: Problem) -> np.ndarray:
    """On used memory; NaN where the answer is refused, as one that was never written may be by chance."""
    with np.errstate(all="ignore"):
        try:
            METHODS[method].of(whole, p)
            return METHODS[method].of(whole, p)
        except FloatingPointError:
            return np.array(np.nan)


def is_caught(net: str, method: str, edit: Edit = ()) -> bool:
    """Whether the judge finds a derivative of the planted sweeps wrong; tiles hold two of five samples."""
    p = drawn(NETS[net], 5, seed=5)
    made, certified = second_answer(method, with_fault(edit, tile=2)(p.net), p), dl.Certified().prepare(p.net)
    if not np.isfinite(made).all():
        return True
    truth = METHODS[method].truth(certified, p)
    return error(made, truth) > bound(p, "float64", truth, METHODS[method].size(certified, p))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault):
    net, shows_in, edit = FAULTS[fault]
    assert all(is_caught(net, method, edit) for method in shows_in)


@pytest.mark.parametrize("method", ["hvp", "Gauss-Newton product"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_curvature_off_by_a_thousandth_is_caught(monkeypatch, loss, method):
    row = LOSSES[loss]

    def wrong(z, y, z_dot, z_bar_dot, room):
        row.cotangent_tangent(z, y, z_dot, z_bar_dot, room)
        z_bar_dot *= 1.001

    monkeypatch.setitem(LOSSES, loss, replace(row, cotangent_tangent=wrong))
    assert is_caught(loss, method)


@pytest.mark.parametrize("net", NETS)
def test_without_a_fault_nothing_is_caught(net):
    assert not any(is_caught(net, method) for method in METHODS if takes(method, NETS[net]))


@cache
def functions_on_tangents() -> dict[str, str]:
    """The innermost functions of rules that speak of dots, with their sources."""
    found = {}
    for name, text in zip(KERNELS, TEXT, strict=True):
        for node in ast.walk(ast.parse(text)) if name.startswith("rules.") else ():
            if not isinstance(node, ast.FunctionDef):
                continue
            inner = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef) and part is not node]
            source = "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
            if not inner and "DOT" in source:
                found[f"{name}.{node.name}"] = source
    return found


def test_a_fault_is_planted_into_every_function_on_tangents():
    bare = [
        name
        for name, source in functions_on_tangents().items()
        if not any(fault.edit[0].strip() in source for fault in FAULTS.values())
    ]
    assert len(functions_on_tangents()) > 15
    assert not bare
