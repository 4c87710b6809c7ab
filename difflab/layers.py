"""Layers: what a network is made of, and the instructions that each is lowered to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from difflab.lowering import Lowering, activation_and_parameter


MAX_UNITS = 1_000_000
MAX_DEPTH = 50
"""Residual layers within residual layers."""

BATCH_NORM_EPS = 1e-5


def checked_units(units: int, what: str, least: int = 1) -> int:
    """``units`` as an ``int``, if it is one that a layer can have."""
    if isinstance(units, bool) or not isinstance(units, int | np.integer):
        raise TypeError(f"{what} must be an integer, got {units!r} that is a {type(units).__name__}")
    if not least <= units <= MAX_UNITS:
        raise ValueError(f"{what} must be from {least} to {MAX_UNITS}, got {units}")
    return int(units)


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower):
    """What every layer can do."""

    def lower(self, lowering: Lowering, a: int) -> int:
        """Append the layer's instructions to ``lowering``, reading value ``a``; return its output value."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """A short word for it in the name of a network."""
        return type(self).__name__.lower()

    def is_probability(self) -> bool:
        """Whether all its outputs lie between 0 and 1."""
        return False

    def _set(self, **values: Any) -> None:
        """Replace fields, in checks on construction."""
        for name, value in values.items():
            msgspec.structs.force_setattr(self, name, value)


def _is_probability(activation: str) -> bool:
    low, high = activation_and_parameter(activation)[0].range
    return low >= 0 and high <= 1


def _check_share(share: str | None) -> None:
    if share is not None and (not isinstance(share, str) or not re.fullmatch(r"[A-Za-z_]\w*[A-Za-z_]|[A-Za-z]", share)):
        raise ValueError(
            f"share must be a name of letters, digits and '_' that does not end with a digit, got {share!r}; "
            "layers of one name have one slice of theta"
        )


class Dense(Layer, frozen=True):
    """A fully connected layer, ``a = activation(W a + b)``.

    Parameters
    ----------
    units : number of neurons, 1 or more
    activation : a name in ``ACTIVATIONS``, with a number in brackets where it has a parameter: ``"elu(0.5)"``
    bias : whether there is a b
    share : layers of the same name have one weight and bias, whose cotangents add up

    Raises
    ------
    TypeError, ValueError
        If the activation is unknown or ``units`` is out of range.
    """

    units: int
    activation: str = "identity"
    bias: bool = True
    share: str | None = None

    def __post_init__(self) -> None:
        self._set(units=checked_units(self.units, "units of Dense"))
        activation_and_parameter(self.activation)
        _check_bool(self.bias, "bias of Dense")
        _check_share(self.share)

    def lower(self, lowering: Lowering, a: int) -> int:
        """One affine instruction and one activation."""
        name = lowering.name("dense", self.share)
        return lowering.activation(lowering.affine(a, self.units, name, self.bias), self.activation, name)

    @property
    def label(self) -> str:
        return f"{self.units}"

    def is_probability(self) -> bool:
        """By the range of the activation."""
        return _is_probability(self.activation)


class Maxout(Layer, frozen=True):
    """Units that are the largest of several affine pieces [Goodfellow et al. 2013].

    Piece p of unit j is row ``j * pieces + p`` of the weight, which is (units * pieces, in).

    Parameters
    ----------
    units : number of neurons, 1 or more
    pieces : affine functions of each, 2 or more
    share : as for :class:`Dense`
    """

    units: int
    pieces: int = 2
    share: str | None = None

    def __post_init__(self) -> None:
        self._set(units=checked_units(self.units, "units of Maxout"))
        self._set(pieces=checked_units(self.pieces, "pieces of Maxout", least=2))
        checked_units(self.units * self.pieces, "units times pieces of Maxout")
        _check_share(self.share)

    def lower(self, lowering: Lowering, a: int) -> int:
        """All pieces as one affine instruction, then the largest of each unit."""
        pieces = lowering.affine(a, self.units * self.pieces, lowering.name("maxout", self.share))
        return lowering.append("maxout", (pieces,), self.units)

    @property
    def label(self) -> str:
        return f"maxout {self.units}x{self.pieces}"


