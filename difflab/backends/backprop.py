"""Reverse mode: hand-written rules in one compiled sweep over the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from difflab.backends.arguments import Arguments
from difflab.backends.contract import Backend, Prepared
from difflab.counting import sweep_operations
from difflab.enclosures.rounding import rounding_errors
from difflab.errors import known
from difflab.network import MLP


if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True, repr=False)
class Backprop(Backend):
    """Hand-written reverse sweep, compiled by Numba once for all networks.

    Parameters
    ----------
    dtype : ``"float64"`` or ``"float32"``: the arithmetic of products, sums and losses. Activations and their
        derivatives are evaluated in float64 and rounded once.
    """

    dtype: str = "float64"
    name = "backprop"
    compiles_once = True

    def __post_init__(self) -> None:
        known(self.dtype, ("float64", "float32"), "dtype")

    def _prepare(self, net: MLP) -> PreparedBackprop:
        return PreparedBackprop(net, self)


class PreparedBackprop(Prepared):
    """The program as a table, compiled sweeps, and a workspace for the last batch size."""

    def __init__(self, net: MLP, backend: Backprop) -> None:
        super().__init__(net, backend, (backend.dtype,))
        # Here and not above: importing numba takes longer than most commands.
        from difflab.kernels import sweeps

        self._sweeps: ModuleType = sweeps.up_to_date()
        self._encoded = self._sweeps.encode(net.program)
        self._workspace: tuple[int, np.ndarray, np.ndarray, np.ndarray] | None = None
        self.facts["gradient_ops"] = sweep_operations(net.program)
        self.facts["primal_calls"] = 1
        self._compile()

    def _compile(self) -> None:
        """Run both sweeps once on zeros, so that evaluation never waits for the compiler."""
        theta, x, y = (np.zeros(shape, self.dtypes[0]) for shape in self._shapes())
        self.value(theta, x, y, allow_nonfinite=True)
        self.value_and_gradient(theta, x, y, allow_nonfinite=True)

    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        return (self.net.n_params,), (1, self.net.n_inputs), (1, self.net.n_outputs)

    def _buffers(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values with the masks in their place, cotangents, scratch; kept until another batch size is asked for."""
        if self._workspace is None or self._workspace[0] != batch:
            sizes = (batch * self._encoded.columns,) * 2 + (self._encoded.scratch_size(batch),)
            _check_memory(self.net, batch, sum(sizes) * np.dtype(self.dtypes[0]).itemsize)
            values, cotangents, scratch = (np.empty(size, self.dtypes[0]) for size in sizes)
            masks = [mask.ravel() for mask in self.net.program.draw_masks(batch)]
            if masks:
                end = batch * self._encoded.first_made
                values[end - sum(map(len, masks)) : end] = np.concatenate(masks)
            self._workspace = batch, values, cotangents, scratch
        return self._workspace[1:]

    def _inputs(self, arguments: Arguments) -> tuple[Any, ...]:
        parts = self.net.program.divisor(len(arguments.x))
        encoded = self._encoded
        return encoded.table, encoded.constants, arguments.theta, arguments.x, arguments.y, parts

    def _value(self, arguments: Arguments) -> float:
        values, cotangents, _ = self._buffers(len(arguments.x))
        return self._sweeps.value(*self._inputs(arguments), values, cotangents)

    def _value_and_gradient(self, arguments: Arguments) -> float:
        buffers = self._buffers(len(arguments.x))
        return self._sweeps.value_and_gradient(*self._inputs(arguments), *buffers, arguments.out)

    def predicted_error(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return rounding_errors(self.net, theta, x, y, self.dtypes[0]).gradient


def _check_memory(net: MLP, batch: int, needed: int) -> None:
    available = psutil.virtual_memory().available
    if needed > available:
        raise MemoryError(
            f"a batch of {batch} through {net} needs a workspace of {needed} bytes, got {available} available; "
            "use a smaller batch"
        )
