"""Every back-end answers bad arguments with one sentence, changes nothing, and takes every layout of good ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import naive
import numpy as np
import pandas as pd
import psutil
import pytest
from numba.core import compiler

import difflab as dl
from difflab.kernels import kept_plans


CLASSIFIER = dl.MLP.dense([3, 2, 2])
REGRESSOR = dl.MLP.dense([3, 2, 2], loss="squared_error")
N = CLASSIFIER.n_params
BATCH = 2
DTYPES = {
    dl.Symbolic(): "float64",
    dl.FiniteDifference(): "float64",
    dl.FiniteDifference("complex"): "float64",
    dl.Backprop(): "float64",
    dl.Backprop("float32"): "float32",
    dl.Certified(): "float64",
}
every_backend = pytest.mark.parametrize("backend", DTYPES, ids=repr)


class Good(NamedTuple):
    """Arguments that every back-end takes, in its own dtype."""

    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray
    out: np.ndarray


@cache
def prepared(backend: dl.Backend, net: dl.MLP = CLASSIFIER) -> dl.Prepared:
    return backend.prepare(net)


def good(backend: dl.Backend) -> Good:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=N), rng.normal(size=(BATCH, 3)), np.array([[1.0, 0.0], [0.25, 0.75]]), np.full(N, 7.0)
    return Good(*(array.astype(DTYPES[backend]) for array in numbers))


def other(dtype: np.dtype) -> str:
    return "float32" if dtype == np.float64 else "float64"


def bytes_of(argument: Any) -> bytes:
    return argument.tobytes() if isinstance(argument, np.ndarray) else repr(argument).encode()


def complaint(backend: dl.Backend, arguments: Good, error: type[Exception], net: dl.MLP = CLASSIFIER) -> str:
    """The sentence with which the back-end refuses; nothing may have changed by then."""
    before = [bytes_of(argument) for argument in arguments]
    with pytest.raises(error) as raised:
        prepared(backend, net).value_and_gradient(*arguments)
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert [bytes_of(argument) for argument in arguments] == before
    return sentence


# --- wrong shapes

SHAPES: dict[str, tuple[Callable[[Good], dict], str]] = {
    "theta too short": (
        lambda g: {"theta": g.theta[:-1]},
        f"theta must have shape ({N},) for MLP 3-2-2, got ({N - 1},)",
    ),
    "theta too long": (
        lambda g: {"theta": np.append(g.theta, g.theta[:1])},
        f"theta must have shape ({N},) for MLP 3-2-2, got ({N + 1},)",
    ),
    "theta empty": (lambda g: {"theta": g.theta[:0]}, f"theta must have shape ({N},) for MLP 3-2-2, got (0,)"),
    "theta 2-D": (lambda g: {"theta": g.theta[None]}, f"theta must have shape ({N},) for MLP 3-2-2, got (1, {N})"),
    "theta 0-d": (lambda g: {"theta": np.array(g.theta[0])}, f"theta must have shape ({N},) for MLP 3-2-2, got ()"),
    "x too narrow": (lambda g: {"x": g.x[:, :2].copy()}, "x must have shape (batch, 3) with batch 1 or more"),
    "x too wide": (lambda g: {"x": np.hstack([g.x, g.x])}, "for MLP 3-2-2, got (2, 6)"),
    "x 1-D": (lambda g: {"x": g.x[0]}, "x must have shape (batch, 3) with batch 1 or more for MLP 3-2-2, got (3,)"),
    "x 3-D": (lambda g: {"x": g.x[None]}, "got (1, 2, 3)"),
    "x 0-d": (lambda g: {"x": np.array(g.x[0, 0])}, "got ()"),
    "batch of 0": (lambda g: {"x": g.x[:0], "y": g.y[:0]}, "with batch 1 or more for MLP 3-2-2, got (0, 3)"),
    "y with more rows": (
        lambda g: {"y": np.vstack([g.y, g.y])},
        "y must have shape (2, 2), or (2,) of class indices for MLP 3-2-2, got (4, 2)",
    ),
    "y with fewer rows": (lambda g: {"y": g.y[:1]}, "got (1, 2)"),
    "y with more columns": (lambda g: {"y": np.hstack([g.y, g.y])}, "got (2, 4)"),
    "y 3-D": (lambda g: {"y": g.y[None]}, "got (1, 2, 2)"),
    "y 0-d": (lambda g: {"y": np.array(g.y[0, 0])}, "got ()"),
    "more classes than rows": (
        lambda g: {"y": np.array([0, 1, 0])},
        "class indices y must have shape (2,), one per row of x, got (3,)",
    ),
    "out too short": (lambda g: {"out": g.out[1:]}, f"out must have shape ({N},) for MLP 3-2-2, got ({N - 1},)"),
    "out too long": (lambda g: {"out": np.append(g.out, g.out[:1])}, f"got ({N + 1},)"),
    "out 2-D": (lambda g: {"out": g.out[None]}, f"got (1, {N})"),
}


@every_backend
@pytest.mark.parametrize("case", SHAPES)
def test_a_wrong_shape_is_named_beside_the_right_one(backend, case):
    change, words = SHAPES[case]
    arguments = good(backend)
    assert words in complaint(backend, arguments._replace(**change(arguments)), ValueError)


@pytest.mark.parametrize("name", Good._fields)
def test_another_byte_order_is_refused_after_numbers_that_are_not_aligned(name):
    """Numba's types of both are the same to it, whichever it has met first: once the bytes were read as they lay."""
    arguments = good(dl.Backprop())
    used = dl.Backprop().prepare(CLASSIFIER)
    array = getattr(arguments, name)
    view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    if name != "out":
        used.value_and_gradient(*arguments._replace(**{name: view}))
    with pytest.raises(TypeError, match="; convert with"):
        used.value_and_gradient(*arguments._replace(**{name: array.astype(array.dtype.newbyteorder())}))


