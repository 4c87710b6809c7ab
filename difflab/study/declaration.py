"""What a study declares: networks, back-ends, measures, limits."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from difflab.backends import BACKENDS, Backend
from difflab.network_files import Network


Measure = Literal["accuracy", "speed", "swell"]


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question, its measures and its grid; limits are per cell."""

    question: str
    measures: list[Measure]
    networks: list[Network]
    backends: list[dict[str, Any]]
    batch: int = 128
    seed: int = 0
    limit_seconds: float = 60.0
    limit_bytes: int = 4_000_000_000


def build_backend(declared: dict[str, Any]) -> Backend:
    """The back-end that ``{"name": ..., options...}`` declares."""
    options = {key: value for key, value in declared.items() if key != "name"}
    return type(BACKENDS[declared["name"]])(**options)
