"""Branch-free elementary functions: within their ulp of the truth, the same bits everywhere, and SIMD code.

The truth is Arb's, at 200 bits. Thousands of arguments in every run of the tests; the campaign takes every float32 and
at least 10^8 float64 a function, and leaves a record in ``results/campaigns/vector_math.json``::

    export DIFFLAB_EXHAUSTIVE=1 DIFFLAB_CAMPAIGN_RESULTS=results/campaigns
    python -m pytest tests/test_vector_math.py -k test_the_campaign

Every float32 is compared with the float64 function of NumPy or SciPy, whose own error is some 10^-8 ulp of float32.
float64 is compared with the 64-bit mantissa of long double, by NumPy and, for erf and erfc, by the C library, which
adds up to some 1/1000 ulp. None of these is code of the lab. Arb has the last word on the worst arguments found.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import pytest
from entered import entered
from flint import arb, ctx
from scipy import special

from difflab.kernels import vector_math
from difflab.kernels.loops import with_widest_vectors
from difflab.kernels.target import compiled_rule
from difflab.kernels.vector_math import FLOAT32, FLOAT64, WORST_ULP, Functions, Precision
from difflab.primitives.activations import ACTIVATIONS


EXHAUSTIVE = os.environ.get("DIFFLAB_EXHAUSTIVE") == "1"
RECORD = Path(__file__).parents[1] / "results" / "campaigns" / "vector_math.json"
PRECISIONS = {"float64": FLOAT64, "float32": FLOAT32}
BUILDS = PRECISIONS | {f"fused_{name}": p for name, p in PRECISIONS.items()}
"""Precisions of the functions, as the module has them."""

FUSES = not numba.config.DISABLE_JIT and bool(llvmlite.binding.get_host_cpu_features().get("fma"))
"""Whether a product and a sum are one operation where they may be."""

RULES = ("sigmoid", "softplus")
"""Activations that are elementary functions too: their rules, compiled on the functions here."""

NAMES = (*Functions._fields, *RULES)
ODD = ("expm1", "log1p", "tanh", "erf")
"""Keep the sign of a zero; tanh and erf are odd."""

BITS = 200
X86 = platform.machine().lower() in ("x86_64", "amd64")
each_function = pytest.mark.parametrize("name", NAMES)
each_build = pytest.mark.parametrize("build", BUILDS)

TRUTH: dict[str, Callable[[Any], Any]] = {
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.expm1(),
    "log": lambda x: x.log(),
    "log1p": lambda x: x.log1p(),
    "tanh": lambda x: x.tanh(),
    "erf": lambda x: x.erf(),
    "erfc": lambda x: x.erfc(),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "softplus": lambda x: x.exp().log1p() if x < 0 else x + (-x).exp().log1p(),
}


# --- how far from the truth


def function(name: str, build: str) -> Any:
    if name in RULES:
        return compiled_rule(ACTIVATIONS[name].value, BUILDS[build].real, fused=build not in PRECISIONS)
    return getattr(getattr(vector_math, build), name)


def over(f: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A function of arrays: a compiled loop, the kind of loop that kernels have."""

    @numba.njit(error_model="numpy", nogil=True)
    def loop(x, out):
        with_widest_vectors()
        for i in range(x.size):
            out[i] = f(x[i])

    def values(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        loop(x, out)
        return out

    values.loop = loop
    return values


@cache
def compiled(name: str, build: str) -> Any:
    return over(function(name, build))


def ulp_of(truth: float, p: Precision) -> float:
    """The distance of numbers of a format beside the truth."""
    exponent = max(math.frexp(truth)[1] - 1 if truth else -math.inf, 1 - p.bias)
    return math.ldexp(1.0, int(min(exponent, p.bias)) - p.mantissa_bits)


def error_ulp(name: str, p: Precision, x: Any, y: Any) -> float:
    """How many ulp y is from the function of x; infinity stands for the first number that is too large."""
    if math.isnan(y):
        return math.inf
    before, ctx.prec = ctx.prec, BITS
    try:
        truth = TRUTH[name](arb(float(x)))
        middle = float(truth.mid())
        if abs(truth) < abs(middle):
            middle = math.nextafter(middle, 0.0)
        limit = arb(2) ** (p.bias + 1)
        if math.isinf(y) and truth >= limit:
            return 0.0
        reached = limit if math.isinf(y) else arb(float(y))
        return float(((reached - truth) / arb(ulp_of(middle, p))).abs_upper())
    finally:
        ctx.prec = before


def worst(name: str, p: Precision, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The largest error in ulp, and the argument that has it."""
    return max((error_ulp(name, p, a, b), float(a)) for a, b in zip(x, y, strict=True))


def bound(name: str, build: str) -> float:
    return ACTIVATIONS[name].value_ulp if name in RULES else WORST_ULP[name][BUILDS[build] is FLOAT32]


# --- arguments


def domain(name: str, p: Precision) -> tuple[float, float]:
    """Where the function is neither constant to the last bit nor out of range."""
    largest = float(np.finfo(p.real).max)
    saturated = (p.mantissa_bits + 4) * math.log(2)
    low, high = p.exp_range
    return {
        "exp": (low, math.log(largest)),
        "expm1": (-saturated, math.log(largest)),
        "log": (2.0 ** (1 - p.bias - p.mantissa_bits), largest),
        "log1p": (math.nextafter(-1, 0) if p is FLOAT64 else -1 + 2**-24, largest),
        "tanh": (-saturated / 2, saturated / 2),
        "erf": (-p.erf_end, p.erf_end),
        "erfc": (-p.erf_end, p.erfc_end),
        "sigmoid": (low, saturated),
        "softplus": (low, 2 * saturated),
    }[name]


def breakpoints(p: Precision) -> np.ndarray:
    """Where formulas change, and where reductions take the next multiple of ln 2 or power of 2."""
    k = np.arange(-p.bias - p.mantissa_bits, p.bias + 2, 1 + p.bias // 60)
    powers = np.ldexp(1.0, np.clip(k, 1 - p.bias - p.mantissa_bits, p.bias))
    multiples = (k + 0.5) * math.log(2)
    return np.concatenate([powers, math.sqrt(0.5) * powers, powers - 1, multiples, multiples / 2, [0.65, 0.7, 0.92, 1]])


def arguments(name: str, p: Precision, n: int = 1000) -> np.ndarray:
    """About 4 n arguments of all magnitudes and both signs, denser at breakpoints, at the ends and around 0 and 1."""
    rng = np.random.default_rng(17)
    low, high = domain(name, p)
    smallest = 2.0 ** (1 - p.bias - p.mantissa_bits)
    breaks = breakpoints(p)[:: max(1, 1000 // n)]
    signs = rng.choice([-1.0, 1.0], n)
    with np.errstate(over="ignore", under="ignore"):
        chosen = [
            rng.uniform(max(low, -40), min(high, 40), n),
            rng.uniform(max(low, -0.7), min(high, 2.0), n),
            low + (high - low) * rng.uniform(size=n // 4),
            signs * np.exp(rng.uniform(math.log(smallest), math.log(max(high, -low)), n)),
            signs[: n // 2] * np.exp(rng.uniform(-20, 3, n // 2)),
            *(sign * breaks * (1 + step * 2.0**-p.mantissa_bits) for sign in (-1, 1) for step in (-1, 0, 1)),
            [low, high, smallest, -smallest, 3 * smallest],
        ]
        x = np.concatenate(chosen).astype(p.real)
    return np.unique(x[(x >= low) & (x <= high)])


# --- tests


@each_build
@each_function
def test_errors_are_within_their_bounds(name, build):
    p = BUILDS[build]
    x = arguments(name, p, 600)
    error, argument = worst(name, p, x, compiled(name, build)(x))
    assert error <= bound(name, build), f"{name}({argument!r}) is {error:.2f} ulp off"


INF, NAN = math.inf, math.nan
SPECIAL: dict[str, list[tuple[Any, float]]] = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e4, INF), (-1e4, 0.0)],
    "expm1": [(INF, INF), (-INF, -1.0), (1e4, INF), (-1e4, -1.0)],
    "log": [(1.0, 0.0), (0.0, -INF), (-0.0, -INF), (-1.0, NAN), (-1e-30, NAN), (-INF, NAN), (INF, INF)],
    "log1p": [(-1.0, -INF), (-1.5, NAN), (-INF, NAN), (INF, INF)],
    "tanh": [(INF, 1.0), (-INF, -1.0), (1e30, 1.0), (-1e30, -1.0)],
    "erf": [(INF, 1.0), (-INF, -1.0), (1e30, 1.0), (-1e30, -1.0)],
    "erfc": [(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 2.0), (1e30, 0.0), (-1e30, 2.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e30, 1.0), (-1e30, 0.0)],
    "softplus": [(INF, INF), (-INF, 0.0), (1e30, 1e30), (-1e30, 0.0)],
}


@each_build
@each_function
def test_special_values(name, build):
    real = BUILDS[build].real
    x, wanted = (np.array(column, real) for column in zip(*SPECIAL[name], (NAN, NAN), strict=True))
    np.testing.assert_array_equal(compiled(name, build)(x), wanted)


@each_build
@pytest.mark.parametrize("name", ODD)
def test_zeros_keep_their_sign(name, build):
    zeros = np.array([0.0, -0.0], BUILDS[build].real)
    y = compiled(name, build)(zeros)
    assert (list(y), list(np.signbit(y))) == ([0, 0], [False, True])


@each_build
@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd_functions_are_odd_to_the_last_bit(name, build):
    x = arguments(name, BUILDS[build])
    f = compiled(name, build)
    assert (f(-x) == -f(x)).all()


@each_build
def test_scalars_keep_their_precision(build):
    real = BUILDS[build].real
    for one in (1, 1.0, real(1)):
        y = entered(function("exp", build))(one)
        assert y == real(y) == pytest.approx(math.e, rel=2 * float(np.finfo(real).eps))


# --- the code


def machine_code(loop: Any) -> str:
    """The assembly of a compiled loop, without the functions by which Python calls it."""
    (text,) = loop.inspect_asm().values()
    body, end, _ = text.partition(".Lfunc_end0:")
    assert end
    return body


def count(code: str, operation: str) -> int:
    return len(re.findall(rf"^\s+{operation}\s", code, re.MULTILINE))


@pytest.mark.skipif(not X86, reason="reads x86-64 assembly")
@each_build
@each_function
def test_loops_are_vectorised(name, build):
    f = compiled(name, build)
    f(np.ones(1, BUILDS[build].real))
    code, (packed, other) = machine_code(f.loop), ("ds" if BUILDS[build] is FLOAT64 else "sd")
    fused = count(code, rf"vfn?m(add|sub)\d+p{packed}")
    assert count(code, rf"v?mulp{packed}") + fused > 5
    assert count(code, rf"v?addp{packed}") + fused > 5
    assert fused >= 5 if FUSES and build not in PRECISIONS else fused == 0
    assert count(code, "call.*") == 0
    assert count(code, rf"v?(add|sub|mul|div|sqrt|min|max)[ps]{other}") == 0
    assert count(code, r"v?cvt\S*") == 0


def multiplications(f: Callable) -> int:
    """Packed ones in a loop that fills two arrays by a function of one number."""
    pair = numba.njit(error_model="numpy", nogil=True)(f)

    @numba.njit(error_model="numpy", nogil=True)
    def loop(x, first, second):
        for i in range(x.size):
            a, b = pair(x[i])
            first[i] = a
            second[i] = b

    loop(np.ones(1), np.ones(1), np.ones(1))
    return count(machine_code(loop), "v?mulpd")


@pytest.mark.skipif(not X86, reason="reads x86-64 assembly")
def test_loops_share_the_exponential():
    exp, tanh, erf = (function(name, "float64") for name in ("exp", "tanh", "erf"))
    assert multiplications(lambda x: (tanh(x), exp(-2 * abs(x)))) <= multiplications(lambda x: (tanh(x), x)) + 1
    assert multiplications(lambda x: (erf(x), exp(-(x * x)))) <= multiplications(lambda x: (erf(x), x)) + 1


# --- the same bits everywhere


def digests(evaluate: Callable[[str, np.ndarray], np.ndarray]) -> dict[str, str]:
    """Of what all functions make of some arguments, in this process."""
    found = {}
    for precision, p in PRECISIONS.items():
        x = np.array([np.resize(arguments(name, p, 100), N_SAMPLE) for name in NAMES])
        for name, y in zip(NAMES, evaluate(precision, x), strict=True):
            found[f"{precision} {name}"] = hashlib.sha256(y.tobytes()).hexdigest()
    return found


def one_by_one(precision: str, x: np.ndarray) -> np.ndarray:
    return np.array([compiled(name, precision)(row) for name, row in zip(NAMES, x, strict=True)])


def all_at_once(precision: str, x: np.ndarray) -> np.ndarray:
    """One loop for all functions takes less to compile than one for each."""
    exp, expm1, log, log1p, tanh, erf, erfc, sigmoid, softplus = (function(name, precision) for name in NAMES)

    @numba.njit(error_model="numpy", nogil=True)
    def loop(x, out):
        for i in range(x.shape[1]):
            out[0, i] = exp(x[0, i])
            out[1, i] = expm1(x[1, i])
            out[2, i] = log(x[2, i])
            out[3, i] = log1p(x[3, i])
            out[4, i] = tanh(x[4, i])
            out[5, i] = erf(x[5, i])
            out[6, i] = erfc(x[6, i])
            out[7, i] = sigmoid(x[7, i])
            out[8, i] = softplus(x[8, i])

    out = np.empty_like(x)
    loop(x, out)
    return out


N_SAMPLE = 1003
"""Not a multiple of any width: what remains of a loop runs in other code."""

VARIANTS: dict[str, dict[str, str]] = {"plain Python": {"NUMBA_DISABLE_JIT": "1"}}
if X86:
    VARIANTS |= {
        "SSE2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""},
        "AVX2": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+avx2"},
        "AVX2 and FMA": {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
        "AVX-512": {
            "NUMBA_CPU_NAME": "x86-64",
            "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl,-prefer-256-bit",
        },
    }


def runs_here(variant: str) -> bool:
    wanted = re.findall(r"\+([\w-]+)", VARIANTS[variant].get("NUMBA_CPU_FEATURES", ""))
    has = llvmlite.binding.get_host_cpu_features()
    return all(has.get(feature, False) for feature in wanted)


IN_EVERY_RUN = ("plain Python", "SSE2")


@pytest.fixture(scope="module", autouse=True)
def children() -> Iterator[dict[str, subprocess.Popen]]:
    """Processes with other settings, that work while the other tests run; all settings if there is time."""
    variants = [v for v in VARIANTS if runs_here(v) and (EXHAUSTIVE or v in IN_EVERY_RUN)]
    started = {
        variant: subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            env=os.environ | VARIANTS[variant],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for variant in variants
    }
    yield started
    for child in started.values():
        child.kill()
        child.communicate()


def test_every_processor_and_plain_python_give_the_same_bits(children):
    here = digests(one_by_one)
    for variant, child in children.items():
        printed, complaints = child.communicate(timeout=250)
        assert child.returncode == 0, complaints
        assert json.loads(printed) == here, variant


# --- planted faults


@pytest.mark.parametrize("row", ["expm1", "log", "erf", "erf_tail", "erfc"])
def test_a_coefficient_that_is_off_is_noticed(row):
    coefficients = list(getattr(FLOAT32, row))
    coefficients[1] *= 1.001
    wrong = vector_math._functions(FLOAT32._replace(**{row: tuple(coefficients)}))
    name = {"expm1": "exp", "erf_tail": "erf"}.get(row, row)
    x = arguments(name, FLOAT32, 300)
    error, _ = worst(name, FLOAT32, x, over(getattr(wrong, name))(x))
    assert error > 2 * bound(name, "float32")


@pytest.mark.skipif(not FUSES, reason="the processor has no fused operations")
def test_fused_builds_are_others():
    x = arguments("tanh", FLOAT64)
    assert (compiled("tanh", "float64")(x) != compiled("tanh", "fused_float64")(x)).any()


def test_the_ruler_counts_in_ulp():
    eps = 2.0**-52
    assert error_ulp("exp", FLOAT64, 0.0, 1.0) == 0
    assert error_ulp("exp", FLOAT64, 0.0, 1 + 3 * eps) == pytest.approx(3)
    assert error_ulp("exp", FLOAT32, 0.0, 1 + 3 * eps) == pytest.approx(3 * 2.0**-29)
    assert error_ulp("exp", FLOAT64, -745.0, 0.0) == pytest.approx(math.exp(-745 + 1074 * math.log(2)), rel=1e-9)
    assert error_ulp("exp", FLOAT64, 709.0, INF) > 2**52


# --- the campaign


N_FLOAT64 = 10**8
BLOCK = 2**18
EVERY_FLOAT32 = 2**32

LONG: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
    "erf": lambda x: by_c("erfl", x),
    "erfc": lambda x: by_c("erfcl", x),
}
"""Of numpy.longdouble, where its mantissa has 64 bits."""

DOUBLE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: getattr(np, name) for name in ("exp", "expm1", "log", "log1p", "tanh")},
    "erf": special.erf,
    "erfc": special.erfc,
    "sigmoid": special.expit,
    "softplus": lambda x: np.logaddexp(0.0, x),
}
"""Of float64, by libraries."""

LOOP = """
#include <math.h>
void loop(long n, const long double *x, long double *y) { for (long i = 0; i < n; i++) y[i] = NAME(x[i]); }
"""


@cache
def of_c(name: str) -> Any:
    """A loop over a function of the C library, on long double."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "loop.so"
        command = ["cc", "-O2", "-shared", "-fPIC", f"-DNAME={name}", "-x", "c", "-", "-o", str(library), "-lm"]
        subprocess.run(command, input=LOOP, text=True, check=True)
        return ctypes.CDLL(str(library)).loop


def by_c(name: str, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    of_c(name)(ctypes.c_long(x.size), x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p))
    return y


@pytest.mark.skipif(shutil.which("cc") is None or np.finfo(np.longdouble).nmant != 63, reason="needs cc, and 64 bits")
@each_function
def test_what_the_campaign_compares_with_is_nearer_to_the_truth_by_far(name):
    """By five hundred times at least, in ulp of what is compared with it; those of float64 at numbers of float32."""
    rng = np.random.default_rng(5)
    for precision, truth, least in ((FLOAT64, LONG[name], 0.0), (FLOAT32, DOUBLE[name], 2.0**-149)):
        x = random_arguments(name, precision, rng, 400)
        found = truth(x.astype(np.longdouble if precision is FLOAT64 else float)).astype(np.longdouble)
        for at, made in zip(x.tolist(), found, strict=True):
            assert abs(made) <= least or error_of_long(name, precision, at, made) <= 2e-3, (name, at)


def error_of_long(name: str, p: Precision, x: float, found: np.longdouble) -> float:
    """Of a long double, in ulp of a smaller format."""
    before, ctx.prec = ctx.prec, BITS
    try:
        mantissa, exponent = np.frexp(found)
        exact = arb(int(np.ldexp(mantissa, 64))) * arb(2) ** (int(exponent) - 64)
        error = abs(exact - TRUTH[name](arb(x)))
        return float((error / arb(ulp_of(float(found), p))).abs_upper())
    finally:
        ctx.prec = before


@numba.njit(error_model="numpy", nogil=True)
def float32_errors(x, y, truth, out):
    """In ulp of float32, from truths in float64; infinity stands for 2^128, and two NaN agree."""
    limit, least, most = 2.0**128, 2.0**-149, 2.0**104
    for i in range(x.size):
        t = max(min(truth[i], limit), -limit)
        e = abs(max(min(np.float64(y[i]), limit), -limit) - t)
        power = np.int64(np.float64(t).view(np.int64) & np.int64(0x7FF0000000000000))
        ulp = min(max(np.int64(power).view(np.float64) * 2.0**-23, least), most)
        both = (truth[i] != truth[i]) & (y[i] != y[i])
        either = (truth[i] != truth[i]) | (y[i] != y[i])
        out[i] = 0.0 if both else (np.inf if either else e / ulp)


def worst_float32(name: str, build: str) -> tuple[float, int]:
    """The worst argument of all that float32 has, and how many there are."""
    f, reference = compiled(name, build), DOUBLE[name]
    found, n = (-1.0, 0.0), 0
    errors = np.empty(BLOCK)
    for first in range(0, EVERY_FLOAT32, BLOCK):
        x = np.arange(first, first + BLOCK, dtype=np.uint32).view(np.float32)
        float32_errors(x, f(x), reference(x.astype(np.float64)), errors)
        i = int(errors.argmax())
        found, n = max(found, (float(errors[i]), float(x[i]))), n + x.size
    return found[1], n


def random_arguments(name: str, precision: Precision, rng: np.random.Generator, n: int) -> np.ndarray:
    """In float64; half of them uniform where the function bends, half log-uniform in magnitude."""
    low, high = domain(name, precision)
    near = rng.uniform(max(low, -40), min(high, 40), n // 2)
    far = np.exp2(rng.uniform(-60, math.log2(max(high, -low)), n - n // 2)) * rng.choice([-1.0, 1.0], n - n // 2)
    x = np.concatenate([near, far])
    return x[(x >= low) & (x <= high)]


def worst_float64(name: str, build: str) -> tuple[float, int]:
    f, rng, n = compiled(name, build), np.random.default_rng([23, NAMES.index(name)]), 0
    assert np.finfo(np.longdouble).nmant == 63
    found = (-1.0, 0.0)
    while n < N_FLOAT64:
        x = random_arguments(name, FLOAT64, rng, BLOCK)
        truth = LONG[name](x.astype(np.longdouble))
        ulp = np.ldexp(np.longdouble(1), np.maximum(np.frexp(truth)[1] - 53, -1074))
        errors = abs((f(x) - truth) / ulp)
        errors[np.isnan(errors)] = np.inf
        i = int(errors.argmax())
        found, n = max(found, (float(errors[i]), float(x[i]))), n + x.size
    return found[1], n


TRUTHS = {FLOAT64: "long double of NumPy and the C library", FLOAT32: "float64 of NumPy and SciPy"}


@pytest.mark.skipif(not EXHAUSTIVE, reason="takes half an hour: DIFFLAB_EXHAUSTIVE=1")
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_campaign():
    import campaigns  # which the child processes, who import this file, have no use for

    figures: dict[str, Any] = {}
    for build, precision in BUILDS.items():
        search = worst_float64 if precision is FLOAT64 else worst_float32
        figures[build] = {}
        for name in NAMES:
            start = time.perf_counter()
            argument, n = search(name, build)
            error = recomputed(name, build, argument)
            figures[build][name] = {
                "argument": argument.hex(),
                "error_ulp": error,
                "arguments": n,
                "truth": TRUTHS[precision],
                "seconds": round(time.perf_counter() - start, 1),
            }
            print(build, name, figures[build][name], flush=True)
    campaigns.record("vector_math", figures)
    for build, rows in figures.items():
        for name, row in rows.items():
            assert row["error_ulp"] <= bound(name, build)


def recomputed(name: str, build: str, argument: float) -> float:
    x = np.array([argument], BUILDS[build].real)
    return error_ulp(name, BUILDS[build], x[0], compiled(name, build)(x)[0])


@each_build
@each_function
def test_the_worst_arguments_on_record(name, build):
    row = json.loads(RECORD.read_text())["figures"][build][name]
    error = recomputed(name, build, float.fromhex(row["argument"]))
    assert error <= bound(name, build)
    if FUSES or build in PRECISIONS:
        assert error == pytest.approx(row["error_ulp"], rel=1e-9)


if __name__ == "__main__":
    print(json.dumps(digests(all_at_once)))
