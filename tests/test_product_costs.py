"""What products of matrices by own loops cost beside those by BLAS: a campaign, with records in ``results/campaigns``::

    DIFFLAB_COSTS=1 DIFFLAB_CAMPAIGN_RESULTS=results/campaigns python -m pytest tests/test_product_costs.py

It leaves ``products_256_scipy.json`` and the like, named by the bits of the processor's vectors and by the library that
is BLAS there by ``"auto"``: limits of own loops differ by both. It asserts nothing about seconds; records are what
these limits are held against.
"""

from __future__ import annotations

import json
import math
import os
from itertools import product
from pathlib import Path

import campaigns
import numpy as np
import pytest
from test_products import compiled
from test_vector_math import PRECISIONS

from difflab.blas import ONE_THREAD
from difflab.kernels.blas_products import chosen
from difflab.kernels.products import IS_WIDE, own_terms, scratch_size
from difflab.study.timing import contest


MAKERS = {"scipy": "by BLAS", "mkl": "by MKL"}
"""Of products of matrices, by library."""

LAYERS = [
    (1, 8, 8), (32, 8, 8), (128, 32, 32), (128, 64, 32), (256, 128, 10), (256, 256, 128), (256, 784, 256),
    (512, 512, 512), (1024, 784, 256), (640, 640, 640), (768, 768, 768), (1024, 784, 1024), (1024, 1024, 1024),
]  # fmt: skip
"""Samples, inputs and outputs of layers, by the size of their products."""


def call_of(maker: str, dtype: str, shape: tuple[int, int, int], turns: tuple[bool, bool]):
    """A product of arrays of its own; no call of Python's looks at them."""
    rows, columns, terms = shape
    rng, function = np.random.default_rng(0), compiled(maker, dtype)
    left, right = (rng.normal(size=size).astype(dtype) for size in (rows * terms, terms * columns))
    out, scratch = np.empty(rows * columns, dtype), np.empty(scratch_size(columns, terms), dtype)
    given = left.ctypes.data, int(turns[0]), right.ctypes.data, int(turns[1]), *shape, scratch.ctypes.data
    arguments = out.ctypes.data, 0, 0, *given, out.dtype.type(0)
    kept = left, right, out, scratch
    return lambda: function(*arguments) if kept else None


def of_product(library: str, dtype: str, shape: tuple[int, int, int], turns: tuple[bool, bool]) -> dict[str, float]:
    contenders = {maker: call_of(maker, dtype, shape, turns) for maker in ("in order, fused", MAKERS[library])}
    found = contest(contenders, np.random.default_rng(0), 0.3).timings
    own, blas = (found[maker].seconds for maker in contenders)
    return {
        "own_gflops": round(2e-9 * math.prod(shape) / own, 2),
        "blas_gflops": round(2e-9 * math.prod(shape) / blas, 2),
        "ratio": round(blas / own, 3),
    }


def products(library: str) -> dict[str, dict[str, float]]:
    """Of a layer's forward sweep, of the gradient of its weights and of that of its inputs, on one thread.

    The products are of so many numbers as stand before and behind the limit from which on BLAS makes them.
    """
    found = {}
    with ONE_THREAD:
        for dtype, (batch, n_in, n_out) in product(PRECISIONS, LAYERS):
            kinds = {
                "forward": ((batch, n_out, n_in), (False, True)),
                "of weights": ((n_out, n_in, batch), (True, False)),
                "of inputs": ((batch, n_in, n_out), (False, False)),
            }
            for kind, (shape, turns) in kinds.items():
                found[f"{dtype} {batch} {n_in} {n_out} {kind}"] = of_product(library, dtype, shape, turns)
    return found


@pytest.mark.skipif(os.environ.get("DIFFLAB_COSTS") != "1", reason="a campaign: set DIFFLAB_COSTS=1")
def test_product_costs():
    library = chosen("auto")
    campaigns.record(f"products_{512 if IS_WIDE else 256}_{library}", products(library))


# --- what the records say


RECORDS = sorted((Path(__file__).parents[1] / "results/campaigns").glob("products_*.json"))


def test_there_are_records():
    assert RECORDS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_own_loops_make_products_up_to_where_the_recorded_blas_is_as_fast(dtype, path):
    _, bits, library = path.stem.split("_")
    limits = own_terms(np.dtype(dtype).itemsize, library, bits == "512")._asdict()
    ratios: dict[str, list[float]] = {"small": [], "middle": [], "large": []}
    for name, found in json.loads(path.read_text())["figures"].items():
        of, *sizes = name.split()[:4]
        if of == dtype:
            terms, limit = math.prod(map(int, sizes)), limits["_".join(name.split()[4:])]
            size = "small" if terms <= limit / 32 else "middle" if terms <= limit else "large"
            ratios[size].append(found["ratio"])
    assert np.median(ratios["small"]) >= 1.0
    assert np.median(ratios["middle"]) >= 0.9
    assert not ratios["large"] or np.median(ratios["large"]) <= 1.0
