"""PyTensor: a graph of tensors, differentiated, rewritten and compiled by its own default mode."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from difflab.backends.arguments import Arguments
from difflab.errors import known
from difflab.network import MLP
from difflab.peers.plain_dense import activations, weights_and_biases
from difflab.peers.ready import Ready, Whole


@dataclass(frozen=True, repr=False)
class Pytensor(Whole):
    """PyTensor, which compiles an operation when a graph first has it, and keeps that on disk.

    Where it finds no BLAS to link to, as when pip installed it, its products are those of NumPy.

    Parameters
    ----------
    dtype : ``"float64"`` or ``"float32"``
    threads : of its BLAS, which a process has from its start, as those of studies do
    """

    dtype: str = "float64"
    threads: int = 1
    name = "pytensor"
    module = "pytensor"
    package = "pytensor"
    keeps_code = True

    def __post_init__(self) -> None:
        known(self.dtype, ("float64", "float32"), "dtype")

    def _prepare(self, net: MLP) -> PreparedPytensor:
        return PreparedPytensor(net, self)


class PreparedPytensor(Ready):
    """Functions of a weight and a bias for each layer, samples, and targets in rows."""

    def __init__(self, net: MLP, backend: Pytensor) -> None:
        super().__init__(net, backend, backend.dtype)
        import pytensor.tensor  # noqa: F401 -- which is no part of deriving.

        started = perf_counter()
        inputs, loss, gradients = _graph(net, backend.dtype, None)
        derived = perf_counter()
        self._gradient, self._loss = _compiled(inputs, [loss, *gradients]), _compiled(inputs, loss)
        self.facts |= {"derive_seconds": derived - started, "compile_seconds": perf_counter() - derived}

    def held(self, arguments: Arguments) -> Any:
        return *weights_and_biases(self.net, arguments.theta), arguments.x, arguments.y

    def differentiate(self, held: Any) -> Any:
        return self._gradient(*held)

    def evaluate(self, held: Any) -> Any:
        return self._loss(*held)

    def unpacked(self, found: Any, out: np.ndarray) -> float:
        value, *gradients = found
        for view, gradient in zip(weights_and_biases(self.net, out), gradients, strict=True):
            view[...] = gradient
        return float(value)

    def counted(self) -> dict[str, Any]:
        """Operations of the graphs for one sample, rewritten by PyTensor but neither fused nor given to BLAS."""
        _, loss, gradients = _graph(self.net, self.dtypes[0], 1)
        return {"gradient_ops": _operations([loss, *gradients]), "own_loss_ops": _operations([loss])}


def _compiled(inputs: list[Any], outputs: Any) -> Any:
    """A function that takes arrays as they are: these have been checked."""
    import pytensor

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PyTensor could not link to a BLAS")
        function = pytensor.function([pytensor.In(one, borrow=True) for one in inputs], outputs)
    function.trust_input = True
    return function


def _graph(net: MLP, dtype: str, batch: int | None) -> tuple[list[Any], Any, list[Any]]:
    """Inputs, mean softmax cross-entropy, and its gradients by weights (out, in) and biases."""
    import pytensor.tensor as pt
    from pytensor.tensor.special import log_softmax

    known_functions = {
        "identity": lambda z: z,
        "relu": lambda z: pt.switch(z > 0, z, np.zeros((), dtype)),
        "sigmoid": pt.sigmoid,
        "softplus": pt.softplus,
        "tanh": pt.tanh,
    }
    functions = [known_functions[name] for name in activations(net)]
    parameters = [pt.tensor(parameter.name, dtype=dtype, shape=parameter.shape) for parameter in net.parameters]
    x, y = (pt.tensor(name, dtype=dtype, shape=(batch, n)) for name, n in (("x", net.n_inputs), ("y", net.n_outputs)))
    a = x
    for function, weight, bias in zip(functions, parameters[::2], parameters[1::2], strict=True):
        a = function(pt.dot(a, weight.T) + bias)
    loss = pt.mean(-pt.sum(y * log_softmax(a, axis=1), axis=1))
    return [*parameters, x, y], loss, pt.grad(loss, parameters)


MOVES = frozenset("DimShuffle Reshape Alloc Shape Shape_i MakeVector ScalarFromTensor TensorFromScalar".split())
"""Operations on arrays that compute nothing."""

CHOICES = frozenset("Identity Second Cast Neg Abs Sign Switch Maximum Minimum LT GT LE GE EQ NEQ AND OR Invert".split())
"""Operations on numbers that copy, turn signs, compare or choose, which counts nothing [difflab.counting]."""

OF_ROW = {
    "Softmax": lambda n: 4 * n - 1,  # Differences from the largest, powers of e, their sum, quotients.
    "LogSoftmax": lambda n: 4 * n,  # Instead of quotients a logarithm and further differences.
}
"""Operations of a row of ``n`` entries."""


def _operations(outputs: list[Any]) -> int:
    """Of numbers, by the convention of the lab."""
    from pytensor.graph.fg import FunctionGraph
    from pytensor.graph.rewriting.utils import rewrite_graph

    graph = FunctionGraph(outputs=outputs, clone=True)
    rewritten = rewrite_graph(graph, include=("canonicalize", "stabilize", "specialize"))
    return sum(map(_of_node, rewritten.toposort()))


def _of_node(node: Any) -> int:
    from pytensor.tensor.elemwise import CAReduce, Elemwise

    name, made = type(node.op).__name__, math.prod(node.outputs[0].type.shape)
    if name in MOVES:
        return 0
    if isinstance(node.op, Elemwise):
        return made * _of_scalar(node.op.scalar_op, len(node.inputs))
    if isinstance(node.op, CAReduce):
        if name in ("Max", "Min"):
            return 0
        return math.prod(node.inputs[0].type.shape) - made
    if name == "Dot":
        return made * (2 * node.inputs[0].type.shape[-1] - 1)
    if name in OF_ROW:
        n = node.outputs[0].type.shape[node.op.axis]
        return made // n * OF_ROW[name](n)
    raise ValueError(f"operations of PyTensor must be known for counting, got {node.op}; add {name} to a table here")


def _of_scalar(op: Any, n_inputs: int) -> int:
    """Sums and products take any number of arguments; every other function counts one."""
    name = type(op).__name__
    if name in CHOICES:
        return 0
    return n_inputs - 1 if name in ("Add", "Mul") else 1