@pytest.mark.parametrize("backend", [dl.Backprop(threads=2), dl.Backprop(mode="reproducible")], ids=repr)
def test_an_empty_batch_is_refused_where_samples_have_been_shared(backend, threads_at_once):
    theta, x, y, out = good(dl.Backprop())
    used = backend.prepare(CLASSIFIER)
    for _ in range(2):
        used.value_and_gradient(theta, x, y, out)
        for call in (used.value, used.value_and_gradient):
            with pytest.raises(ValueError, match="with batch 1 or more"):
                call(theta, x[:0], y[:0])


# --- not a plain array of the right dtype

KINDS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "int64": (lambda a: a.astype(np.int64), "<i8; convert with"),
    "bool": (lambda a: a.astype(bool), "|b1; convert with"),
    "float16": (lambda a: a.astype(np.float16), "<f2; convert with"),
    "longdouble": (lambda a: a.astype(np.longdouble), "; convert with"),
    "complex": (lambda a: a.astype(np.complex128), "<c16; convert with"),
    "object": (lambda a: a.astype(object), "|O; convert with"),
    "text": (lambda a: a.astype(str), "<U32; convert with"),
    "other byte order": (lambda a: a.astype(a.dtype.newbyteorder()), "; convert with"),
    "list": (lambda a: a.tolist(), "builtins.list; pass an array of float"),
    "nothing": (lambda a: None, "builtins.NoneType; pass an array of float"),
    "scalar": (lambda a: a.flat[0], "numpy.float"),
    "masked": (lambda a: np.ma.array(a, mask=a > 0), "numpy.MaskedArray; fill the masked entries"),
    "matrix": (lambda a: np.atleast_2d(a).view(np.matrix), "numpy.matrix; pass an array of float"),
    "memmap-like subclass": (lambda a: a.view(np.recarray), "numpy.recarray; pass an array of float"),
    "DataFrame": (lambda a: pd.DataFrame(a), "pandas.DataFrame; pass an array of float"),
    "Series": (lambda a: pd.Series(a.ravel()), "pandas.Series; pass an array of float"),
}


@every_backend
@pytest.mark.parametrize("name", Good._fields)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_array_of_the_right_dtype_is_refused_with_the_remedy(backend, name, kind):
    if (name, kind) == ("out", "nothing"):
        pytest.skip("out=None asks for a fresh array")
    if (backend, name, kind) == (dl.Certified(), "theta", "float16"):
        pytest.skip("the certified back-end takes float16, and then wants it of all others")
    change, words = KINDS[kind]
    arguments = good(backend)
    sentence = complaint(backend, arguments._replace(**{name: change(getattr(arguments, name))}), TypeError)
    assert sentence.startswith(f"{name} must be ")
    assert ", got " in sentence
    assert words in sentence


