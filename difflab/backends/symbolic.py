"""Symbolic differentiation: SymPy differentiates the primal run on symbols."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from importlib.util import find_spec
from numbers import Integral, Real
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared, Refused
from difflab.counting import loss_tree_operations, primal_operations
from difflab.derivation import forecasting
from difflab.derivation.sharing import SHARING, Engine, Order, Sharing, Simplification, Way
from difflab.enclosures.derivatives import Point
from difflab.enclosures.rounding import rounding_errors
from difflab.errors import MissingExtra, known, missing_compiler
from difflab.network import MLP
from difflab.primitives.operations import OPERATIONS


if TYPE_CHECKING:
    from difflab.derivation.generation import Generated, Part
    from difflab.enclosures.enclosed import Enclosed
    from difflab.enclosures.symbolic_balls import Expressions

Evaluation = Literal["numpy", "numba", "c", "balls"]
EVALUATIONS: tuple[Evaluation, ...] = ("numpy", "numba", "c", "balls")
TRANSFERABLE = ("numpy", "c")
"""What another process can generate for this one."""

COMPILER = "cc"
MAX_OPS = 2_000_000
LIMIT_SECONDS = 0.1, 1e6
"""Least and greatest that a limit of time may have, of a derivation or of a cell of a study."""

KEPT_SIZES = 4
"""Of batches of coupled samples, whose expressions are kept: that of training, its last one, and those of tests."""

CHEAP_GRADIENT = 5
"""Operations of loss and gradient by those of the loss, at most, where sharing is kept [Baur, Strassen 1983]."""


@dataclass(frozen=True, repr=False)
class Symbolic(Backend):
    """SymPy's derivatives for one sample, compiled for a whole batch.

    Where samples are coupled, as by a batch norm in training, the expressions are those of a whole batch, derived
    when a batch of that size is first asked for.

    The expressions are the textbook ones, which overflow: logits beyond 709 make the loss infinite and entries NaN.

    Parameters
    ----------
    sharing : where subexpressions come to be shared: ``"none"``, ``"after"`` differentiating, ``"during"``,
        ``"layerwise"`` [Way]
    order : ``"reverse"`` or ``"forward"``, in which the last two apply the chain rule
    evaluation : ``"numpy"``, a Python function on arrays over samples; ``"numba"``, a loop over samples, compiled by
        Numba, or ``"c"``, by the system's compiler; ``"balls"``, by Arb to the nearest float64, which is what the
        expressions say but for the last rounding
    simplification : of every derivative by itself, for the first two: ``"none"``, ``"factor_terms"``, ``"simplify"``,
        ``"horner"`` [Way]
    engine : ``"sympy"`` or, for the first two, ``"symengine"``
    limit_seconds : of wall and processor time for deriving and compiling, which then happens in a process of its own
    limit_bytes : of memory, in the same process
    max_ops : forecast operations of the gradient beyond which it refuses: as a tree, or as computed for the last two
    """

    sharing: Sharing = "after"
    order: Order = "reverse"
    evaluation: Evaluation = "numpy"
    simplification: Simplification = "none"
    engine: Engine = "sympy"
    limit_seconds: float | None = None
    limit_bytes: int | None = None
    max_ops: int = MAX_OPS
    name = "symbolic"

    def __post_init__(self) -> None:
        Way(self.sharing, self.order, self.simplification, self.engine)
        known(self.evaluation, EVALUATIONS, "evaluation")
        for name, checked in LIMITS.items():
            if getattr(self, name) is not getattr(Symbolic, name):
                object.__setattr__(self, name, checked(name, getattr(self, name)))
        if self.has_limits and self.evaluation not in TRANSFERABLE:
            words = " or ".join(map(repr, TRANSFERABLE))
            raise ValueError(f"limits must come with evaluation {words}, got {self.evaluation!r}")

    def __repr__(self) -> str:
        """Options that are not the usual ones, limits apart: these change whether there is an answer, not which."""
        chosen = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if self._is_chosen(field)}
        words = [repr(value) if name == "sharing" else f"{name}={value!r}" for name, value in chosen.items()]
        return f"Symbolic({', '.join(words)})"

    def _is_chosen(self, field: dataclasses.Field) -> bool:
        return field.name not in LIMITS and getattr(self, field.name) != field.default

    @property
    def way(self) -> Way:
        """How it differentiates."""
        return Way(self.sharing, self.order, self.simplification, self.engine)

    @property
    def has_limits(self) -> bool:
        """Whether expressions are derived in a process of their own."""
        return self.limit_seconds is not None or self.limit_bytes is not None

    def unsupported(self, net: MLP) -> str | None:
        if self.engine == "symengine" and find_spec("symengine") is None:
            return str(MissingExtra("peers", "symengine"))
        return missing_compiler(COMPILER) if self.evaluation == "c" else None

    def forecast(self, net: MLP, batch: int = 1) -> dict[str, float]:
        derived = batch if net.program.couples_samples else 1
        if self.way.is_accumulated:
            name, size = "forecast_ops", self._forecast_ops(net, derived)
        else:
            name, size = "forecast_tree_ops", forecast_tree_ops(net, derived)
        return {name: size, **forecasting.forecast(repr(self), size)}

    def _forecast_ops(self, net: MLP, batch: int) -> int:
        """At most so many operations, loss included; in forward order every parameter has a sweep of its own."""
        sweeps = CHEAP_GRADIENT if self.order == "reverse" else 1 + 2 * net.n_params
        return batch * sweeps * primal_operations(net.program)

    def refusal(self, net: MLP) -> str | None:
        return self.refusal_of_batch(net, 1)

    def refusal_of_batch(self, net: MLP, batch: int) -> str | None:
        """The forecast of the expressions of a sample, or of a coupled batch, that is beyond a limit, or None."""
        forecast = self.forecast(net, batch)
        ops = forecast["forecast_ops" if self.way.is_accumulated else "forecast_tree_ops"]
        if ops > self.max_ops:
            coupled = f", whose {batch} samples are coupled" if batch > 1 else ""
            return f"forecast {_rough(ops)} operations in the gradient{coupled}, limit {_rough(self.max_ops)}"
        return forecasting.beyond(forecast, self.limit_seconds, self.limit_bytes)

    def _prepare(self, net: MLP) -> Prepared:
        if self.evaluation == "balls":
            return PreparedInBalls(net, self)
        return PreparedCoupled(net, self) if net.program.couples_samples else PreparedSymbolic(net, self)


def _rough(number: float) -> str:
    """Counts may be beyond all floats."""
    return format(Decimal(number) if number > sys.float_info.max else number, ".1e")


def _whole(name: str, number: Any) -> int:
    if not _is_a(Integral, number) or number < 1:
        raise ValueError(f"{name} must be an integer, 1 or more, got {number!r}")
    return int(number)


def _bytes(name: str, number: Any) -> int:
    if not _is_a(Integral, number) or not 1 <= number <= sys.maxsize:
        raise ValueError(f"{name} must be an integer from 1 to {sys.maxsize}, got {number!r}")
    return int(number)


def _seconds(name: str, number: Any) -> float:
    least, most = LIMIT_SECONDS
    if not _is_a(Real, number) or not least <= number <= most:
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}, got {number!r}")
    return float(number)


def _is_a(kind: type, number: object) -> bool:
    """Of Python or NumPy; another process is told Python's own, which these are made."""
    return isinstance(number, kind) and not isinstance(number, bool)


