"""Networks: layers and a loss, their program, and the layout of theta."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np

from difflab.errors import known
from difflab.initialisation import INITIALISATIONS
from difflab.layers import AnyLayer, Dense, checked_layers, checked_units, count, lower_all
from difflab.lowering import Lowering, Record
from difflab.primitives.losses import LOSSES
from difflab.program import INPUTS, TARGETS, Parameter, Program


MAX_PARAMS = 2**31 - 1
MAX_LAYERS = 1000
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class MLP:
    """A network with a loss: data, to be lowered to a program.

    The loss of a batch is the mean or the sum of the losses of its samples, plus l1 sum |w| + l2 / 2 sum w**2 over all
    weights (no biases; shared weights once).

    Parameters
    ----------
    n_inputs : width of a sample
    layers : the layers in order; the last one gives the outputs (logits, for a cross-entropy)
    loss : a name in ``LOSSES``
    reduction : ``"mean"`` or ``"sum"`` of the losses of the samples
    l1, l2 : strengths of the penalties, 0 or more
    label_smoothing : share s of the weight of a target that goes to all C classes alike: y (1 - s) + s / C
    initialisation : a name in ``INITIALISATIONS``, how :meth:`init` draws weights

    Raises
    ------
    TypeError, ValueError
        If a name is unknown, a number out of range, there is no layer, or the layers do not fit.
    """

    n_inputs: int
    layers: tuple[AnyLayer, ...]
    loss: str = "softmax_cross_entropy"
    reduction: str = "mean"
    l1: float = 0.0
    l2: float = 0.0
    label_smoothing: float = 0.0
    initialisation: str = "glorot_uniform"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", checked_layers(self.layers, "layers"))
        object.__setattr__(self, "n_inputs", checked_units(self.n_inputs, "n_inputs"))
        for name, table in (("loss", LOSSES), ("reduction", REDUCTIONS), ("initialisation", INITIALISATIONS)):
            object.__setattr__(self, name, str(known(getattr(self, name), table, name)))
        if count(self.layers) > MAX_LAYERS:
            raise ValueError(f"a network must have from 1 to {MAX_LAYERS} layers, got {count(self.layers)}")
        self._check_terms()
        if self.n_params > MAX_PARAMS:
            raise ValueError(f"{self} has {self.n_params} parameters, more than {MAX_PARAMS}; use narrower layers")

    def _check_terms(self) -> None:
        """Penalties, smoothing, and whether outputs are what the loss takes."""
        for name in ("l1", "l2", "label_smoothing"):
            number, most = getattr(self, name), 1 if name == "label_smoothing" else math.inf
            is_number = isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)
            if not is_number or not 0 <= number < most or int(number) > sys.float_info.max:
                raise ValueError(f"{name} must be a number from 0 to below {most:g}, got {number!r}")
            object.__setattr__(self, name, float(number))
        row = LOSSES[self.loss]
        if self.label_smoothing and row.smoothing_classes is None:
            names = ", ".join(name for name, loss in LOSSES.items() if loss.smoothing_classes)
            raise ValueError(
                f"label_smoothing must be 0 for {self.loss}, got {self.label_smoothing}; it is for {names}"
            )
        if row.outputs == (0.0, 1.0) and not self._last().is_probability():
            raise ValueError(
                f"{self.loss} takes probabilities, got outputs of {self._last()}; end with Softmax() or an "
                "activation 'sigmoid', or use a cross-entropy, which takes logits"
            )

    def _last(self) -> AnyLayer:
        """The layer that makes the outputs: those after it are lowered to nothing."""
        making = [record.layer for record in self.lowered if record.made and not record.depth]
        return (making or self.layers)[-1]

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
        layers[-1] = msgspec.structs.replace(layers[-1], activation=output)
        return cls(widths[0], tuple(layers), loss, reduction)

    def __str__(self) -> str:
        return f"MLP {self.label}"

    @property
    def label(self) -> str:
        """Inputs and layers in short, like ``64-32-10``."""
        return "-".join([str(self.n_inputs), *(layer.label for layer in self.layers)])

    @cached_property
    def _lowering(self) -> Lowering:
        lowering = Lowering(widths={INPUTS: self.n_inputs})
        a = lower_all(self.layers, lowering, INPUTS)
        lowering.widths[TARGETS] = lowering.widths[a]
        target = TARGETS
        classes_of = LOSSES[self.loss].smoothing_classes
        if self.label_smoothing and classes_of:
            classes = classes_of(lowering.widths[a])
            constants = self.label_smoothing, float(classes)
            target = lowering.append("label_smoothing", (TARGETS,), lowering.widths[a], constants=constants)
        lowering.append("loss", (a, target), 1, function=self.loss)
        for weight in lowering.parameters if self.l1 or self.l2 else ():
            if weight.is_weight:
                lowering.append("penalty", (), 1, parameters=(weight,), constants=(self.l1, self.l2))
        return lowering

    @cached_property
    def program(self) -> Program:
        """The Wengert list of the network."""
        made = self._lowering
        return Program(made.numbered(), self.n_inputs, self.n_outputs, self.reduction, tuple(made.masks))

    @property
    def lowered(self) -> tuple[Record, ...]:
        """What every layer became, those within a residual layer after it."""
        return tuple(self._lowering.records)

    @property
    def n_outputs(self) -> int:
        return self._lowering.widths[TARGETS]

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

    def init(self, seed: int | np.random.Generator = 0, scheme: str | None = None) -> np.ndarray:
        """Initial parameters: weights drawn by a scheme, biases 0, gammas 1, learnable activations where they start.

        Parameters
        ----------
        seed : of ``numpy.random.default_rng``, or a generator
        scheme : a name in ``INITIALISATIONS``, if not the network's own

        Returns
        -------
        theta : (n_params,) float64
        """
        scheme = self.initialisation if scheme is None else scheme
        row = INITIALISATIONS[known(scheme, INITIALISATIONS, "initialisation")]
        rng = np.random.default_rng(seed)
        theta = np.empty(self.n_params)
        for parameter in self.parameters:
            drawn = row.draw(rng, (parameter.shape[0], parameter.shape[-1])) if parameter.is_weight else parameter.start
            parameter.of(theta)[...] = drawn
        return theta