@every_backend
@pytest.mark.parametrize("name", Good._fields)
def test_single_and_double_precision_are_never_mixed(backend, name):
    arguments = good(backend)
    array = getattr(arguments, name)
    mixed = arguments._replace(**{name: array.astype(other(array.dtype))})
    sentence = complaint(backend, mixed, TypeError)
    assert "must be float" in sentence
    assert "convert with" in sentence


# --- class indices

CLASSES: dict[str, tuple[np.ndarray, type[Exception], str]] = {
    "negative": (np.array([0, -1]), ValueError, "class indices y must be from 0 to 1, got -1 at y[1]"),
    "too large": (np.array([2, 0]), ValueError, "class indices y must be from 0 to 1, got 2 at y[0]"),
    "too large and unsigned": (np.array([0, 255], np.uint8), ValueError, "got 255 at y[1]"),
    "beyond int64": (np.array([0, 2**64 - 1], np.uint64), ValueError, "at y[1]"),
    "float": (
        np.array([0.0, 1.0]),
        TypeError,
        "class indices y must be integers, got float64; convert with y.astype(int)",
    ),
    "bool": (np.array([True, False]), TypeError, "class indices y must be integers, got bool"),
    "object": (np.array([0, 1], object), TypeError, "class indices y must be integers, got object"),
}


@every_backend
@pytest.mark.parametrize("case", CLASSES)
def test_a_label_that_is_no_class_is_refused(backend, case):
    labels, error, words = CLASSES[case]
    assert words in complaint(backend, good(backend)._replace(y=labels), error)


@every_backend
def test_classes_are_refused_where_the_loss_takes_none(backend):
    sentence = complaint(backend, good(backend)._replace(y=np.array([0, 1])), TypeError, REGRESSOR)
    assert sentence.startswith("y must hold rows of")


@every_backend
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", ">i4"])
def test_classes_of_any_integer_dtype_stand_for_one_hot_rows(backend, dtype):
    arguments = good(backend)
    one_hot = np.array([[0, 1], [1, 0]], arguments.x.dtype)
    value, expected = prepared(backend).value_and_gradient(*arguments._replace(y=one_hot, out=None))
    by_class = prepared(backend).value_and_gradient(*arguments._replace(y=np.array([1, 0], dtype), out=None))
    assert by_class[0] == value
    assert (by_class[1] == expected).all()


# --- numbers that are not finite

PLACES = {"theta": (5,), "x": (1, 2), "y": (0, 1)}


def spoiled(arguments: Good, name: str, bad: float) -> Good:
    array = getattr(arguments, name).copy()
    array[PLACES[name]] = bad
    return arguments._replace(**{name: array})


@every_backend
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", PLACES)
def test_the_first_number_that_is_not_finite_is_named_by_its_index(backend, name, bad):
    sentence = complaint(backend, spoiled(good(backend), name, bad), ValueError)
    place = ",".join(map(str, PLACES[name]))
    assert sentence == f"{name} must be finite, got {bad} at {name}[{place}]; or pass allow_nonfinite=True"


@every_backend
@pytest.mark.parametrize("name", PLACES)
def test_values_without_gradient_pass_the_same_door(backend, name):
    theta, x, y, _ = spoiled(good(backend), name, np.nan)
    with pytest.raises(ValueError, match=f"{name} must be finite"):
        prepared(backend).value(theta, x, y)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@every_backend
def test_on_request_numbers_that_are_not_finite_are_let_through(backend, bad):
    value, gradient = prepared(backend).value_and_gradient(
        *spoiled(good(backend), "theta", bad)._replace(out=None), allow_nonfinite=True
    )
    assert gradient.shape == (N,)
    assert np.isfinite(value) or np.isnan(bad) or isinstance(backend, dl.Certified)


# --- out that cannot be written

