"""CasADi: scalar expressions in reverse mode, written out as C and compiled by the C compiler of the system."""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from difflab.backends.arguments import Arguments, checked
from difflab.counting import sweep_operations
from difflab.errors import known, missing_compiler
from difflab.network import MLP
from difflab.peers.plain_dense import activations
from difflab.peers.ready import Call, Ready, Whole, fastest


FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-fopenmp")


@dataclass(frozen=True, repr=False)
class Casadi(Whole):
    """CasADi in float64; the code of one sample is straight-line and mapped over the batch.

    Parameters
    ----------
    form : ``"SX"``, an expression of numbers, or ``"MX"``, one of matrices
    threads : of OpenMP, among which samples are shared where that is faster than one after the other
    max_ops : operations of the gradient of one sample beyond which a network is refused: the code has one line for each
    """

    threads: int = 1
    max_ops: int = 20_000
    form: str = "SX"
    name = "casadi"
    module = "casadi"
    package = "casadi"

    def __post_init__(self) -> None:
        known(self.form, ("SX", "MX"), "form")

    def __repr__(self) -> str:
        """The usual form goes without saying."""
        said = super().__repr__()
        return said.replace("'SX', ", "").replace("'SX'", "")

    def unsupported(self, net: MLP) -> str | None:
        if reason := super().unsupported(net):
            return reason
        return missing_compiler("cc")

    def refusal(self, net: MLP) -> str | None:
        ops = sweep_operations(net.program)
        limit = self.max_ops
        return f"{ops} operations in the gradient, each a line of C, limit {limit}" if ops > limit else None

    def _prepare(self, net: MLP) -> PreparedCasadi:
        return PreparedCasadi(net, self)


