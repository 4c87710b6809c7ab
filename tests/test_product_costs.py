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
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

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
    (1024, 1024, 2048), (1024, 2048, 1024),
]  # fmt: skip
"""Samples, inputs and outputs of layers, by the size of their products."""


def call_of(maker: str, dtype: str, shape: tuple[int, int, int], turns: tuple[bool, bool]):
    """A product of arrays of its own; no call of Python's looks at them."""
    rows, columns, terms = shape
    rng, function = np.random.default_rng(0), compiled(maker, dtype)
    left, right = (rng.normal(size=size).astype(dtype) for size in (rows * terms, terms * columns))
    out = np.empty(rows * columns, dtype)
    scratch = np.empty(scratch_size(columns, terms, out.itemsize), dtype)
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

    Limits from which on BLAS makes them are among their sizes.
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


FOLDER = Path(__file__).parents[1] / "results/campaigns"
RECORDED = [("256", "scipy")]
"""Bits of vectors and library of each record. For others, limits are those of slower own loops (the products in
``costs.json``) and from single runs, and so may be too low."""

KINDS = ("forward", "of_weights", "of_inputs")


@cache
def recorded(bits: str, library: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"products_{bits}_{library}.json").read_text())["figures"]


def test_every_record_is_held_against_limits():
    assert {path.stem for path in FOLDER.glob("products_*.json")} == {f"products_{b}_{name}" for b, name in RECORDED}


@pytest.mark.parametrize(("bits", "library"), RECORDED)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_own_loops_make_products_up_to_where_the_recorded_blas_is_as_fast(dtype, kind, bits, library):
    """And nowhere beyond what was recorded."""
    limit = getattr(own_terms(np.dtype(dtype).itemsize, library, bits == "512"), kind)
    ratios: dict[str, list[float]] = {"small": [], "middle": [], "large": []}
    largest = 0
    for name, found in recorded(bits, library).items():
        of, *sizes = name.split()[:4]
        if of == dtype and "_".join(name.split()[4:]) == kind:
            terms = math.prod(map(int, sizes))
            size = "small" if terms <= limit / 32 else "middle" if terms <= limit else "large"
            ratios[size].append(found["ratio"])
            largest = max(largest, terms)
    assert limit <= largest
    assert np.median(ratios["small"]) >= 1.0
    assert np.median(ratios["middle"]) >= 0.9
    assert not ratios["large"] or np.median(ratios["large"]) <= 1.0