UNWRITABLE: dict[str, tuple[Callable[[Good], dict], str]] = {
    "read-only": (lambda g: {"out": read_only(g.out)}, "out must be contiguous, aligned and writeable"),
    "every second entry": (lambda g: {"out": np.repeat(g.out, 2)[::2]}, "out must be contiguous"),
    "reversed": (lambda g: {"out": g.out[::-1]}, "out must be contiguous"),
    "one entry for all": (lambda g: {"out": np.broadcast_to(g.out[:1], N)}, "out must be contiguous"),
    "misaligned": (lambda g: {"out": misaligned(g.out)}, "pass numpy.empty(...)"),
    "theta itself": (lambda g: {"out": g.theta}, "out must not share memory with theta; pass an array of its own"),
    "shifted over theta": (lambda g: shifted(g.theta, "theta"), "out must not share memory with theta"),
    "shifted over x": (lambda g: shifted(g.x, "x"), "out must not share memory with x"),
    "shifted over y": (lambda g: shifted(g.y, "y"), "out must not share memory with y"),
}


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


def misaligned(array: np.ndarray) -> np.ndarray:
    """The same numbers one byte off their natural place."""
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


def shifted(array: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """The array and an ``out`` whose first entry is the array's last one, in one buffer."""
    buffer = np.zeros(array.size + N, array.dtype)
    buffer[: array.size] = array.ravel()
    return {name: buffer[: array.size].reshape(array.shape), "out": buffer[array.size - 1 : array.size - 1 + N]}


@every_backend
@pytest.mark.parametrize("case", UNWRITABLE)
def test_an_out_that_cannot_hold_the_gradient_is_refused(backend, case):
    change, words = UNWRITABLE[case]
    arguments = good(backend)
    assert words in complaint(backend, arguments._replace(**change(arguments)), ValueError)


@every_backend
def test_a_good_out_is_filled_and_returned(backend):
    arguments = good(backend)
    _, fresh = prepared(backend).value_and_gradient(*arguments._replace(out=None))
    _, filled = prepared(backend).value_and_gradient(*arguments)
    assert filled is arguments.out
    assert (filled == fresh).all()


# --- layouts that are good as they are

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "every second entry": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "all axes reversed": lambda a: np.flip(np.flip(a).copy()),
    "Fortran order": np.asfortranarray,
    "columns of a table": lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
    "misaligned": misaligned,
    "read-only": read_only,
}


@every_backend
@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_the_same_numbers_gives_the_same_answer(backend, name, layout):
    arguments = good(backend)._replace(out=None)
    value, gradient = prepared(backend).value_and_gradient(*arguments)
    laid_out = LAYOUTS[layout](getattr(arguments, name))
    before = laid_out.copy()
    again = prepared(backend).value_and_gradient(*arguments._replace(**{name: laid_out}))
    assert again[0] == value
    assert (again[1] == gradient).all()
    assert (laid_out == before).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_layout_makes_an_evaluation_wait_for_the_compiler(dtype, monkeypatch):
    backend = dl.Backprop(dtype)
    ready, arguments = backend.prepare(CLASSIFIER), good(backend)._replace(out=None)
    expected = ready.value_and_gradient(*arguments)

    def compiled(*given: Any, **options: Any) -> None:
        raise AssertionError(f"{given[2]} is compiled in an evaluation")

    monkeypatch.setattr(compiler, "compile_extra", compiled)
    for name, layout in itertools.product(PLACES, LAYOUTS.values()):
        value, gradient = ready.value_and_gradient(*arguments._replace(**{name: layout(getattr(arguments, name))}))
        assert value == expected[0]
        assert (gradient == expected[1]).all()


@every_backend
def test_theta_x_and_y_may_share_memory_with_one_another(backend):
    dtype = DTYPES[backend]
    shared = np.linspace(-1, 1, N).astype(dtype)
    x, y = shared[:6].reshape(BATCH, 3), shared[2:6].reshape(BATCH, 2)
    apart = prepared(backend).value_and_gradient(shared.copy(), x.copy(), y.copy())
    together = prepared(backend).value_and_gradient(shared, x, y)
    assert together[0] == apart[0]
    assert (together[1] == apart[1]).all()


# --- extreme numbers


@every_backend
def test_subnormal_numbers_are_numbers(backend):
    arguments = good(backend)._replace(out=None)
    tiny = np.finfo(arguments.x.dtype).smallest_subnormal
    subnormal = arguments._replace(theta=np.full(N, 3 * tiny), x=np.full_like(arguments.x, 5 * tiny))
    value, gradient = prepared(backend).value_and_gradient(*subnormal)
    assert value == pytest.approx(np.log(2), rel=float(np.finfo(arguments.x.dtype).eps))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("backend", [dl.Backprop(), dl.Backprop("float32"), dl.Certified(), dl.Symbolic()], ids=repr)
