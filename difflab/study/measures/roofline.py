"""Roofline: seconds of a gradient beside what the machine can do at all, all taking turns in one process.

The products of matrices that a gradient consists of are run by the back-end's BLAS alone, into arrays that are there:
the floor. The rate of that BLAS at its best size, and the bandwidth of memory, are those of this machine [Williams,
Waterman, Patterson 2009].
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from difflab import blas_libraries
from difflab.backends.backprop import PreparedBackprop
from difflab.network import MLP
from difflab.peers import plain_dense
from difflab.study.measures.subject import Subject
from difflab.study.timing import contest


BUDGET_SECONDS = 1.0
SQUARES = (256, 512, 1024, 2048)
"""Sizes of the products by which the rate is found, unless the gradient's own are made faster."""
TRIAD_BYTES = 2**27
"""Of the arrays by which the bandwidth is found, together; several times the caches of a core."""
MOST_OVERHEAD = 0.1
"""Share of the floor that calls from Python may take; above, nothing is said of it."""

Call = Callable[[], object]
Shape = tuple[int, int, int]


def measure(subject: Subject) -> dict[str, Any]:
    """Columns of compiled backprop on plain dense networks; others have none."""
    prepared, net, batch = subject.prepared, subject.prepared.net, len(subject.x)
    if not isinstance(prepared, PreparedBackprop) or plain_dense.obstacle(net):
        return {}
    dtype, shapes = subject.gradient.dtype, products(net, batch)
    product = partial(_product, library=prepared.library, dtype=dtype)
    arguments, out = (subject.theta, subject.x, subject.y), np.empty_like(subject.gradient)
    contenders: dict[str, Call] = {
        "gradient": lambda: prepared.value_and_gradient(*arguments, out=out),
        "floor": _in_a_row([product(shape) for shape in shapes]),
        "calls": _in_a_row([product((1, 1, 1))] * len(shapes)),
        "triad": _triad(dtype),
        **{f"square{n}": product((n, n, n)) for n in SQUARES},
    }
    found = contest(contenders, np.random.default_rng(subject.seed), BUDGET_SECONDS).timings
    seconds = {name: timing.seconds for name, timing in found.items()}
    return columns(seconds, shapes, traffic_bytes(net, batch, dtype.itemsize))


def columns(seconds: dict[str, float], shapes: list[Shape], traffic: int) -> dict[str, Any]:
    """What the seconds of all contenders say."""
    operations = sum(map(flops, shapes))
    rates = [flops((n, n, n)) / seconds[f"square{n}"] for n in SQUARES]
    rate = max(*rates, operations / seconds["floor"])
    bandwidth = TRIAD_BYTES * 3 / 2 / seconds["triad"]
    found: dict[str, Any] = {
        "product_ops": operations,
        "traffic_bytes": traffic,
        "gemm_flops_per_second": rate,
        "bandwidth_bytes_per_second": bandwidth,
        "roofline_gradient_seconds": seconds["gradient"],
        "roofline_fraction": max(operations / rate, traffic / bandwidth) / seconds["gradient"],
    }
    if seconds["calls"] <= MOST_OVERHEAD * seconds["floor"]:
        found["floor_seconds"] = seconds["floor"]
        found["floor_fraction"] = seconds["floor"] / seconds["gradient"]
    return found


def products(net: MLP, batch: int) -> list[Shape]:
    """Rows, inner length and columns of every product of a gradient; the first layer passes nothing on."""
    found: list[Shape] = []
    for number, weight in enumerate(net.parameters[::2]):
        n_out, n_in = weight.shape
        found += [(batch, n_in, n_out), (n_out, batch, n_in)]
        if number:
            found.append((batch, n_out, n_in))
    return found


def flops(shape: Shape) -> int:
    """Multiplications and additions of a product."""
    rows, inner, cols = shape
    return 2 * rows * inner * cols


def traffic_bytes(net: MLP, batch: int, itemsize: int) -> int:
    """What has to pass between memory and processor once: samples, parameters, and the gradient."""
    return itemsize * (batch * net.n_inputs + 2 * net.n_params)


def _product(shape: Shape, dtype: np.dtype, library: str = "scipy") -> Call:
    """BLAS, whose matrices lie column by column, writing to an array that is there."""
    rows, inner, cols = shape
    gemm = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)(
        blas_libraries.address(library, "dgemm" if dtype == np.float64 else "sgemm")
    )
    rng = np.random.default_rng(0)
    a, b = (np.asfortranarray(rng.standard_normal(size), dtype) for size in ((rows, inner), (inner, cols)))
    c = np.zeros((rows, cols), dtype, order="F")
    as_given, scale, nothing = (np.array(each) for each in (b"N", dtype.type(1), dtype.type(0)))
    m, n, k = (np.array(size, np.intc) for size in (rows, cols, inner))
    given = as_given, as_given, m, n, k, scale, a, m, b, k, nothing, c, m
    addresses = [array.ctypes.data for array in given]

    def product() -> np.ndarray:
        gemm(*addresses)
        return given[-2]

    return product


def _triad(dtype: np.dtype) -> Call:
    """``y += a x`` on arrays that no cache holds: two are read, one is written. Of zeros, all pages might be one."""
    from scipy.linalg import blas

    x, y = (np.ones(TRIAD_BYTES // 2 // dtype.itemsize, dtype) for _ in range(2))
    axpy = blas.daxpy if dtype == np.float64 else blas.saxpy
    return lambda: axpy(x, y, len(x), 0.5)


def _in_a_row(calls: list[Call]) -> Call:
    def run() -> None:
        for call in calls:
            call()

    return run
