"""Differentiators beside the lab's own, as back-ends for studies, and their table of defaults."""

from difflab.backends import Backend
from difflab.peers.casadi import Casadi
from difflab.peers.entrywise import Answer, Peer
from difflab.peers.handwritten import Handwritten
from difflab.peers.hips_autograd import HipsAutograd
from difflab.peers.jacobi import Jacobi
from difflab.peers.jax import Jax
from difflab.peers.numdifftools import Numdifftools
from difflab.peers.pytensor import Pytensor
from difflab.peers.ready import Ready, Whole, calls, gradient_of
from difflab.peers.scipy_differentiate import ScipyDifferentiate
from difflab.peers.torch import Torch


PEERS: dict[str, Backend] = {
    peer.name: peer
    for peer in (
        ScipyDifferentiate(), Numdifftools(), Jacobi(), Handwritten(), Jax(), Torch(), HipsAutograd(), Casadi(),
        Pytensor(),
    )
}  # fmt: skip

__all__ = [
    "PEERS",
    "Answer",
    "Casadi",
    "Handwritten",
    "HipsAutograd",
    "Jacobi",
    "Jax",
    "Numdifftools",
    "Peer",
    "Pytensor",
    "Ready",
    "ScipyDifferentiate",
    "Torch",
    "Whole",
    "calls",
    "gradient_of",
]