def test_subnormal_derivatives_are_not_flushed_to_zero(backend):
    """Of a linear net with zero weights: weight derivatives are (p_k - y_k) x = -+x / 2, and halves of these exact."""
    net, dtype = dl.MLP.dense([1, 2]), DTYPES[backend]
    x = np.full((1, 1), 8 * np.finfo(dtype).smallest_subnormal)
    _, gradient = backend.prepare(net).value_and_gradient(np.zeros(4, dtype), x, np.array([0]))
    assert gradient[:2].tolist() == [-x[0, 0] / 2, x[0, 0] / 2]


LARGE_LOGITS = (
    dl.MLP.dense([1, 3]),
    np.array([0.0, 0.0, 0.0, 1000.0, -1000.0, 999.0]),
    np.array([[1.0], [-1.0]]),
    np.array([0, 1]),
)


def test_logits_of_a_thousand_overflow_in_textbook_formulas_which_say_so():
    net, *arguments = LARGE_LOGITS
    with pytest.raises(dl.NotFinite, match=r"^Symbolic\(\) got a loss of inf and 4 of 6 entries not finite"):
        dl.Symbolic().prepare(net).value_and_gradient(*arguments)


@pytest.mark.parametrize("backend", [backend for backend in DTYPES if backend.name != "symbolic"], ids=repr)
def test_logits_of_a_thousand_give_finite_and_correct_answers(backend):
    net, theta, x, y = LARGE_LOGITS
    theta, x = theta.astype(DTYPES[backend]), x.astype(DTYPES[backend])
    ready = backend.prepare(net)
    value, gradient = ready.value_and_gradient(theta, x, y)
    truth = dl.reference_gradient(net, theta, x, y)
    error = dl.discrepancy(gradient, truth).error_relative
    assert value == pytest.approx(truth.value, rel=float(np.finfo(theta.dtype).eps))
    assert error <= naive.predicted(ready, truth, theta, x, y)


# --- networks and back-ends that cannot be

WIDTHS: dict[str, tuple[Any, type[Exception], str]] = {
    "no inputs": ([0, 2], ValueError, "n_inputs must be from 1 to 1000000, got 0"),
    "empty hidden layer": ([2, 0, 2], ValueError, "units of Dense must be from 1 to 1000000, got 0"),
    "negative": ([2, -3, 2], ValueError, "units of Dense must be from 1 to 1000000, got -3"),
    "huge": ([2, 10**9, 2], ValueError, "units of Dense must be from 1 to 1000000, got 1000000000"),
    "beyond int64": ([2**70, 2], ValueError, "n_inputs must be from 1 to 1000000, got"),
    "too many parameters": ([10**6, 10**6, 1], ValueError, "more than 2147483647; use narrower layers"),
    "float": ([2.0, 2], TypeError, "n_inputs must be an integer, got 2.0 that is a float"),
    "bool": ([True, 2], TypeError, "n_inputs must be an integer, got True that is a bool"),
    "text": ([2, "3"], TypeError, "units of Dense must be an integer, got '3' that is a str"),
    "nothing": ([2, None], TypeError, "units of Dense must be an integer, got None that is a NoneType"),
    "outputs only": ([2], ValueError, "widths must list inputs and outputs at least, like [4, 3, 10], got [2]"),
    "no width at all": ([], ValueError, "widths must list inputs and outputs at least, like [4, 3, 10], got []"),
}


@pytest.mark.parametrize("case", WIDTHS)
def test_a_network_of_impossible_widths_is_refused_when_it_is_named(case):
    widths, error, words = WIDTHS[case]
    with pytest.raises(error) as raised:
        dl.MLP.dense(widths)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match="^layers must be at least one, got none$"):
        dl.MLP(3, [])