class PreparedCasadi(Ready):
    """The expression of one sample; code for the last batch size, compiled when that is first asked for."""

    def __init__(self, net: MLP, backend: Casadi) -> None:
        super().__init__(net, backend, "float64")
        self._threads, self._form, self._batch = backend.threads, backend.form, 0
        self._compiled: dict[int, dict[str, Any]] = {}

    def _functions(self, batch: int, shares: int) -> dict[str, Any]:
        if self._batch != batch:
            self._compiled, self._batch = {}, batch
        if shares not in self._compiled:
            self._compiled[shares] = _compiled(self.net, self._form, batch, shares)
        return self._compiled[shares]

    def held(self, arguments: Arguments, shares: int = 1) -> Any:
        """Buffers that the functions read and write; CasADi's columns are the samples."""
        value, gradient = np.zeros(1), np.zeros(self.net.n_params)
        runs = {}
        for name, function in self._functions(len(arguments.x), shares).items():
            buffer, runs[name] = function.buffer()
            for i, given in enumerate(arguments.given):
                buffer.set_arg(i, given.data)
            for i, found in enumerate((value, gradient)[: function.n_out()]):
                buffer.set_res(i, found.data)
            runs[f"{name} buffer"] = buffer
        return runs, value, gradient, arguments

    def gradient_call(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Call:
        """The faster of samples one after the other and shared among threads."""
        return fastest(*(partial(self.differentiate, held) for held in self._forms(theta, x, y)))

    def primal_call(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> Call:
        """The same of the loss."""
        return fastest(*(partial(self.evaluate, held) for held in self._forms(theta, x, y)))

    def _forms(self, theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[Any]:
        arguments = checked(self.net, theta, x, y, self.dtypes)
        shares = {1, self._threads} if len(x) % self._threads == 0 else {1}
        return [self.held(arguments, number) for number in sorted(shares)]

    def counted(self) -> dict[str, Any]:
        """Instructions of CasADi's own machine that compute something, matrices being written out as their entries."""
        started = perf_counter()
        gradient, loss = _mapped(self.net, self._form, 1, 1)
        derived = perf_counter()
        _compiled(self.net, self._form, 1, 1)
        operations = {"gradient_ops": _operations(gradient), "own_loss_ops": _operations(loss)}
        return operations | {"derive_seconds": derived - started, "compile_seconds": perf_counter() - derived}

    def differentiate(self, held: Any) -> Any:
        runs, value, gradient, _ = held
        runs["gradient"]()
        return value, gradient

    def evaluate(self, held: Any) -> Any:
        runs, value, _, _ = held
        runs["primal"]()
        return value[0]

    def unpacked(self, found: Any, out: np.ndarray) -> float:
        value, out[:] = found
        return float(value[0])


def _compiled(net: MLP, form: str, batch: int, shares: int) -> dict[str, Any]:
    """Functions of theta, samples and targets that run compiled code: ``gradient`` and ``primal``."""
    import casadi

    with tempfile.TemporaryDirectory(prefix="difflab-") as folder:
        source, code = Path(folder) / "mapped.c", Path(folder) / "mapped.so"
        generator = casadi.CodeGenerator(source.name)
        for function in _mapped(net, form, batch, shares):
            generator.add(function)
        generator.generate(f"{folder}/")
        subprocess.run(["cc", *FLAGS, str(source), "-o", str(code), "-lm"], check=True, capture_output=True)
        return {name: casadi.external(name, str(code)) for name in ("gradient", "primal")}


def _mapped(net: MLP, form: str, batch: int, shares: int) -> list[Any]:
    """The loss of a batch with its gradient, and alone: those of a sample, added up, in equal shares of the batch."""
    import casadi

    given = [getattr(casadi, form).sym(name, size) for name, size in _sizes(net)]
    loss, made = _loss(net, *given) / batch, []
    for name, outputs in (("gradient", [loss, casadi.gradient(loss, given[0])]), ("primal", [loss])):
        summed = [*range(len(outputs))]
        function = casadi.Function(name if batch == 1 else f"{name}_of_sample", given, outputs)
        if batch > shares:
            of_share = name if shares == 1 else f"{name}_of_share"
            function = function.map(of_share, "serial", batch // shares, [0], summed)
        if shares > 1:
            function = function.map(name, "openmp", shares, [0], summed)
        made.append(function)
    return made


def _operations(function: Any) -> int:
    """Instructions but those that move numbers, turn signs, compare or choose, which counts nothing."""
    import casadi

    flat = function.expand() if function.is_a("MXFunction") else function
    names = "INPUT OUTPUT CONST PARAMETER ASSIGN NEG FABS SIGN LT LE EQ NE NOT AND OR IF_ELSE_ZERO FMAX FMIN".split()
    moves = {getattr(casadi, f"OP_{name}") for name in names}
    return sum(flat.instruction_id(k) not in moves for k in range(flat.n_instructions()))


def _sizes(net: MLP) -> list[tuple[str, int]]:
    return [("theta", net.n_params), ("x", net.n_inputs), ("y", net.n_outputs)]


def _loss(net: MLP, theta: Any, x: Any, y: Any) -> Any:
    """Softmax cross-entropy of one sample."""
    import casadi

    known_functions: dict[str, Callable[[Any], Any]] = {
        "identity": lambda z: z,
        "relu": lambda z: casadi.if_else(z > 0, z, 0),
        "sigmoid": lambda z: 1 / (1 + casadi.exp(-z)),
        "softplus": lambda z: casadi.fmax(z, 0) + casadi.log1p(casadi.exp(-casadi.fabs(z))),
        "tanh": casadi.tanh,
    }
    a, parameters = x, [_matrix(parameter, theta) for parameter in net.parameters]
    for name, weight, bias in zip(activations(net), parameters[::2], parameters[1::2], strict=True):
        a = known_functions[name](casadi.mtimes(weight, a) + bias)
    largest = casadi.mmax(a)
    return casadi.sum1(y) * (largest + casadi.log(casadi.sum1(casadi.exp(a - largest)))) - casadi.dot(y, a)


def _matrix(parameter: Any, theta: Any) -> Any:
    """A parameter cut from theta, where matrices lie row by row; CasADi's lie column by column."""
    import casadi

    cut = theta[parameter.offset : parameter.offset + parameter.size]
    shape = parameter.shape if len(parameter.shape) == 2 else (math.prod(parameter.shape), 1)
    return casadi.reshape(cut, *shape[::-1]).T
