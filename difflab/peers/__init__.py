"""Differentiators beside the lab's own, as back-ends for studies, and their table of defaults."""

from difflab.backends import Backend
from difflab.peers.entrywise import Answer, Peer
from difflab.peers.handwritten import Handwritten
from difflab.peers.jacobi import Jacobi
from difflab.peers.numdifftools import Numdifftools
from difflab.peers.scipy_differentiate import ScipyDifferentiate


PEERS: dict[str, Backend] = {
    peer.name: peer for peer in (ScipyDifferentiate(), Numdifftools(), Jacobi(), Handwritten())
}

__all__ = ["PEERS", "Answer", "Handwritten", "Jacobi", "Numdifftools", "Peer", "ScipyDifferentiate"]
