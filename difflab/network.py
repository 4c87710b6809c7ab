"""Networks: layers, their lowering to a program, and the layout of theta."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from difflab.errors import known
from difflab.primitives.activations import ACTIVATIONS
from difflab.primitives.losses import LOSSES
from difflab.program import INPUTS, TARGETS, Instruction, Parameter, Program


MAX_UNITS = 1_000_000
MAX_PARAMS = 2**31 - 1
MAX_LAYERS = 1000
REDUCTIONS = ("mean", "sum")


def checked_units(units: int, what: str) -> int:
    if isinstance(units, bool) or not isinstance(units, int | np.integer):
        raise TypeError(f"{what} must be an integer, got {units!r} that is a {type(units).__name__}")
    if not 1 <= units <= MAX_UNITS:
        raise ValueError(f"{what} must be from 1 to {MAX_UNITS}, got {units}")
    return int(units)


@dataclass
class Lowering:
    """A program under construction: instructions and parameters so far."""

    widths: list[int]
    instructions: list[Instruction] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    n_params: int = 0

    def parameter(self, name: str, shape: tuple[int, ...]) -> Parameter:
        """A new slice at the end of theta."""
        made = Parameter(name, self.n_params, shape)
        self.parameters.append(made)
        self.n_params += made.size
        return made

    def append(
        self,
        operation: str,
        inputs: tuple[int, ...],
        width: int,
        parameters: tuple[Parameter, ...] = (),
        function: str | None = None,
    ) -> int:
        """Append an instruction and return the number of the value it makes."""
        self.instructions.append(Instruction(operation, inputs, width, parameters, function))
        self.widths.append(width)
        return len(self.widths) - 1


@dataclass(frozen=True)
class Dense:
    """A fully connected layer, ``a = activation(W a + b)``.

    Parameters
    ----------
    units : number of neurons, 1 or more
    activation : a name in ``ACTIVATIONS``

    Raises
    ------
    ValueError
        If the activation is unknown or ``units`` is out of range.
    """

    units: int
    activation: str = "identity"

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", checked_units(self.units, "units of Dense"))
        known(self.activation, ACTIVATIONS, "activation")

    def lower(self, lowering: Lowering, a: int, name: str) -> int:
        """Append the layer's instructions to ``lowering``, reading value ``a``; return its output value."""
        weight = lowering.parameter(f"{name}.weight", (self.units, lowering.widths[a]))
        bias = lowering.parameter(f"{name}.bias", (self.units,))
        z = lowering.append("affine", (a,), self.units, (weight, bias))
        if self.activation == "identity":
            return z
        return lowering.append("activation", (z,), self.units, function=self.activation)


@dataclass(frozen=True)
class MLP:
    """A network with a loss: data, to be lowered to a program.

    Parameters
    ----------
    n_inputs : width of a sample
    layers : the layers in order; the last one gives the outputs (logits, for a cross-entropy)
    loss : a name in ``LOSSES``
    reduction : ``"mean"`` or ``"sum"`` of the losses of the samples

    Raises
    ------
    ValueError
        If a name is unknown, a width is out of range or there is no layer.
    """

    n_inputs: int
    layers: tuple[Dense, ...]
    loss: str = "softmax_cross_entropy"
    reduction: str = "mean"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "n_inputs", checked_units(self.n_inputs, "n_inputs"))
        if not all(isinstance(layer, Dense) for layer in self.layers):
            raise TypeError(f"layers must be Dense(units, activation), got {self.layers}; or use MLP.dense(...)")
        known(self.loss, LOSSES, "loss")
        known(self.reduction, REDUCTIONS, "reduction")
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise ValueError(f"a network must have from 1 to {MAX_LAYERS} layers, got {len(self.layers)}")
        if self.n_params > MAX_PARAMS:
            raise ValueError(f"{self} has {self.n_params} parameters, more than {MAX_PARAMS}; use narrower layers")

    @classmethod
    def dense(
        cls,
        widths: Sequence[int],
        hidden: str = "tanh",
        loss: str = "softmax_cross_entropy",
        output: str = "identity",
        reduction: str = "mean",
    ) -> MLP:
        """A plain dense network.

        Parameters
        ----------
        widths : inputs, hidden layers, outputs; at least two
        hidden, output : activation of the hidden layers and of the last one
        """
        if not isinstance(widths, Sequence | np.ndarray) or len(widths) < 2:
            raise ValueError(f"widths must list inputs and outputs at least, like [4, 3, 10], got {widths!r}")
        layers = [Dense(units, hidden) for units in widths[1:]]
        layers[-1] = replace(layers[-1], activation=output)
        return cls(widths[0], tuple(layers), loss, reduction)

    def __str__(self) -> str:
        return f"MLP {'-'.join(map(str, self.widths))}"

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.n_inputs, *(layer.units for layer in self.layers))

    @property
    def n_outputs(self) -> int:
        return self.widths[-1]

    @cached_property
    def _lowering(self) -> Lowering:
        lowering = Lowering(widths=[self.n_inputs, self.n_outputs])
        a = INPUTS
        for number, layer in enumerate(self.layers, 1):
            a = layer.lower(lowering, a, f"dense{number}")
        lowering.append("loss", (a, TARGETS), 1, function=self.loss)
        return lowering

    @cached_property
    def program(self) -> Program:
        """The Wengert list of the network."""
        return Program(tuple(self._lowering.instructions), self.n_inputs, self.n_outputs, self.reduction)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The named slices of theta, in order."""
        return tuple(self._lowering.parameters)

    @property
    def n_params(self) -> int:
        return self._lowering.n_params

    def view(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Named views of ``theta``, shape (n_params,): ``{"dense1.weight": (out, in), ...}``."""
        self._check_length(theta)
        return {parameter.name: parameter.of(theta) for parameter in self.parameters}

    def _check_length(self, theta: np.ndarray) -> None:
        if theta.shape != (self.n_params,):
            raise ValueError(f"theta must have shape ({self.n_params},) for {self}, got {theta.shape}")

    def name_of(self, i: int) -> str:
        """The name of entry ``i`` of theta, like ``dense2.weight[3,1]``."""
        if not 0 <= i < self.n_params:
            raise IndexError(f"theta of {self} has entries 0 to {self.n_params - 1}, got {i}")
        parameter = next(p for p in reversed(self.parameters) if p.offset <= i)
        index = np.unravel_index(i - parameter.offset, parameter.shape)
        return f"{parameter.name}[{','.join(map(str, index))}]"

    def init(self, seed: int | np.random.Generator = 0) -> np.ndarray:
        """Initial parameters: Glorot uniform weights, zero biases.

        Weights are uniform in +-sqrt(6 / (in + out)) [Glorot, Bengio 2010].

        Returns
        -------
        theta : (n_params,) float64
        """
        rng = np.random.default_rng(seed)
        theta = np.zeros(self.n_params)
        for parameter in self.parameters:
            if len(parameter.shape) == 2:
                bound = np.sqrt(6.0 / sum(parameter.shape))
                parameter.of(theta)[...] = rng.uniform(-bound, bound, parameter.shape)
        return theta