LIMITS: dict[str, Callable[[str, Any], float]] = {
    "max_ops": _whole,
    "limit_bytes": _bytes,
    "limit_seconds": _seconds,
}
"""Options that are limits, each with what checks it."""


def forecast_tree_ops(net: MLP, batch: int = 1) -> int:
    """Forecast of the operations of the derived gradient as a tree.

    Differentiating copies the loss, whose size is known as the program writes it, about once per parameter; each
    operation that is not linear adds about two thirds of a copy, because its derivative repeats its argument. Within a
    factor of 3 of what was derived where outputs share a logarithm; a loss that is a sum over outputs is copied only
    in part for the last layer, and the forecast then errs to the large side, by at most the number of outputs.
    """
    rows = [OPERATIONS[instruction.operation] for instruction in net.program.instructions]
    copies = sum(not (row.is_linear or row.is_total) for row in rows)
    return net.n_params * loss_tree_operations(net.program, net.n_params, batch) * 2 * copies // 3


def forecasts(net: MLP) -> dict[str, dict[str, float]]:
    """What is forecast of every way to share, by label; nothing where samples are coupled, whose number matters."""
    if net.program.couples_samples:
        return {}
    choices = [*map(Symbolic, SHARING), Symbolic("during", "forward")]
    return {repr(choice): choice.forecast(net) for choice in choices}


