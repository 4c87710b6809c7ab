"""JAX: ``jit(value_and_grad)``, its results waited for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from difflab.backends.arguments import Arguments, checked
from difflab.errors import known
from difflab.network import MLP
from difflab.peers.plain_dense import activations, weights_and_biases
from difflab.peers.ready import Call, Ready, Whole, fastest


def xla_flags(threads: int) -> str:
    """What XLA reads when it starts; its pool has a thread for each core that the process may run on."""
    return f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"


@dataclass(frozen=True, repr=False)
class Jax(Whole):
    """JAX on the processor, dispatched synchronously, which is what small networks are faster with.

    Parameters
    ----------
    dtype : ``"float64"`` or ``"float32"``
    threads : what XLA is told when it starts, which is once per process; for more than the process may use cores,
        it has no more than those
    """

    dtype: str = "float64"
    threads: int = 1
    name = "jax"
    module = "jax"
    package = "jax"

    def __post_init__(self) -> None:
        known(self.dtype, ("float64", "float32"), "dtype")

    def _prepare(self, net: MLP) -> PreparedJax:
        return PreparedJax(net, self)


class PreparedJax(Ready):
    """The loss traced and compiled at the first call, over a weight and a bias for each layer, or over a flat theta.

    A list of parameters costs more for each call, a flat one has to be cut and put together by the compiled code: which
    is faster depends on the network.
    """

    def __init__(self, net: MLP, backend: Jax) -> None:
        super().__init__(net, backend, backend.dtype)
        os.environ.setdefault("XLA_FLAGS", xla_flags(backend.threads))
        import jax

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        self._array = jax.numpy.asarray
        self._traced = loss = _loss(net)
        self._gradient, self._loss = jax.jit(jax.value_and_grad(loss)), jax.jit(loss)

        def of_flat(theta: Any, x: Any, y: Any) -> Any:
            return loss(_layers(net, theta), x, y)

        self._gradient_of_flat, self._loss_of_flat = jax.jit(jax.value_and_grad(of_flat)), jax.jit(of_flat)

    def held(self, arguments: Arguments) -> Any:
        """Weights are (in, out) as in JAX's own layers."""
        views = weights_and_biases(self.net, arguments.theta)
        return [self._array(view.T) for view in views], self._array(arguments.x), self._array(arguments.y)

    def counted(self) -> dict[str, Any]:
        """Operations of the jaxprs for one sample, before XLA rewrites them."""
        import jax

        net, dtype, started = self.net, self.dtypes[0], perf_counter()
        theta, out = (np.zeros(net.n_params, dtype) for _ in range(2))
        held = self.held(Arguments(theta, np.zeros((1, net.n_inputs), dtype), np.zeros((1, net.n_outputs), dtype), out))
        gradient, loss = (jax.make_jaxpr(f)(*held) for f in (jax.value_and_grad(self._traced), self._traced))
        derived = perf_counter()
        jax.jit(jax.value_and_grad(self._traced)).lower(*held).compile()
        operations = {"gradient_ops": _operations(gradient.jaxpr), "own_loss_ops": _operations(loss.jaxpr)}
        return operations | {"derive_seconds": derived - started, "compile_seconds": perf_counter() - derived}

    def differentiate(self, held: Any) -> Any:
        found = self._gradient(*held)
        found[0].block_until_ready()  # Results of one execution are ready together.
        return found

    def evaluate(self, held: Any) -> Any:
        return self._loss(*held).block_until_ready()

    def unpacked(self, found: Any, out: np.ndarray) -> float:
        value, gradients = found
        if not isinstance(gradients, list):
            out[:] = np.asarray(gradients)
            return float(value)
        for view, gradient in zip(weights_and_biases(self.net, out), gradients, strict=True):
            view[...] = np.asarray(gradient).T
        return float(value)

    def gradient_call(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Call:
        """The faster of both forms."""
        flat = self._flat(theta, x, y)

        def of_flat() -> Any:
            found = self._gradient_of_flat(*flat)
            found[0].block_until_ready()
            return found

        return fastest(super().gradient_call(theta, x, y), of_flat)

    def primal_call(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Call:
        """The faster of both forms."""
        flat = self._flat(theta, x, y)

        def of_flat() -> Any:
            return self._loss_of_flat(*flat).block_until_ready()

        return fastest(super().primal_call(theta, x, y), of_flat)

    def _flat(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[Any, ...]:
        return tuple(map(self._array, (theta, *self._rows(theta, x, y))))

    def _rows(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        arguments = checked(self.net, theta, x, y, self.dtypes)
        return arguments.x, arguments.y


MOVES = frozenset(
    "broadcast_in_dim reshape transpose squeeze slice concatenate convert_element_type stop_gradient copy iota "
    "device_put zeros_like neg abs sign lt gt le ge eq ne and or not max min select_n reduce_max reduce_min".split()
)
"""Primitives that move numbers, turn signs, compare or choose, which counts nothing [difflab.counting]."""

ONE_EACH = frozenset("add add_any sub mul div exp expm1 log log1p logistic tanh pow integer_pow square sqrt".split())
"""Primitives with one operation for every entry of what they make."""


def _operations(jaxpr: Any) -> int:
    """Of numbers; an inner product counts its products and sums."""
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    inner = [getattr(value, "jaxpr", value) for value in equation.params.values()]
    inner = [value for value in inner if hasattr(value, "eqns")]
    if inner:
        return sum(map(_operations, inner))
    made = math.prod(equation.outvars[0].aval.shape)
    name = equation.primitive.name
    if name in MOVES:
        return 0
    if name == "reduce_sum":
        return math.prod(equation.invars[0].aval.shape) - made
    if name in ONE_EACH:
        return made
    if name != "dot_general":
        raise ValueError(f"primitives of a jaxpr must be known for counting, got {name!r}; add it to a table here")
    (contracted, _), _ = equation.params["dimension_numbers"]
    terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    return made * (2 * terms - 1)


def _loss(net: MLP) -> Callable[[list[Any], Any, Any], Any]:
    """Mean softmax cross-entropy as a function of weights (in, out) and biases, samples, and targets in rows."""
    import jax

    known_functions: dict[str, Callable[[Any], Any]] = {
        "identity": lambda z: z,
        "relu": jax.nn.relu,
        "sigmoid": jax.nn.sigmoid,
        "softplus": jax.nn.softplus,
        "tanh": jax.numpy.tanh,
    }
    functions = [known_functions[name] for name in activations(net)]

    def loss(parameters: list[Any], x: Any, y: Any) -> Any:
        a = x
        for function, weight, bias in zip(functions, parameters[::2], parameters[1::2], strict=True):
            a = function(a @ weight + bias)
        return -(y * jax.nn.log_softmax(a)).sum(axis=1).mean()

    return loss


def _layers(net: MLP, theta: Any) -> list[Any]:
    """Weights (in, out) and biases cut from a flat theta."""
    cut = [theta[p.offset : p.offset + p.size].reshape(p.shape) for p in net.parameters]
    return [part.T for part in cut]
