"""The back-ends and their table of defaults."""

from difflab.backends.backprop import Backprop
from difflab.backends.certified import Certified
from difflab.backends.contract import Backend, NotFinite, Prepared, Refused, Unsupported
from difflab.backends.finite_difference import FiniteDifference
from difflab.backends.symbolic import Symbolic


BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (Symbolic(), FiniteDifference(), Backprop(), Certified())
}

__all__ = [
    "BACKENDS",
    "Backend",
    "Backprop",
    "Certified",
    "FiniteDifference",
    "NotFinite",
    "Prepared",
    "Refused",
    "Symbolic",
    "Unsupported",
]
