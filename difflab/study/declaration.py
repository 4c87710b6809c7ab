"""What a study declares: networks, back-ends, measures, limits."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from difflab.backends import BACKENDS, Backend
from difflab.network_files import Network
from difflab.peers import PEERS


Measure = Literal[
    "accuracy",
    "speed",
    "swell",
    "derivation",
    "forecast",
    "error_estimates",
    "condition",
    "agreement",
    "certificate",
    "roofline",
    "contest",
]
METHODS: dict[str, Backend] = {**BACKENDS, **PEERS}
"""What a study can compare: the lab's own back-ends and others, with their defaults."""
PLACE = ("scale", "x_shift", "y_shift")
"""Fields of a network in a study that say where it is differentiated."""


class PlacedNetwork(Network, frozen=True, forbid_unknown_fields=True):
    """A network and where a study differentiates it.

    Attributes
    ----------
    scale : what theta is multiplied by; large ones saturate.
    x_shift, y_shift : what is added to all inputs and to all targets.
    batch : how many samples, if not as many as for all networks of the study.
    """

    scale: float = 1.0
    x_shift: float = 0.0
    y_shift: float = 0.0
    batch: int | None = None


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question, its measures and its grid; limits are per cell."""

    question: str
    measures: list[Measure]
    networks: list[PlacedNetwork]
    backends: list[dict[str, Any]]
    batch: int = 128
    seed: int = 0
    limit_seconds: float = 60.0
    limit_bytes: int = 4_000_000_000


def build_backend(declared: dict[str, Any]) -> Backend:
    """The back-end or peer that ``{"name": ..., options...}`` declares."""
    options = {key: value for key, value in declared.items() if key != "name"}
    return type(METHODS[declared["name"]])(**options)
