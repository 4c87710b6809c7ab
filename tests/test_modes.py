"""Threads and modes of Backprop: the same bits on every processor and with any threads, or within rounding of them."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llvmlite.binding
import naive
import numpy as np
import pytest
from test_sweeps import child

import difflab as dl
from difflab import blas
from difflab.blas import ONE_THREAD
from difflab.kernels import plans
from difflab.kernels.layout import BARS, SCRATCH, VALUES
from difflab.kernels.processor import LINE
from difflab.kernels.products import OwnTerms
from difflab.layers import BatchNorm, Dense, Dropout, Maxout, Multiply, Residual, Softmax
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES


DTYPES = ("float64", "float32")
BATCHES = (1, 33, 300, 700)
"""One sample, less than a tile, more than a chunk of samples, and more than two."""

D = Dense
NETS = {
    "smooth": dl.MLP(5, [D(9, "tanh"), D(7, "softplus"), D(6, "gelu"), D(6, "silu"), D(5)]),
    "pieces": dl.MLP(5, [D(9, "elu"), D(17, "leaky_relu"), D(6, "softsign"), D(4, "relu"), D(3)], "squared_error"),
    "learnable": dl.MLP(5, [D(9, "swish"), D(7, "prelu"), D(3)], "sigmoid_cross_entropy", "sum", l1=0.01, l2=0.1),
    "shares": dl.MLP(5, [D(6), Multiply(3), Residual((Maxout(3, 2),)), D(3), Softmax()], "kl_divergence"),
    "chances": dl.MLP(5, [D(9, "sigmoid"), D(3, "sigmoid")], "binary_cross_entropy"),
    "masked": dl.MLP(5, [D(9, "tanh"), Dropout(0.4, seed=2), D(3)], "mean_squared_error"),
    "coupled": dl.MLP(5, [D(9, "tanh"), BatchNorm(), D(3)]),
}
NEEDS_ALL = ("masked", "coupled")
"""Networks whose batches are never cut."""


def test_the_networks_hold_all_activations_and_losses():
    steps = [step for net in NETS.values() for step in net.program.instructions]
    assert {step.function for step in steps if step.operation == "activation"} == set(ACTIVATIONS) - {"identity"}
    assert {net.loss for net in NETS.values()} == set(LOSSES)


@cache
def problem(kind: str, batch: int, dtype: str) -> tuple[np.ndarray, ...]:
    net = NETS[kind]
    found = naive.random_problem(net, np.random.default_rng([batch, 3]), min(batch, 33))
    theta, x, y = (a if a.dtype.kind == "i" else a.astype(dtype) for a in found)
    repeated = np.arange(batch) % len(x)
    return theta, (x[repeated] * (1 + np.arange(batch)[:, None] / 1024)).astype(dtype), y[repeated]


each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_kind = pytest.mark.parametrize("kind", NETS)
each_batch = pytest.mark.parametrize("batch", BATCHES)


def answer(kind: str, batch: int, dtype: str, **options: Any) -> tuple[float, np.ndarray]:
    return dl.Backprop(dtype, **options).prepare(NETS[kind]).value_and_gradient(*problem(kind, batch, dtype))


def sha256(*found: Any) -> str:
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in found)).hexdigest()


def fingerprint(kind: str, batch: int, dtype: str, threads: int = 1) -> str:
    return sha256(*answer(kind, batch, dtype, threads=threads, mode="reproducible"))


EXHAUSTIVE = os.environ.get("DIFFLAB_EXHAUSTIVE") == "1"
COMPARED = [("smooth", 33, "float64"), ("smooth", 300, "float64"), ("shares", 33, "float32")]
"""Few by default, as each processor needs code of its own; it is kept, as always."""


def all_fingerprints() -> dict[str, str]:
    found = {f"{case}": fingerprint(*case) for case in (product(NETS, (33, 300), DTYPES) if EXHAUSTIVE else COMPARED)}
    if EXHAUSTIVE:
        found |= {f"derivatives {case}": fingerprint_of_derivatives(*case) for case in product(NETS, DTYPES)}
    return found


# --- the same bits


@each_dtype
@each_kind
@each_batch
def test_threads_do_not_change_a_bit_of_what_is_reproducible(kind, batch, dtype):
    assert len({fingerprint(kind, batch, dtype, threads) for threads in (1, 2, 3, 1)}) == 1


def fingerprint_of_derivatives(kind: str, dtype: str) -> str:
    theta, x, y = problem(kind, 33, dtype)
    prepared = dl.Backprop(dtype, mode="reproducible").prepare(NETS[kind])
    along, seeds = np.cos(np.arange(theta.size)).astype(dtype), np.ones((33, NETS[kind].n_outputs), dtype)
    return sha256(
        prepared.hvp(theta, x, y, along, x),
        prepared.input_gradient(theta, x, y),
        prepared.jvp(theta, x, along),
        prepared.vjp(theta, x, seeds),
        prepared.gauss_newton_product(theta, x, y, along),
    )


@each_dtype
@pytest.mark.parametrize("kind", ["smooth", "learnable"])
def test_derivatives_have_the_same_bits_in_every_object(kind, dtype):
    assert fingerprint_of_derivatives(kind, dtype) == fingerprint_of_derivatives(kind, dtype)


PROCESSORS = {
    "SSE2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
    "AVX2 without fused operations": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+avx,+avx2"},
    "AVX-512": {"NUMBA_CPU_NAME": "skylake-avx512"},
}
NEEDED = {"SSE2": "sse2", "AVX2 without fused operations": "avx2", "AVX-512": "avx512f"}
FINGERPRINTS = "import json, test_modes; print(json.dumps(test_modes.all_fingerprints()))"


@cache
def fingerprints_here() -> dict[str, str]:
    return all_fingerprints()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_processor_has_the_same_bits(processor):
    """By default the least and, where it is there, the most; what lies between takes code of its own too."""
    if processor not in ("SSE2", "AVX-512") and not EXHAUSTIVE:
        pytest.skip("a campaign: set DIFFLAB_EXHAUSTIVE=1")
    features = llvmlite.binding.get_host_cpu_features()
    if not features.get(NEEDED[processor]):
        pytest.skip(f"this processor has no {processor}")
    tests = Path(__file__).parent
    found = json.loads(child(FINGERPRINTS, tests, tests.parent, **PROCESSORS[processor]))
    assert [case for case, bits in found.items() if bits != fingerprints_here()[case]] == []


def test_bits_say_something():
    """Fused operations round once where others round twice; nearly all gradients show it."""
    if not llvmlite.binding.get_host_cpu_features().get("fma"):
        pytest.skip("this processor has no fused operations")
    differing = [
        sha256(*answer(kind, 33, dtype)) != fingerprint(kind, 33, dtype) for kind, dtype in product(NETS, DTYPES)
    ]
    assert sum(differing) > len(differing) / 2


# --- right


def predicted_error(net: dl.MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return dl.Backprop(theta.dtype.name).prepare(net).predicted_error(theta, x, y)


def assert_close(
    found: tuple[float, np.ndarray], expected: tuple[float, np.ndarray], kind: str, batch: int, dtype: str
) -> None:
    """Both are within the proven bound of the truth, so that they are within twice that of each other."""
    theta, x, y = problem(kind, batch, dtype)
    bound = predicted_error(NETS[kind], theta, x, y)
    assert (np.abs(found[1].astype(float) - expected[1]) <= 2 * bound).all()
    loss_size = abs(expected[0]) + batch * (NETS[kind].reduction == "sum") + 1
    assert abs(found[0] - expected[0]) <= naive.accumulated_rounding(NETS[kind], batch, np.finfo(dtype).eps) * loss_size


@each_dtype
@each_kind
@each_batch
def test_modes_agree_within_their_rounding(kind, batch, dtype):
    assert_close(answer(kind, batch, dtype, mode="reproducible"), answer(kind, batch, dtype), kind, batch, dtype)


@pytest.mark.usefixtures("threads_at_once")
@each_dtype
@each_kind
@pytest.mark.parametrize("threads", [2, 3, 40])
def test_threads_agree_within_rounding_and_have_the_same_bits_every_time(kind, dtype, threads):
    for batch in (1, 2, 33, 300):
        prepared = dl.Backprop(dtype, threads=threads).prepare(NETS[kind])
        answers = [prepared.value_and_gradient(*problem(kind, batch, dtype)) for _ in range(3)]
        assert len({(value, gradient.tobytes()) for value, gradient in answers}) == 1
        assert answers[0][0] == prepared.value(*problem(kind, batch, dtype))
        assert_close(answers[0], answer(kind, batch, dtype), kind, batch, dtype)
        if kind in NEEDS_ALL or batch == 1:
            assert answers[0][1].tobytes() == answer(kind, batch, dtype)[1].tobytes()


@pytest.mark.usefixtures("threads_at_once")
@pytest.mark.parametrize("options", [{"threads": 3}, {"threads": 3, "mode": "reproducible"}], ids=str)
def test_batches_of_all_sizes_in_any_order_leave_nothing_to_each_other(options):
    for kind in NETS:
        used = dl.Backprop(**options).prepare(NETS[kind])
        for batch in (300, 1, 700, 33, 2, 700):
            value, gradient = used.value_and_gradient(*problem(kind, batch, "float64"))
            fresh_value, fresh = answer(kind, batch, "float64", **options)
            assert (value, gradient.tobytes()) == (fresh_value, fresh.tobytes()), (kind, batch)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rooms_of_a_plan_begin_at_lines_of_the_cache(dtype):
    prepared = dl.Backprop(dtype).prepare(NETS["smooth"])
    prepared.value_and_gradient(*problem("smooth", 33, dtype))
    words = prepared._plans.at_hand["gradient"].words
    assert not any(words[[VALUES, BARS, SCRATCH]] % LINE)


@each_kind
def test_the_loss_has_the_same_bits_with_its_gradient_and_without(kind):
    for batch in (1, 300, 700):
        prepared = dl.Backprop(mode="reproducible").prepare(NETS[kind])
        arguments = problem(kind, batch, "float64")
        assert prepared.value(*arguments) == prepared.value_and_gradient(*arguments)[0]


WIDE = [dl.Dense(8, "tanh"), dl.Dense(8)]


@pytest.mark.parametrize("layers", [WIDE, [*WIDE, dl.Dropout(0.5, seed=1)], [*WIDE, dl.BatchNorm()]], ids=str)
def test_blas_has_one_thread_from_the_first_product_that_may_be_its_own(monkeypatch, layers):
    monkeypatch.setattr(plans, "own_terms", lambda item, library: OwnTerms(*[64 * 20] * 3))
    prepared, held = dl.Backprop(blas="scipy").prepare(net := dl.MLP(8, layers)), []
    swept = prepared._swept

    def noting(*given, **words):
        held.append(ONE_THREAD.is_held)
        return swept(*given, **words)

    monkeypatch.setattr(prepared, "_swept", noting)
    for batch in (20, 21):
        prepared.input_gradient(*naive.random_problem(net, np.random.default_rng(0), batch))
    assert held == [False, True]
    assert (prepared._least_for_blas, ONE_THREAD.is_held) == (21, False)


@pytest.mark.parametrize("batch", [20, 21])
def test_sweeps_that_are_one_call_hold_back_the_threads_of_blas_as_well(monkeypatch, batch):
    monkeypatch.setattr(plans, "own_terms", lambda item, library: OwnTerms(*[64 * 20] * 3))
    prepared, held = dl.Backprop(blas="scipy").prepare(net := dl.MLP(8, WIDE)), []
    arguments = naive.random_problem(net, np.random.default_rng(0), batch)
    expected = dl.Backprop(mode="reproducible").prepare(net).value_and_gradient(*arguments)
    prepared.value_and_gradient(*arguments)
    for ndim, door in prepared._doors["gradient"].items():
        noting = lambda *given, door=door: held.append(ONE_THREAD.is_held) or door(*given)  # noqa: E731
        monkeypatch.setitem(prepared._doors["gradient"], ndim, noting)
    for call in (prepared.value_and_gradient, lambda *given: prepared.bound_to(*given).value_and_gradient()):
        value, gradient = call(*arguments)
        assert value == pytest.approx(expected[0], rel=1e-13)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-11, atol=1e-14)
    assert set(held) == {batch == 21}


def test_blas_has_its_threads_back_when_the_last_is_done(monkeypatch):
    """Who came first may leave first."""
    threads = [4]

    class Libraries:
        def limit(self, limits, user_api):
            before, threads[0] = threads[0], limits
            return SimpleNamespace(restore_original_limits=lambda: threads.__setitem__(0, before))

    monkeypatch.setattr(blas, "_libraries", Libraries)
    shared = blas.OneThread()
    with ExitStack() as second:
        with shared:
            second.enter_context(shared)
        assert threads == [1]
    assert threads == [4]


@pytest.mark.parametrize("options", [{"threads": 2}, {"threads": 2, "mode": "reproducible"}], ids=str)
@pytest.mark.usefixtures("threads_at_once")
def test_penalties_count_once_however_many_chunks_there_are(options):
    kind = "learnable"
    theta, x, y = problem(kind, 700, "float64")
    bare = dl.MLP(5, list(NETS[kind].layers), NETS[kind].loss, NETS[kind].reduction)
    whole = dl.Backprop(**options).prepare(NETS[kind]).value_and_gradient(theta, x, y)[1]
    less = dl.Backprop(**options).prepare(bare).value_and_gradient(theta, x, y)[1]
    is_weight = np.zeros(theta.size, bool)
    for name, part in NETS[kind].view(is_weight).items():
        part[...] = name.endswith("weight")
    expected = (0.01 * np.sign(theta) + 0.1 * theta) * is_weight
    bounds = [predicted_error(net, theta, x, y) for net in (NETS[kind], bare)]
    assert (np.abs((whole - less) - expected) <= sum(bounds) + np.spacing(np.abs(whole))).all()


@pytest.mark.usefixtures("threads_at_once")
@pytest.mark.parametrize("options", [{"threads": 2}, {"threads": 2, "mode": "reproducible"}], ids=str)
def test_what_overflows_in_one_chunk_is_an_error_of_the_call_and_of_no_other(options):
    net, rng = dl.MLP(5, [D(3)], "squared_error"), np.random.default_rng(0)
    theta, x, y = naive.random_problem(net, rng, 700)
    broken = x.copy()
    broken[650] = 1e300
    prepared = dl.Backprop(**options).prepare(net)
    with pytest.raises(FloatingPointError, match="got a loss of inf"):
        prepared.value_and_gradient(theta, broken, y)
    expected = dl.Backprop(**options).prepare(net).value_and_gradient(theta, x, y)[1]
    assert prepared.value_and_gradient(theta, x, y)[1].tobytes() == expected.tobytes()


# --- threads of Python


@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"mode": "reproducible"}], ids=str)
def test_prepared_objects_serve_a_thread_each(options):
    """All at once, on networks and batches of their own."""
    cases = list(product(NETS, (33, 700))) * 2
    expected = {case: answer(*case, "float64", **options) for case in cases}

    def work(case: tuple[str, int]) -> bool:
        prepared = dl.Backprop(**options).prepare(NETS[case[0]])
        answers = [prepared.value_and_gradient(*problem(*case, "float64")) for _ in range(10)]
        value, gradient = expected[case]
        return all((v, g.tobytes()) == (value, gradient.tobytes()) for v, g in answers)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, cases))


# --- options


@pytest.mark.parametrize("threads", [0, -1, True, False, 1.5, 2.0, "2", None, np.int64(2)])
def test_threads_that_are_no_int_from_1_are_refused(threads):
    with pytest.raises(ValueError, match="^threads must be an int from 1, got "):
        dl.Backprop(threads=threads)


@pytest.mark.parametrize("mode", ["", "Fast", "deterministic", None, 1])
def test_a_mode_that_is_unknown_is_refused(mode):
    with pytest.raises((ValueError, TypeError), match="mode"):
        dl.Backprop(mode=mode)


LABELS = {
    "Backprop('float64')": dl.Backprop(),
    "Backprop('float32')": dl.Backprop("float32"),
    "Backprop('float64', threads=2)": dl.Backprop(threads=2),
    "Backprop('float64', 'reproducible')": dl.Backprop(mode="reproducible"),
    "Backprop('float32', 'reproducible', threads=3)": dl.Backprop("float32", 3, "reproducible"),
}


@pytest.mark.parametrize("label", LABELS)
def test_a_label_names_what_is_not_usual(label):
    assert repr(LABELS[label]) == label


def test_labels_differ_where_options_do():
    made = [dl.Backprop(*options) for options in product(DTYPES, (1, 2, 3), ("fast", "reproducible"))]
    assert len({repr(each) for each in made}) == len(made)