class Evaluator(Protocol):
    """Sums over samples of expressions; samples are columns, (n_symbols, batch)."""

    def sums(self, theta: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Of the loss and every entry of its gradient, (1 + n_params,)."""

    def loss(self, theta: np.ndarray, samples: np.ndarray) -> float:
        """Of the loss alone."""


def _evaluator(
    net: MLP, backend: Symbolic, part: Part, batch: int = 1, spent_seconds: float = 0.0
) -> tuple[Evaluator, dict[str, Any]]:
    """Code for a part of the loss, generated and loaded, with what that took; some of a limit may be spent before."""
    # Here and not above: importing sympy takes longer than most commands.
    from difflab.derivation import generation, limited

    assert backend.evaluation != "balls"
    recipe = generation.Recipe(part, batch, backend.way, backend.evaluation, COMPILER)
    if backend.has_limits:
        limits = backend.limit_seconds, backend.limit_bytes
        generated = limited.generated_within(net, recipe, *limits, spent_seconds)
    else:
        generated = generation.generate(net, recipe)
    started, facts = perf_counter(), dict(generated.facts)
    evaluator, code_bytes = _loaded(generated, backend.evaluation)
    facts["compile_seconds"] = facts.get("compile_seconds", 0.0) + perf_counter() - started
    return evaluator, facts | ({"code_bytes": code_bytes} if code_bytes is not None else {})


def _together(facts: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Of two parts: the most memory of either, and everything else of both."""
    return {
        name: max(fact, others[name]) if name.endswith("_peak_bytes") else fact + others[name]
        for name, fact in facts.items()
        if name in others
    }


def _of_one(facts: dict[str, Any], batch: int) -> dict[str, Any]:
    """With operations for one sample of a batch, rounded up."""
    return {name: -(-fact // batch) if name.endswith("_ops") else fact for name, fact in facts.items()}


def _loaded(generated: Generated, language: str) -> tuple[Evaluator, int | None]:
    """What evaluates, and the bytes of its code where these are known."""
    if language == "c":
        from difflab.derivation.c_code import InC

        return InC(generated.library, generated.outputs), len(generated.library)
    if language == "numba":
        from difflab.derivation.straight_lines import InNumba

        return InNumba(generated.text, generated.outputs), None
    from difflab.derivation.numpy_code import InNumpy

    evaluator = InNumpy(generated.text)
    return evaluator, evaluator.code_bytes


class _PreparedOnExpressions(Prepared):
    backend: Symbolic

    def _predicted_error(self, arguments: Arguments) -> np.ndarray:
        return rounding_errors(self.net, *arguments.given, "float64", textbook=True).gradient


class PreparedSymbolic(_PreparedOnExpressions):
    """The derivatives of one sample, evaluated on columns of samples; penalties apart."""

    def __init__(self, net: MLP, backend: Symbolic) -> None:
        super().__init__(net, backend)
        started = perf_counter()
        self._sample, facts = _evaluator(net, backend, "sample")
        self._totals: Evaluator | None = None
        if net.program.totals:
            spent = perf_counter() - started
            self._totals, of_totals = _evaluator(net, backend, "totals", spent_seconds=spent)
            facts = _together(facts, of_totals)
        self.facts |= {"primal_calls": 1, **facts}

    def _columns(self, arguments: Arguments) -> np.ndarray:
        """A row over the batch for each symbol of a sample."""
        masks = self.net.program.draw_masks(len(arguments.x))
        return np.concatenate([given.T for given in (arguments.x, arguments.y, *masks)])

    @property
    def _nothing(self) -> np.ndarray:
        """In the place of a sample, on which totals do not depend."""
        return np.zeros((sum(self.net.program.widths[: self.net.program.n_given]), 1))

    def _value(self, arguments: Arguments) -> float:
        loss = self._sample.loss(arguments.theta, self._columns(arguments))
        loss /= self.net.program.divisor(len(arguments.x))
        return loss + (self._totals.loss(arguments.theta, self._nothing) if self._totals else 0.0)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        found = self._sample.sums(arguments.theta, self._columns(arguments))
        with np.errstate(all="ignore"):
            found /= self.net.program.divisor(len(arguments.x))
            if self._totals:
                found += self._totals.sums(arguments.theta, self._nothing)
        arguments.out[:] = found[1:]
        return float(found[0])


class PreparedCoupled(_PreparedOnExpressions):
    """The derivatives of a whole batch, of the few sizes last asked for."""

    def __init__(self, net: MLP, backend: Symbolic) -> None:
        super().__init__(net, backend)
        self.facts["primal_calls"] = 1
        self._derived = lru_cache(KEPT_SIZES)(self._derive)

    def _derive(self, batch: int) -> tuple[Evaluator, dict[str, Any]]:
        if reason := self.backend.refusal_of_batch(self.net, batch):
            raise Refused(self.backend, self.net, reason)
        evaluator, facts = _evaluator(self.net, self.backend, "batch", batch)
        return evaluator, _of_one(facts, batch)

    def _of_batch(self, batch: int) -> Evaluator:
        evaluator, facts = self._derived(batch)
        self.facts |= facts
        return evaluator

    def _numbers(self, arguments: Arguments) -> np.ndarray:
        """One column, of all samples one after the other."""
        masks = self.net.program.draw_masks(len(arguments.x))
        return np.concatenate([given.ravel() for given in (arguments.x, arguments.y, *masks)])[:, None]

    def _value(self, arguments: Arguments) -> float:
        return self._of_batch(len(arguments.x)).loss(arguments.theta, self._numbers(arguments))

    def _value_and_gradient(self, arguments: Arguments) -> float:
        value, *arguments.out[:] = self._of_batch(len(arguments.x)).sums(arguments.theta, self._numbers(arguments))
        return float(value)


class PreparedInBalls(Prepared):
    """Expressions evaluated by Arb, at precisions that grow until the nearest float64 is known."""

    backend: Symbolic

    def __init__(self, net: MLP, backend: Symbolic) -> None:
        super().__init__(net, backend)
        self.facts["primal_calls"] = 1
        self._derived = lru_cache(KEPT_SIZES)(self._derive)
        if not net.program.couples_samples:
            self._derived(1)

    def _derive(self, batch: int) -> Expressions:
        from difflab.enclosures.symbolic_balls import Expressions

        if batch > 1 and (reason := self.backend.refusal_of_batch(self.net, batch)):
            raise Refused(self.backend, self.net, reason)
        started = perf_counter()
        found = Expressions.of(self.net, self.backend.way, batch)
        self.facts["derive_seconds"] = perf_counter() - started
        return found

    def _enclosed(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Enclosed:
        derived = self._derived(len(x) if self.net.program.couples_samples else 1)
        return derived.enclosed(Point(self.net.program, theta, x, y))

    def _predicted_error(self, arguments: Arguments) -> np.ndarray:
        """Half the distance of the bounds or, where these are neighbours of the truth, all of it."""
        found = self._enclosed(*arguments.given)
        return np.maximum(found.upper - found.nearest, found.nearest - found.lower)[1:]

    def _value(self, arguments: Arguments) -> float:
        return float(self._enclosed(*arguments.given).nearest[0])

    def _value_and_gradient(self, arguments: Arguments) -> float:
        value, *arguments.out[:] = self._enclosed(*arguments.given).nearest
        return float(value)
