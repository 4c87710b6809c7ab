"""Symbolic differentiation: SymPy differentiates the primal run on symbols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared, Refused
from difflab.counting import loss_tree_operations
from difflab.enclosures.rounding import rounding_errors
from difflab.network import MLP
from difflab.primitives.operations import OPERATIONS


if TYPE_CHECKING:
    from difflab.expressions import Derivation

MAX_OPS = 2_000_000


@dataclass(frozen=True, repr=False)
class Symbolic(Backend):
    """One SymPy derivative per parameter for one sample, common subexpressions, compiled for a whole batch.

    Where samples are coupled, as by a batch norm in training, the expressions are those of a whole batch, derived
    when a batch of that size is first asked for.

    The expressions are the textbook ones, which overflow: logits beyond 709 make the loss infinite and entries NaN.

    Parameters
    ----------
    max_ops : forecast operations of the gradient, written out as a tree, beyond which it refuses
    """

    max_ops: int = MAX_OPS
    name = "symbolic"

    def __post_init__(self) -> None:
        if not isinstance(self.max_ops, int) or isinstance(self.max_ops, bool) or self.max_ops < 1:
            raise ValueError(f"max_ops must be an integer, 1 or more, got {self.max_ops!r}")

    def forecast(self, net: MLP) -> dict[str, int]:
        return {"forecast_tree_ops": forecast_tree_ops(net)}

    def refusal(self, net: MLP) -> str | None:
        return self.refusal_of_batch(net, 1)

    def refusal_of_batch(self, net: MLP, batch: int) -> str | None:
        """The forecast of expressions for a whole batch that is beyond the limit, or None."""
        forecast = forecast_tree_ops(net, batch)
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


class _Compiled:
    """A derivation as compiled NumPy code, with what it took."""

    def __init__(self, derive: Callable[[], Derivation]) -> None:
        # Here and not above: importing sympy takes longer than most commands.
        from difflab import expressions

        started = perf_counter()
        derivation = derive()
        derived = perf_counter()
        shared = expressions.share(derivation)
        found = perf_counter()
        self.evaluate = expressions.compile_numpy(derivation, shared)
        self.facts = {
            "derive_seconds": derived - started,
            "cse_seconds": found - derived,
            "compile_seconds": perf_counter() - found,
            "gradient_tree_ops": expressions.tree_operations(derivation.gradient),
            "gradient_ops": expressions.shared_operations(shared),
            "primal_calls": 1,
        }
        self.loss = expressions.compile_loss(derivation)


class _PreparedOnExpressions(Prepared):
    def predicted_error(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return rounding_errors(self.net, theta, x, y, "float64", textbook=True).gradient


class PreparedSymbolic(_PreparedOnExpressions):
    """The derivatives of one sample, evaluated on columns of samples; penalties apart."""

    def __init__(self, net: MLP, backend: Symbolic) -> None:
        super().__init__(net, backend)
        from difflab import expressions

        self._sample = _Compiled(lambda: expressions.derive_sample(net))
        self._totals = _Compiled(lambda: expressions.derive_totals(net)) if net.program.totals else None
        self.facts.update(self._sample.facts)

    def _columns(self, arguments: Arguments) -> list[np.ndarray]:
        """One array over the batch for each symbol of a sample."""
        masks = self.net.program.draw_masks(len(arguments.x))
        return [column for given in (arguments.x, arguments.y, *masks) for column in given.T]

    def _parts(self, arguments: Arguments) -> int:
        return self.net.program.divisor(len(arguments.x))

    def _total(self, arguments: Arguments, out: np.ndarray | None = None) -> float:
        """The totals; their gradient is added to ``out``."""
        if self._totals is None:
            return 0.0
        none = [0.0] * sum(self.net.program.widths[: self.net.program.n_given])
        value, *entries = self._totals.evaluate(arguments.theta, none)
        if out is not None:
            out += entries
        return float(value)

    def _value(self, arguments: Arguments) -> float:
        with np.errstate(all="ignore"):
            losses = self._sample.loss(arguments.theta, self._columns(arguments))
            return _sum(losses, len(arguments.x)) / self._parts(arguments) + self._total(arguments)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        batch, parts = len(arguments.x), self._parts(arguments)
        with np.errstate(all="ignore"):
            losses, *entries = self._sample.evaluate(arguments.theta, self._columns(arguments))
            for i, entry in enumerate(entries):
                arguments.out[i] = _sum(entry, batch) / parts
            return _sum(losses, batch) / parts + self._total(arguments, arguments.out)


def _sum(terms: np.ndarray | float, batch: int) -> float:
    """The sum over the batch of what may not depend on the sample."""
    return float(np.broadcast_to(terms, batch).sum())


class PreparedCoupled(_PreparedOnExpressions):
    """The derivatives of a whole batch, of the size last asked for."""

    backend: Symbolic

    def __init__(self, net: MLP, backend: Symbolic) -> None:
        super().__init__(net, backend)
        self.facts["primal_calls"] = 1
        self._batch = 0

    def _of_batch(self, batch: int) -> _Compiled:
        from difflab import expressions

        if batch != self._batch:
            if reason := self.backend.refusal_of_batch(self.net, batch):
                raise Refused(self.backend, self.net, reason)
            self._compiled = _Compiled(lambda: expressions.derive_batch(self.net, batch))
            self._batch = batch
            self.facts.update(self._compiled.facts)
        return self._compiled

    def _numbers(self, arguments: Arguments) -> np.ndarray:
        masks = self.net.program.draw_masks(len(arguments.x))
        return np.concatenate([given.ravel() for given in (arguments.x, arguments.y, *masks)])

    def _value(self, arguments: Arguments) -> float:
        with np.errstate(all="ignore"):
            return float(self._of_batch(len(arguments.x)).loss(arguments.theta, self._numbers(arguments)))

    def _value_and_gradient(self, arguments: Arguments) -> float:
        compiled = self._of_batch(len(arguments.x))
        with np.errstate(all="ignore"):
            value, *arguments.out[:] = compiled.evaluate(arguments.theta, self._numbers(arguments))
        return float(value)
