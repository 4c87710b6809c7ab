"""One network definition, several independent ways to differentiate it, and a certified truth to judge them by."""

from difflab import began  # noqa: F401, I001 - before any other source is read

import numpy as np

from difflab.backends import (
    BACKENDS,
    Backend,
    Backprop,
    Certified,
    FiniteDifference,
    NotFinite,
    Prepared,
    Refused,
    Symbolic,
    Unsupported,
)
from difflab.discrepancy import Discrepancy, discrepancy, rounding_bound
from difflab.errors import LimitExceeded, known
from difflab.layers import BatchNorm, Dense, Dropout, Elementwise, Maxout, Multiply, Residual, Softmax
from difflab.network import MLP
from difflab.network_files import read_network, write_network
from difflab.primitives.activations import Activation
from difflab.reference import Reference, reference_gradient
from difflab.registration import register_activation


__version__ = "0.1.0"

__all__ = [
    "BACKENDS",
    "MLP",
    "Activation",
    "Backend",
    "Backprop",
    "BatchNorm",
    "Certified",
    "Dense",
    "Discrepancy",
    "Dropout",
    "Elementwise",
    "FiniteDifference",
    "LimitExceeded",
    "Maxout",
    "Multiply",
    "NotFinite",
    "Prepared",
    "Reference",
    "Refused",
    "Residual",
    "Softmax",
    "Symbolic",
    "Unsupported",
    "discrepancy",
    "read_network",
    "reference_gradient",
    "register_activation",
    "rounding_bound",
    "value_and_gradient",
    "write_network",
]


def value_and_gradient(
    net: MLP, theta: np.ndarray, x: np.ndarray, y: np.ndarray, backend: str | Backend = "backprop"
) -> tuple[float, np.ndarray]:
    """The loss of a batch and its gradient, by a back-end or the default one of that name.

    Prepares anew at each call; for many gradients of one network, prepare once.
    """
    chosen = BACKENDS[known(backend, BACKENDS, "backend")] if isinstance(backend, str) else backend
    if not isinstance(chosen, Backend):
        raise TypeError(f"backend must be a name or a back-end like difflab.Backprop(), got {backend!r}")
    return chosen.prepare(net).value_and_gradient(theta, x, y)
