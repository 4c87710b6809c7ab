"""Other people's differentiators as back-ends of the lab, and their table of defaults."""

from difflab.peers.entrywise import Answer, Peer
from difflab.peers.jacobi import Jacobi
from difflab.peers.numdifftools import Numdifftools
from difflab.peers.scipy_differentiate import ScipyDifferentiate


PEERS: dict[str, Peer] = {peer.name: peer for peer in (ScipyDifferentiate(), Numdifftools(), Jacobi())}

__all__ = ["PEERS", "Answer", "Jacobi", "Numdifftools", "Peer", "ScipyDifferentiate"]
