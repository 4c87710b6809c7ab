"""Symbolic differentiation: SymPy differentiates the primal run on symbols."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared, Refused
from difflab.counting import loss_tree_operations, primal_operations
from difflab.enclosures.rounding import rounding_errors
from difflab.errors import known, missing_compiler
from difflab.network import MLP
from difflab.primitives.operations import OPERATIONS
from difflab.sharing import Order, Sharing, Way


if TYPE_CHECKING:
    from difflab.expressions import Derivation

COMPILER = "cc"
MAX_OPS = 2_000_000
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
    evaluation : ``"numpy"``, a Python function on arrays over samples; ``"c"``, compiled by the system's compiler
    max_ops : forecast operations of the gradient beyond which it refuses: as a tree, or as computed for the last two
    """

    sharing: Sharing = "after"
    order: Order = "reverse"
    evaluation: Literal["numpy", "c"] = "numpy"
    max_ops: int = MAX_OPS
    name = "symbolic"

    def __post_init__(self) -> None:
        Way(self.sharing, self.order)
        known(self.evaluation, ("numpy", "c"), "evaluation")
        if not isinstance(self.max_ops, int) or isinstance(self.max_ops, bool) or self.max_ops < 1:
            raise ValueError(f"max_ops must be an integer, 1 or more, got {self.max_ops!r}")

    def __repr__(self) -> str:
        """Options that are not the usual ones."""
        fields = [field for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        values = {field.name: getattr(self, field.name) for field in fields}
        words = [repr(value) if isinstance(value, str) else f"{name}={value!r}" for name, value in values.items()]
        return f"Symbolic({', '.join(words)})"

    @property
    def way(self) -> Way:
        """How it differentiates."""
        return Way(self.sharing, self.order)

    def unsupported(self, net: MLP) -> str | None:
        return missing_compiler(COMPILER) if self.evaluation == "c" else None

    def forecast(self, net: MLP) -> dict[str, int]:
        if self.way.is_accumulated:
            return {"forecast_ops": self._forecast_ops(net, 1)}
        return {"forecast_tree_ops": forecast_tree_ops(net)}

    def _forecast_ops(self, net: MLP, batch: int) -> int:
        """At most so many operations, loss included; in forward order every parameter has a sweep of its own."""
        sweeps = CHEAP_GRADIENT if self.order == "reverse" else 1 + 2 * net.n_params
        return batch * sweeps * primal_operations(net.program)

    def refusal(self, net: MLP) -> str | None:
        return self.refusal_of_batch(net, 1)

    def refusal_of_batch(self, net: MLP, batch: int) -> str | None:
        """The forecast of expressions for a whole batch that is beyond the limit, or None."""
        forecast = self._forecast_ops(net, batch) if self.way.is_accumulated else forecast_tree_ops(net, batch)
        if forecast <= self.max_ops:
            return None
        coupled = f", whose {batch} samples are coupled" if batch > 1 else ""
        return f"forecast {forecast:.1e} operations in the gradient{coupled}, limit {self.max_ops:.1e}"

    def _prepare(self, net: MLP) -> Prepared:
        return PreparedCoupled(net, self) if net.program.couples_samples else PreparedSymbolic(net, self)


def forecast_tree_ops(net: MLP, batch: int = 1) -> int:
    """Forecast of the operations of the derived gradient as a tree.

    Differentiating copies the loss, whose size is known exactly, about once per parameter; each operation that is not
    linear adds about two thirds of a copy, because its derivative repeats its argument. Within a
    factor of 3 of what was derived where outputs share a logarithm; a loss that is a sum over outputs is copied only
    in part for the last layer, and the forecast then errs to the large side, by at most the number of outputs.
    """
    rows = [OPERATIONS[instruction.operation] for instruction in net.program.instructions]
    copies = sum(not (row.is_linear or row.is_total) for row in rows)
    return net.n_params * loss_tree_operations(net.program, net.n_params, batch) * 2 * copies // 3


class Evaluator(Protocol):
    """Sums over samples of expressions; samples are columns, (n_symbols, batch)."""

    source_bytes: int

    def sums(self, theta: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Of the loss and every entry of its gradient, (1 + n_params,)."""

    def loss(self, theta: np.ndarray, samples: np.ndarray) -> float:
        """Of the loss alone."""


class _Compiled:
    """A derivation made ready to be evaluated, with what it took."""

    def __init__(self, derive: Callable[[Way], Derivation], backend: Symbolic) -> None:
        # Here and not above: importing sympy takes longer than most commands.
        from difflab import c_code, expressions

        started = perf_counter()
        derivation = derive(backend.way)
        derived = perf_counter()
        shared = expressions.share(derivation, backend.way)
        found = perf_counter()
        of_loss = expressions.share_loss(derivation, backend.way)
        compiling = perf_counter()
        parts = derivation, shared, of_loss
        is_c = backend.evaluation == "c"
        self.evaluator: Evaluator = c_code.InC(*parts, COMPILER) if is_c else expressions.InNumpy(*parts)
        self.facts = {
            "derive_seconds": derived - started,
            "cse_seconds": found - derived,
            "compile_seconds": perf_counter() - compiling,
            "source_bytes": self.evaluator.source_bytes,
            "own_loss_ops": expressions.shared_operations(of_loss),
            "gradient_tree_ops": expressions.tree_operations(derivation.gradient, derivation.lines),
            "gradient_ops": expressions.shared_operations(shared),
            "primal_calls": 1,
        }


class _PreparedOnExpressions(Prepared):
    backend: Symbolic

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return rounding_errors(self.net, theta, x, y, "float64", textbook=True).gradient


class PreparedSymbolic(_PreparedOnExpressions):
    """The derivatives of one sample, evaluated on columns of samples; penalties apart."""

    def __init__(self, net: MLP, backend: Symbolic) -> None:
        super().__init__(net, backend)
        from difflab import expressions

        sample = _Compiled(lambda way: expressions.derive_sample(net, way), backend)
        self._sample = sample.evaluator
        self._totals: Evaluator | None = None
        if net.program.totals:
            self._totals = _Compiled(lambda way: expressions.derive_totals(net, way), backend).evaluator
        self.facts.update(sample.facts)

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
    """The derivatives of a whole batch, of the size last asked for."""

    def __init__(self, net: MLP, backend: Symbolic) -> None:
        super().__init__(net, backend)
        self.facts["primal_calls"] = 1
        self._batch = 0

    def _of_batch(self, batch: int) -> Evaluator:
        from difflab import expressions

        if batch != self._batch:
            if reason := self.backend.refusal_of_batch(self.net, batch):
                raise Refused(self.backend, self.net, reason)
            compiled = _Compiled(lambda way: expressions.derive_batch(self.net, batch, way), self.backend)
            self._evaluator, self._batch = compiled.evaluator, batch
            self.facts.update(compiled.facts)
        return self._evaluator

    def _numbers(self, arguments: Arguments) -> np.ndarray:
        """One column, of all samples one after the other."""
        masks = self.net.program.draw_masks(len(arguments.x))
        return np.concatenate([given.ravel() for given in (arguments.x, arguments.y, *masks)])[:, None]

    def _value(self, arguments: Arguments) -> float:
        return self._of_batch(len(arguments.x)).loss(arguments.theta, self._numbers(arguments))

    def _value_and_gradient(self, arguments: Arguments) -> float:
        value, *arguments.out[:] = self._of_batch(len(arguments.x)).sums(arguments.theta, self._numbers(arguments))
        return float(value)
