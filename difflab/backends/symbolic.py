"""Symbolic differentiation: SymPy differentiates the primal run on symbols."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared
from difflab.backends.rounding import rounding_errors
from difflab.counting import loss_tree_operations
from difflab.network import MLP
from difflab.program import divisor


MAX_OPS = 2_000_000


@dataclass(frozen=True, repr=False)
class Symbolic(Backend):
    """One SymPy derivative per parameter for one sample, common subexpressions, compiled for a whole batch.

    The expressions are the textbook ones, which overflow: logits beyond 709 make the loss infinite and entries NaN.

    Parameters
    ----------
    max_ops : forecast operations of the gradient, written out as a tree, beyond which it refuses
    """

    max_ops: int = MAX_OPS
    name = "symbolic"

    def __post_init__(self) -> None:
        if not isinstance(self.max_ops, int) or self.max_ops < 1:
            raise ValueError(f"max_ops must be an integer, 1 or more, got {self.max_ops!r}")

    def forecast(self, net: MLP) -> dict[str, int]:
        return {"forecast_tree_ops": forecast_tree_ops(net)}

    def refusal(self, net: MLP) -> str | None:
        forecast = forecast_tree_ops(net)
        if forecast <= self.max_ops:
            return None
        return f"forecast {forecast:.1e} operations in the gradient, limit {self.max_ops:.1e}"

    def _prepare(self, net: MLP) -> Prepared:
        return PreparedSymbolic(net, self)


def forecast_tree_ops(net: MLP) -> int:
    """Forecast of the operations of the derived gradient as a tree.

    Differentiating copies the loss, whose size is known exactly, about once per parameter; each activation that is
    nested below another adds about two thirds of a copy, because its derivative repeats its argument. Within a
    factor of 3 of what was derived where outputs share a logarithm; a loss that is a sum over outputs is copied only
    in part for the last layer, and the forecast then errs to the large side, by at most the number of outputs.
    """
    nested = sum(instruction.operation == "activation" for instruction in net.program.instructions)
    return net.n_params * loss_tree_operations(net.program, net.n_params) * 2 * (nested + 1) // 3


class PreparedSymbolic(Prepared):
    """The derivatives as compiled NumPy code."""

    def __init__(self, net: MLP, backend: Symbolic) -> None:
        super().__init__(net, backend)
        # Here and not above: importing sympy takes longer than most commands.
        from difflab import expressions

        started = perf_counter()
        derivation = expressions.derive(net)
        derived = perf_counter()
        shared = expressions.share(derivation)
        found = perf_counter()
        self._evaluate = expressions.compile_numpy(derivation, shared)
        self.facts.update(
            derive_seconds=derived - started,
            cse_seconds=found - derived,
            compile_seconds=perf_counter() - found,
            gradient_tree_ops=expressions.tree_operations(derivation.gradient),
            gradient_ops=expressions.shared_operations(shared),
            primal_calls=1,
        )
        self._loss = expressions.compile_loss(derivation)

    def _parts(self, arguments: Arguments) -> int:
        return divisor(self.net.program, len(arguments.x))

    def _value(self, arguments: Arguments) -> float:
        with np.errstate(all="ignore"):
            losses = self._loss(arguments.theta, arguments.x.T, arguments.y.T)
        return float(np.sum(losses)) / self._parts(arguments)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        batch, parts = len(arguments.x), self._parts(arguments)
        with np.errstate(all="ignore"):
            losses, *entries = self._evaluate(arguments.theta, arguments.x.T, arguments.y.T)
        for i, entry in enumerate(entries):
            with np.errstate(all="ignore"):
                arguments.out[i] = np.broadcast_to(entry, batch).sum() / parts
        return float(np.sum(losses)) / parts

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return rounding_errors(self.net, theta, x, y, "float64", textbook=True).gradient