class Elementwise(Layer, frozen=True):
    """An activation function on its own, as after a :class:`BatchNorm`.

    Parameters
    ----------
    activation : as for :class:`Dense`
    per_unit : whether each unit has a learnable parameter of its own; else the layer has one
    """

    activation: str
    per_unit: bool = True

    def __post_init__(self) -> None:
        activation_and_parameter(self.activation)
        _check_bool(self.per_unit, "per_unit of Elementwise")

    def lower(self, lowering: Lowering, a: int) -> int:
        """One activation."""
        return lowering.activation(a, self.activation, lowering.name("elementwise"), self.per_unit)

    @property
    def label(self) -> str:
        return self.activation

    def is_probability(self) -> bool:
        """By the range of the activation."""
        return _is_probability(self.activation)


class Softmax(Layer, frozen=True):
    """exp(z_k) / sum_j exp(z_j): a vector activation, with a full Jacobian."""

    def lower(self, lowering: Lowering, a: int) -> int:
        """One instruction."""
        lowering.name("softmax")
        return lowering.append("softmax", (a,), lowering.widths[a])

    def is_probability(self) -> bool:
        """By definition."""
        return True


class Multiply(Layer, frozen=True):
    """Neurons whose inputs are multiplied instead of added: each takes an equal share of consecutive inputs.

    ``Multiply(1)`` is the product of all inputs.

    Parameters
    ----------
    units : number of neurons; must divide the width of the layer before
    """

    units: int

    def __post_init__(self) -> None:
        self._set(units=checked_units(self.units, "units of Multiply"))

    def lower(self, lowering: Lowering, a: int) -> int:
        """One instruction."""
        if lowering.widths[a] % self.units:
            raise lowering.misfit(f"units of Multiply must divide its {lowering.widths[a]} inputs, got {self.units}")
        lowering.name("multiply")
        return lowering.append("multiply", (a,), self.units)

    @property
    def label(self) -> str:
        return f"multiply {self.units}"


class BatchNorm(Layer, frozen=True):
    """gamma (z - mean) / sqrt(variance + eps) + beta, for each unit [Ioffe, Szegedy 2015].

    Without statistics the training form: mean and population variance are those of the batch, and the gradient goes
    through them. With statistics the inference form.

    Parameters
    ----------
    mean, variance : given statistics, one number for each unit, or neither
    eps : added to the variance
    """

    mean: tuple[float, ...] | None = None
    variance: tuple[float, ...] | None = None
    eps: float = BATCH_NORM_EPS

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.variance is None):
            raise ValueError("BatchNorm must have both mean and variance, or neither, got one; give the other")
        self._set(eps=checked_number(self.eps, "eps of BatchNorm"))
        if self.eps <= 0:
            raise ValueError(f"eps of BatchNorm must be positive, got {self.eps!r}")
        if self.mean is not None and self.variance is not None:
            self._set(mean=_numbers(self.mean, "mean of BatchNorm"))
            self._set(variance=_numbers(self.variance, "variance of BatchNorm"))
            if len(self.mean) != len(self.variance) or min(self.variance, default=-1.0) < 0:
                raise ValueError(
                    f"mean and variance of BatchNorm must be as many, and no variance negative, got {self.mean} and "
                    f"{self.variance}"
                )
            if not math.isfinite(max(self.variance) + self.eps):
                raise ValueError(f"variance of BatchNorm must be finite with eps added, got {max(self.variance)!r}")

    def lower(self, lowering: Lowering, a: int) -> int:
        """One instruction of either form."""
        name, width = lowering.name("batchnorm"), lowering.widths[a]
        gamma = lowering.parameter(f"{name}.gamma", (width,), 1.0)
        beta = lowering.parameter(f"{name}.beta", (width,), 0.0)
        if self.mean is None or self.variance is None:
            return lowering.append("batch_norm", (a,), width, parameters=(gamma, beta), constants=(self.eps,))
        if len(self.mean) != width:
            raise lowering.misfit(
                f"statistics of BatchNorm must be one for each of {width} units, got {len(self.mean)}"
            )
        constants = (self.eps, *self.mean, *self.variance)
        return lowering.append("batch_norm_inference", (a,), width, parameters=(gamma, beta), constants=constants)