UNKNOWN: dict[str, tuple[Callable[[], Any], str]] = {
    "activation": (lambda: dl.Dense(2, "tahn"), "unknown activation 'tahn'; known: .*; did you mean 'tanh'"),
    "loss": (lambda: dl.MLP.dense([1, 1], loss="mse"), "unknown loss 'mse'; known: "),
    "reduction": (lambda: dl.MLP.dense([1, 1], reduction="avg"), "unknown reduction 'avg'; known: mean, sum"),
    "dtype": (lambda: dl.Backprop("float16"), "unknown dtype 'float16'; known: float32, float64"),
    "scheme": (lambda: dl.FiniteDifference("centre"), "unknown scheme 'centre'; .* did you mean 'central'"),
    "backend": (
        lambda: dl.value_and_gradient(CLASSIFIER, *good(dl.Backprop())[:3], backend="autodiff"),
        "unknown backend 'autodiff'; known: ",
    ),
    "max_ops": (lambda: dl.Symbolic(max_ops=0), "max_ops must be an integer, 1 or more, got 0"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_name_is_refused_beside_the_known_ones(case):
    make, words = UNKNOWN[case]
    with pytest.raises(ValueError, match=words):
        make()


# --- memory


COUPLED = dl.MLP(3, [dl.Dense(2, "tanh"), dl.BatchNorm(), dl.Dense(2)])
MASKED = dl.MLP(3, [dl.Dense(2, "tanh"), dl.Dropout(0.25, seed=1), dl.Dense(2)])
all_at_once = pytest.mark.parametrize("net", [COUPLED, MASKED], ids=["coupled", "masked"])
"""Networks whose samples go through together; those of others go in tiles, of which there is one."""


def memory(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available))


@all_at_once
def test_a_batch_that_cannot_fit_is_refused_before_anything_is_allocated(monkeypatch, net):
    ready, arguments = dl.Backprop().prepare(net), good(dl.Backprop())
    arguments = arguments._replace(theta=net.init(0), out=np.full(net.n_params, 7.0))
    before = arguments.out.copy()
    memory(monkeypatch, 100)
    monkeypatch.setattr(kept_plans, "make_plan", None)
    with pytest.raises(MemoryError) as raised:
        ready.value_and_gradient(*arguments)
    assert str(raised.value).startswith(f"a batch of {BATCH} through {net} must fit into 100 bytes, got ")
    assert str(raised.value).endswith("; use a smaller batch")
    assert (arguments.out == before).all()


@all_at_once
def test_a_refused_batch_does_not_spoil_the_next_one(monkeypatch, net):
    ready, arguments = dl.Backprop().prepare(net), good(dl.Backprop())._replace(theta=net.init(0), out=None)
    with monkeypatch.context() as patched:
        memory(patched, 0)
        with pytest.raises(MemoryError):
            ready.value(*arguments[:3])
    assert ready.value(*arguments[:3]) == prepared(dl.Backprop(), net).value(*arguments[:3])


def test_the_workspace_of_tiles_takes_any_batch(monkeypatch):
    ready, (theta, x, y, _) = dl.Backprop().prepare(CLASSIFIER), good(dl.Backprop())
    ready.value_and_gradient(theta, x, y)
    memory(monkeypatch, 0)
    value, gradient = ready.value_and_gradient(theta, *(np.tile(rows, (2000, 1)) for rows in (x, y)))
    expected_value, expected = ready.value_and_gradient(theta, x, y)
    rounding = 2000 * BATCH * np.finfo(float).eps
    assert abs(value - expected_value) <= rounding * abs(expected_value)
    assert np.linalg.norm(gradient - expected) <= rounding * np.linalg.norm(expected)


def test_a_network_whose_tile_cannot_fit_is_refused_when_it_is_prepared(monkeypatch):
    memory(monkeypatch, 100)
    for threads, remedy in ((1, "a narrower network"), (2, "fewer threads")):
        with pytest.raises(
            MemoryError, match=f"tiles of a batch through .* must fit into 100 bytes, got .*; use {remedy}$"
        ):
            dl.Backprop(threads=threads).prepare(CLASSIFIER)


def test_a_very_wide_network_has_tiles_of_a_few_samples():
    """They were of 1024 samples, for which no machine had room."""
    net = dl.MLP.dense([2, 400_000, 2], "relu")
    theta, x, y = np.ones(net.n_params), np.ones((40, 2)), np.tile([0, 1], 20)
    ready = dl.Backprop().prepare(net)
    assert sum(array.nbytes for array in ready._plans.at_hand["gradient"].memory) < 1 << 29
    value, gradient = ready.value_and_gradient(theta, x, y)
    assert value == pytest.approx(np.log(2), rel=1e-12)
    np.testing.assert_allclose(gradient[-2:], 0, atol=1e-15)
