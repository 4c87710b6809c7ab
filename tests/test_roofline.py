"""Rooflines: the products that a gradient consists of, run as they are, and shares of what the machine can do."""

import numpy as np
import pytest

from difflab import MLP, Backprop, FiniteDifference, reference_gradient
from difflab.study import growth
from difflab.study.measures import roofline
from difflab.study.measures.subject import Subject


NET = MLP.dense([5, 7, 3], "tanh")
SQUARES = {f"square{n}": 2 * n**3 / 1e10 for n in roofline.SQUARES}
"""Seconds of a machine that does 10 GFLOP/s at every size."""


def subject(backend, net=NET, batch=4, dtype="float64"):
    rng, prepared = np.random.default_rng(0), backend.prepare(net)
    theta, x, y = net.init(0), rng.normal(size=(batch, net.n_inputs)), rng.integers(0, net.n_outputs, batch)
    theta, x = theta.astype(dtype), x.astype(dtype)
    value, gradient = prepared.value_and_gradient(theta, x, y)
    return Subject(prepared, reference_gradient(net, theta, x, y), theta, x, y, value, gradient, 0)


def test_products_are_those_of_the_textbook():
    """Forward, for the weights, and passed on, which the first layer does not."""
    assert roofline.products(NET, 4) == [(4, 5, 7), (7, 4, 5), (4, 7, 3), (3, 4, 7), (4, 3, 7)]
    assert sum(map(roofline.flops, roofline.products(NET, 4))) == 2 * 4 * (2 * 5 * 7 + 3 * 7 * 3)


def test_traffic_is_samples_parameters_and_gradient():
    assert roofline.traffic_bytes(NET, 4, 8) == 8 * (4 * 5 + 2 * NET.n_params)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_are_written_where_they_belong(dtype):
    """BLAS copies what does not suit it, which would be timed."""
    call = roofline._product((4, 5, 7), np.dtype(dtype))
    first, second = call(), call()
    assert first.dtype == dtype
    assert first.shape == (4, 7)
    assert np.shares_memory(first, second)
    assert first.any()


def test_shares_are_of_measured_rates():
    seconds = SQUARES | {"gradient": 4e-6, "floor": 2e-6, "calls": 1e-7, "triad": 1e-2}
    found = roofline.columns(seconds, [(10, 10, 100)], 1000)
    assert found["product_ops"] == 20_000
    assert found["gemm_flops_per_second"] == pytest.approx(1e10)
    assert found["roofline_fraction"] == pytest.approx(0.5)
    assert found["floor_fraction"] == pytest.approx(0.5)
    assert found["bandwidth_bytes_per_second"] == pytest.approx(1.5 * roofline.TRIAD_BYTES / 1e-2)


def test_where_memory_is_slower_than_products_it_is_the_roof():
    seconds = SQUARES | {"gradient": 4e-6, "floor": 2e-6, "calls": 1e-7, "triad": 1.5 * roofline.TRIAD_BYTES / 1e9}
    assert roofline.columns(seconds, [(10, 10, 100)], 3000)["roofline_fraction"] == pytest.approx(0.75)


def test_the_rate_is_that_of_the_best_size():
    slower = {name: seconds * (1 if name == "square512" else 3) for name, seconds in SQUARES.items()}
    found = roofline.columns(
        slower | {"gradient": 1.0, "floor": 1.0, "calls": 0.0, "triad": 1.0}, [(1, 1, 1)], 1
    )  # fmt: skip
    assert found["gemm_flops_per_second"] == pytest.approx(1e10)


def test_a_floor_that_is_mostly_calls_is_none():
    seconds = SQUARES | {"gradient": 4e-6, "floor": 2e-6, "calls": 1e-6, "triad": 1e-2}
    assert "floor_seconds" not in roofline.columns(seconds, [(1, 1, 1)], 1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_backprop_has_a_roofline(monkeypatch, dtype):
    monkeypatch.setattr(roofline, "BUDGET_SECONDS", 0.01)
    monkeypatch.setattr(roofline, "TRIAD_BYTES", 2**20)
    found = roofline.measure(subject(Backprop(dtype), dtype=dtype))
    assert found["roofline_gradient_seconds"] > 0
    assert found["roofline_fraction"] > 0
    assert 1e8 < found["gemm_flops_per_second"] < 1e14
    assert 1e8 < found["bandwidth_bytes_per_second"] < 1e14


def test_others_have_none():
    assert roofline.measure(subject(FiniteDifference("complex"))) == {}
    assert roofline.measure(subject(Backprop(), MLP.dense([2, 3, 2], "gelu"))) == {}


# --- growth laws


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_a_power_law_is_found_as_it_is(exponent):
    found = growth.power_law([(n, 3e-6 * n**exponent) for n in (1, 4, 16, 64)])
    assert found == pytest.approx((exponent,) * 3, abs=1e-12)  # roundings of logarithms


def test_the_interval_of_an_exponent_holds_it_as_often_as_it_says():
    """1000 trials at 95 % have 50 misses and a deviation of 7."""
    rng, misses = np.random.default_rng(0), 0
    n = np.array([1, 2, 4, 8, 16, 32])
    for _ in range(1000):
        _, low, high = growth.power_law(list(zip(n, n**1.5 * np.exp(0.1 * rng.normal(size=6)), strict=True)))
        misses += not low <= 1.5 <= high
    assert abs(misses - 50) <= 4 * 7


def test_two_points_have_no_interval():
    assert growth.power_law([(1, 1.0), (2, 4.0)]) == (pytest.approx(2.0), -np.inf, np.inf)


def rows(knob):
    labels = {"width": "64-{0}-{0}-10", "batch": "64-32-10", "depth": None}
    for n in (1, 2, 4, 8):
        label = "-".join(["64", *["32"] * n, "10"]) if knob == "depth" else labels[knob].format(n)
        yield {
            "network": label, "parameters": n, "method": "A()", "status": "ok", "hidden": "tanh",
            "batch": n if knob == "batch" else 128, "gradient_seconds": 1e-6 * n**2,
        }  # fmt: skip


@pytest.mark.parametrize("knob", growth.KNOBS)
def test_networks_that_differ_in_one_thing_have_a_law(knob):
    (law,) = growth.laws(list(rows(knob)))
    assert (law.knob, law.method) == (knob, "A()")
    assert (law.exponent, law.upper) == pytest.approx((2.0, 2.0))
    assert len(growth.lines([law])) == 3


def test_few_networks_have_no_law():
    assert growth.laws(list(rows("width"))[:3]) == []
    assert growth.laws([{**row, "gradient_seconds": None} for row in rows("width")]) == []