class Dropout(Layer, frozen=True):
    """a mask / (1 - p) in training, with a mask drawn from a seed; nothing in inference [lecture notes 002, slide 29].

    The mask is the same in every evaluation: what is differentiated is one function.

    Parameters
    ----------
    p : probability that an entry is left out, from 0 up to, but not including, 1
    seed : of ``numpy.random.default_rng``, whose ``random((batch, width)) >= p`` is the mask; required in training,
        where layers of one width and seed would have one mask
    training : whether it is the training form
    """

    p: float
    seed: int | None = None
    training: bool = True

    def __post_init__(self) -> None:
        self._set(p=checked_number(self.p, "p of Dropout"))
        if not 0 <= self.p < 1:
            raise ValueError(f"p of Dropout must be from 0 to below 1, got {self.p!r}")
        _check_bool(self.training, "training of Dropout")
        if self.seed is not None:
            self._set(seed=_checked_seed(self.seed))
        elif self.training:
            raise ValueError(
                "seed of Dropout must be given in training, got none; pass one, such as seed=1, that no other Dropout "
                "has, or training=False"
            )

    def lower(self, lowering: Lowering, a: int) -> int:
        """One instruction that reads a drawn value, in the training form."""
        lowering.name("dropout")
        if not self.training or self.seed is None:
            return a
        mask = lowering.mask(lowering.widths[a], self.p, self.seed)
        return lowering.append("dropout", (a, mask), lowering.widths[a], constants=(self.p,))

    @property
    def label(self) -> str:
        return f"dropout {self.p:g}"


class Residual(Layer, frozen=True):
    """Layers with a skip connection around them: a + layers(a), or V a + layers(a) [He et al. 2016].

    Parameters
    ----------
    layers : at least one; without ``project`` the last must be as wide as the input
    project : whether the skip connection carries a weight V of its own, which may change the width
    """

    layers: tuple[AnyLayer, ...]
    project: bool = False

    def __post_init__(self) -> None:
        self._set(layers=checked_layers(self.layers, "layers of Residual"))
        _check_bool(self.project, "project of Residual")
        if _depth(self) > MAX_DEPTH:
            raise ValueError(f"Residual must be nested at most {MAX_DEPTH} deep, got more; use fewer")

    def lower(self, lowering: Lowering, a: int) -> int:
        """The layers, the projection if there is one, and a sum."""
        name = lowering.name("residual")
        end = lower_all(self.layers, lowering, a)
        width = lowering.widths[end]
        if not self.project and width != lowering.widths[a]:
            raise lowering.misfit(
                f"the layers of Residual must keep its width of {lowering.widths[a]}, got {width}; end with "
                f"Dense({lowering.widths[a]}), or pass project=True"
            )
        skip = lowering.affine(a, width, name, has_bias=False) if self.project else a
        return lowering.append("add", (skip, end), width)

    @property
    def label(self) -> str:
        return f"res({'-'.join(layer.label for layer in self.layers)})"


AnyLayer = Dense | Maxout | Elementwise | Softmax | Multiply | BatchNorm | Dropout | Residual
KINDS: dict[str, type[Layer]] = {kind.__name__.lower(): kind for kind in AnyLayer.__args__}
"""Layers by the word for them in files."""


def checked_layers(layers: Iterable[Any], what: str) -> tuple[AnyLayer, ...]:
    """The layers as a tuple, each of a known kind, and at least one."""
    if isinstance(layers, Layer) or not isinstance(layers, Iterable):
        raise TypeError(f"{what} must be a list of layers, got {layers!r}; write [{layers!r}]")
    layers = tuple(layers)
    for layer in layers:
        if not isinstance(layer, Layer):
            known_kinds = ", ".join(kind.__name__ for kind in KINDS.values())
            raise TypeError(f"{what} must be {known_kinds}, got {layer!r}; or use MLP.dense(...)")
    if not layers:
        raise ValueError(f"{what} must be at least one, got none")
    return layers


def lower_all(layers: tuple[AnyLayer, ...], lowering: Lowering, a: int) -> int:
    """One layer after the other."""
    for index, layer in enumerate(layers):
        a = lowering.layer(layer, index, a)
    return a


def count(layers: tuple[AnyLayer, ...]) -> int:
    """Layers and the layers within them."""
    return sum(1 + (count(layer.layers) if isinstance(layer, Residual) else 0) for layer in layers)


def _depth(layer: Layer) -> int:
    return 1 + max(map(_depth, layer.layers)) if isinstance(layer, Residual) else 0


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed of Dropout must be an integer, 0 or more, got {seed!r}")
    return int(seed)


def _check_bool(value: Any, what: str) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be true or false, got {value!r}")


def checked_number(value: Any, what: str) -> float:
    """``value`` as a ``float``, if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{what} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{what} must be finite, got {number!r}")
    return number


def _numbers(values: Any, what: str) -> tuple[float, ...]:
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str):
        raise TypeError(f"{what} must be a list of numbers, got {values!r}")
    return tuple(checked_number(value, what) for value in values)
