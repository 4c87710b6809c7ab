"""PyTorch: eager, or by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.errors import known
from difflab.network import MLP
from difflab.peers.plain_dense import activations, weights_and_biases
from difflab.peers.ready import Ready, Whole


@dataclass(frozen=True, repr=False)
class Torch(Whole):
    """PyTorch on the processor.

    Parameters
    ----------
    dtype : ``"float64"`` or ``"float32"``
    threads : of its own pool, for the whole process
    compiled : whether value and gradient are compiled as one graph, which takes a C++ compiler and some seconds
    """

    dtype: str = "float64"
    threads: int = 1
    compiled: bool = False
    name = "torch"
    module = "torch"
    package = "torch"

    def __post_init__(self) -> None:
        known(self.dtype, ("float64", "float32"), "dtype")

    def _prepare(self, net: MLP) -> Ready:
        return (PreparedCompiled if self.compiled else PreparedTorch)(net, self)


class PreparedTorch(Ready):
    """Parameters as leaves in the layout of ``torch.nn.Linear``, which is (out, in)."""

    needs_grad = True

    def __init__(self, net: MLP, backend: Torch) -> None:
        super().__init__(net, backend, backend.dtype)
        import torch

        torch.set_num_threads(backend.threads)
        self._torch = torch
        self._loss = _loss(net)

    def held(self, arguments: Arguments) -> Any:
        """Targets as classes where they are such: PyTorch is faster with these."""
        views = weights_and_biases(self.net, arguments.theta)
        leaves = [self._torch.tensor(view, requires_grad=self.needs_grad) for view in views]
        return leaves, self._torch.tensor(arguments.x), self._torch.tensor(_classes_or_rows(arguments.y))

    def differentiate(self, held: Any) -> Any:
        value = self._loss(*held)
        return value, self._torch.autograd.grad(value, held[0])

    def evaluate(self, held: Any) -> Any:
        with self._torch.no_grad():
            return self._loss(*held)

    def unpacked(self, found: Any, out: np.ndarray) -> float:
        value, gradients = found
        for view, gradient in zip(weights_and_biases(self.net, out), gradients, strict=True):
            view[...] = gradient.numpy()
        return float(value.detach())


class PreparedCompiled(PreparedTorch):
    """Value and gradient traced together by ``torch.func``, which has less to do per call than compiling the loss."""

    needs_grad = False

    def __init__(self, net: MLP, backend: Torch) -> None:
        super().__init__(net, backend)
        compiled, func = self._torch.compile, self._torch.func
        self._gradient = compiled(func.grad_and_value(self._loss), dynamic=False)
        self._compiled_loss = compiled(self._loss, dynamic=False)

    def differentiate(self, held: Any) -> Any:
        with self._torch.no_grad():
            gradients, value = self._gradient(*held)
        return value, gradients

    def evaluate(self, held: Any) -> Any:
        with self._torch.no_grad():
            return self._compiled_loss(*held)


def _loss(net: MLP) -> Callable[[list[Any], Any, Any], Any]:
    """Mean softmax cross-entropy as a function of weights (out, in) and biases, samples, and classes or rows."""
    import torch

    nn = torch.nn.functional
    known_functions: dict[str, Callable[[Any], Any]] = {
        "identity": lambda z: z,
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
        "softplus": lambda z: nn.softplus(z, threshold=1000),  # By default it is linear from 20 on.
        "tanh": torch.tanh,
    }
    functions = [known_functions[name] for name in activations(net)]

    def loss(parameters: list[Any], x: Any, y: Any) -> Any:
        a = x
        for function, weight, bias in zip(functions, parameters[::2], parameters[1::2], strict=True):
            a = function(nn.linear(a, weight, bias))
        return nn.cross_entropy(a, y)

    return loss


def _classes_or_rows(y: np.ndarray) -> np.ndarray:
    is_class = ((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all()
    return y.argmax(axis=1) if is_class else y
