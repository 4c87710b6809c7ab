"""Operations that are linear: tangents go as values do, and tangents of cotangents as cotangents."""

from __future__ import annotations

from collections.abc import Callable

from difflab.kernels.layout import BAR_DOTS, BARS, DOTS, VALUES
from difflab.kernels.rules.rule import Rule


def linear(apply: Callable[..., None], transpose: Callable[..., None], carries: int = 2) -> Rule:
    """The rule of a linear operation.

    Parameters
    ----------
    apply : compiled ``(row, state, part, zero)``, which makes the output from the inputs of the workspace ``part``.
    transpose : the same in reverse, which adds to the inputs.
    carries : as of the rule.
    """

    def forward(row, state, zero):
        apply(row, state, VALUES, zero)

    def tangent(row, state, zero):
        apply(row, state, DOTS, zero)

    def reverse(row, state, zero):
        transpose(row, state, BARS, zero)

    def reverse_tangent(row, state, zero):
        transpose(row, state, BAR_DOTS, zero)

    return Rule(forward, tangent, reverse, reverse_tangent, carries)
