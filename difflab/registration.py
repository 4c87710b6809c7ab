"""Activations of one's own: registered from Python, checked against their own expressions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import numpy as np

from difflab.number_systems import BALLS, SERIES, Array, Series, ball_precision, coefficient
from difflab.primitives.activations import ACTIVATIONS, Activation
from difflab.primitives.translation import formula


CHECKED_BITS = 400
REACH = 30.0
"""Arguments are checked up to this magnitude, within the domain of the row."""

N_POINTS = 240

NEAR = 2.0**-30
"""Width of the intervals that kinks are searched down to; slopes that differ by its root over one are two slopes."""

MAX_PARTS = 10_000
"""Intervals to search for kinks, many times what functions of one variable with a few of them take."""


def register_activation(row: Activation) -> None:
    """Add an activation to the table of this process; every back-end and every layer has it from now on.

    Parameters
    ----------
    row : its ``expression`` is a function over number systems, or a SymPy expression in the symbol ``z`` and one of the
        name of the parameter. Value and derivatives are scalar functions of plain Python on ``math``, as Numba compiles
        them.

    Raises
    ------
    TypeError
        If ``row`` is no ``Activation`` or has no rules.
    ValueError
        If the name is taken or no name, if a rule is further off its own expression than the row says, or if the
        expression has a word that number systems do not know.
    """
    if not isinstance(row, Activation):
        raise TypeError(f"register_activation takes a difflab.Activation, got {row!r}")
    wrong = [rule for rule in _scalar_rules(row) if not isinstance(rule, FunctionType)]
    if wrong:
        raise TypeError(f"rules of {row.name!r} must be plain functions, got {wrong[0]!r}; write def ...")
    if not (isinstance(row.name, str) and row.name.isidentifier()) or row.name in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"name must be an identifier that is not taken ({known}), got {row.name!r}")
    if row.parameter in ("weight", "bias"):
        raise ValueError(f"parameter of {row.name!r} must not be called as that of a layer, got {row.parameter!r}")
    if not row.domain[0] < min(row.domain[1], REACH) or row.domain[1] < -REACH:
        raise ValueError(f"domain of {row.name!r} must hold numbers between -{REACH:g} and {REACH:g}, got {row.domain}")
    if row.is_learnable and not (row.parameter and row.parameter_derivative):
        raise ValueError(f"learnable {row.name} must have a parameter and a parameter_derivative; give both")
    if not hasattr(row.expression, "free_symbols") and not callable(row.expression):
        raise TypeError(f"expression must be a SymPy expression or a function (m, z), got {row.expression!r}")
    symbols = ("z", row.parameter) if row.parameter else ("z",)
    if not callable(row.expression) or hasattr(row.expression, "free_symbols"):
        row = dataclasses.replace(row, expression=formula(row.expression, symbols))
    row = dataclasses.replace(row, **{name: _without_lists(value) for name, value in vars(row).items()})
    check(row)
    _check_compiles(row)
    ACTIVATIONS[row.name] = row


def _without_lists(value: Any) -> Any:
    """Tuples in the place of lists, in these too: rows are keys of tables."""
    return tuple(map(_without_lists, value)) if isinstance(value, list | tuple) else value


def _scalar_rules(row: Activation) -> list[Callable[..., float]]:
    rules = (row.value, row.derivative, row.second_derivative)
    of_parameter = (row.parameter_derivative, row.mixed_derivative, row.parameter_second_derivative)
    return [rule for rule in (*rules, *of_parameter) if rule is not None]


def _check_compiles(row: Activation) -> None:
    """One rule that Numba cannot compile would take back-propagation from every network."""
    # Here and not above: importing numba takes longer than most commands.
    from difflab.kernels.target import check_compiles

    for rule in _scalar_rules(row):
        try:
            check_compiles(rule, 1 if row.parameter is None else 2)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"rules of {row.name!r} must be plain Python on math that Numba compiles, got {rule.__name__}: {reason}"
            ) from error


def check(row: Activation) -> None:
    """Compare the rules of a row with its own expression in ball arithmetic.

    Raises
    ------
    ValueError
        With the worst point of the first rule that is further off than the row says.
    """
    points = _points(row)
    parameters = (row.start, 0.75 * row.start + 0.125) if row.parameter else (None,)
    with ball_precision(CHECKED_BITS, order=2):
        for p in parameters:
            for what, rule, truth, bound in _rules(row, points, p):
                _check_rule(row, what, rule, points, p, truth, bound)
            _check_range(row, points, p)
            _check_kinks(row, p)


def _points(row: Activation) -> np.ndarray:
    low, high = max(row.domain[0], -REACH), min(row.domain[1], REACH)
    drawn = np.random.default_rng(0).uniform(low, high, N_POINTS)
    special = [at for at in (*row.kinks, 0.0, 1.0, -1.0, low, high) if low <= at <= high]
    return np.concatenate([drawn, special])


_Check = tuple[str, Callable[..., float], Array, float]


def _rules(row: Activation, points: np.ndarray, p: float | None) -> list[_Check]:
    """Each rule with the balls of what it stands for and the bound of its error in ulp."""
    z = SERIES.line(BALLS.array(points), np.ones(len(points), object))
    rest = [] if p is None else [np.array([p])]
    try:
        along = row.expression(SERIES, z, *map(SERIES.array, rest))
        values = row.expression(BALLS, BALLS.array(points), *map(BALLS.array, rest))
    except (ValueError, ZeroDivisionError) as error:
        reach = f"from {points.min():g} to {points.max():g}"
        raise ValueError(
            f"expression of {row.name!r} must have a value at every argument {reach}, got: {error}; state its domain"
        ) from error
    rules: list[_Check] = [
        ("value", row.value, values, row.value_ulp),
        ("derivative", row.derivative, coefficient(along, 1), row.derivative_ulp),
    ]
    if row.second_derivative is not None:
        # Only where arguments were drawn: at special ones it may jump, as that of softsign at 0.
        drawn = 2 * coefficient(along[:N_POINTS], 2)
        rules.append(("second_derivative", row.second_derivative, drawn, row.second_derivative_ulp))
    if row.is_learnable and p is not None:
        rules += _rules_of_parameter(row, points, p)
    return rules


def _rules_of_parameter(row: Activation, points: np.ndarray, p: float) -> Iterator[_Check]:
    """Second derivatives where arguments were drawn; mixed ones from series along (1, 1) and (1, -1)."""
    z, q = BALLS.array(points), BALLS.array(np.full(len(points), p))
    still, moving = SERIES.array(z), SERIES.line(z, np.ones(len(z), object))
    ahead, back = (SERIES.line(q, np.full(len(q), sign, object)) for sign in (1, -1))
    by_p = row.expression(SERIES, still, ahead)
    if row.parameter_derivative is not None:
        yield "parameter_derivative", row.parameter_derivative, coefficient(by_p, 1), row.parameter_derivative_ulp
    bound = max(row.second_derivative_ulp, row.parameter_derivative_ulp)
    if row.mixed_derivative is not None:
        both, apart = (coefficient(row.expression(SERIES, moving, line)[:N_POINTS], 2) for line in (ahead, back))
        yield "mixed_derivative", row.mixed_derivative, (both - apart) / 2, bound
    if row.parameter_second_derivative is not None:
        twice = 2 * coefficient(by_p[:N_POINTS], 2)
        yield "parameter_second_derivative", row.parameter_second_derivative, twice, bound


def _check_range(row: Activation, points: np.ndarray, p: float | None) -> None:
    low, high = row.range
    for z in points.tolist():
        value = row.value(z) if p is None else row.value(z, p)
        if not low <= value <= high:
            raise ValueError(f"range of {row.name!r} must hold its values, got {value!r} at {z!r} outside {row.range}")


def _check_kinks(row: Activation, p: float | None) -> None:
    """Bounds of all kinds rely on a row that states its kinks: every part of the domain has none, or a stated one."""
    low, high = max(row.domain[0], -REACH), min(row.domain[1], REACH)
    parts = [(low, high)]
    for _ in range(MAX_PARTS):
        if not parts:
            return
        low, high = parts.pop()
        jump = _jump(row, low, high, p)
        is_stated = any(low - NEAR <= kink <= high + NEAR for kink in row.kinks)
        if jump and high - low > NEAR:
            middle = (low + high) / 2
            parts += [(low, middle), (middle, high)]
        elif jump > math.sqrt(NEAR) and not is_stated:
            at = round((low + high) / 2, 6) + 0.0
            raise ValueError(f"kinks of {row.name!r} must hold all of its expression, got {row.kinks}; add {at!r}")


def _jump(row: Activation, low: float, high: float, p: float | None) -> float:
    """How much the slopes differ within an interval that has both sides of a kink; else 0, however much they do."""
    series, ends = Series("both"), BALLS.array(np.array([low, high]))
    z = series.line(np.array([ends[0].union(ends[1])], object), np.ones(1, object))
    try:
        slope = row.expression(series, z, *([] if p is None else [series.array(np.array([p]))]))[0][1]
    except (ValueError, ZeroDivisionError):
        return math.inf if high - low > NEAR else 0.0
    return (float(slope.rad()) or 0.0) if series.met_both_sides or series.met_tie else 0.0


def _check_rule(
    row: Activation, what: str, rule: Any, points: np.ndarray, p: float | None, truth: Array, bound: float
) -> None:
    arguments = [(float(z),) if p is None else (float(z), p) for z in points]
    got = [_called(row, what, rule, at) for at in arguments[: len(truth)]]
    errors = [_ulps(number, exact) for number, exact in zip(got, truth, strict=True)]
    worst = max(range(len(errors)), key=errors.__getitem__)
    if not errors[worst] <= bound:
        at = ", ".join(map(repr, arguments[worst]))
        expected = float(truth[worst].mid())
        raise ValueError(
            f"{what} of {row.name!r} must be within {bound:g} ulp of its expression, got {got[worst]!r} at ({at}), "
            f"where the expression has {expected!r}; mend the rule, or state the {_field(what)} it can keep"
        )


def _field(what: str) -> str:
    is_of_second_order = what in ("mixed_derivative", "parameter_second_derivative")
    return "second_derivative_ulp" if is_of_second_order else f"{what}_ulp"


def _called(row: Activation, what: str, rule: Any, at: tuple[float, ...]) -> float:
    try:
        return float(rule(*at))
    except (ArithmeticError, ValueError) as error:
        raise ValueError(
            f"{what} of {row.name!r} must be a number at {at}, got {type(error).__name__}: {error}"
        ) from error


def _ulps(got: float, exact: Any) -> float:
    """The error in ulp of the exact result; NaN counts as infinitely wrong."""
    if not math.isfinite(got):
        return math.inf
    error = abs(float((exact - got).mid()))
    return error / math.ulp(float(exact.mid()))
